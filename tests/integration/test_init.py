"""``init``: an app that exists runs afterwards, and nothing of it is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.project import load_project
from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import download
from tests.integration.harness import deno_binary
from tests.integration.test_new import contents

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT_S = 300.0
# Blocks of 512 or 1024 bytes, as the shell has it: less than lambda.d.ts.
FILE_LIMIT_BLOCKS = 8
DENO_JSON = """{
  // of this app
  "tasks": { "start": "deno serve web.ts" },
  "imports": { "hono": "npm:hono@4.13.19" }, /* pinned */
}
"""
APP = """import { Hono } from "hono";

const app = new Hono();
app.get("/", (c) => c.json({ path: c.req.path }));

export default app;
"""


def run(
    *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "NO_COLOR": "1", **(environ or {})}
    return as_text(run_command(*arguments, cwd=cwd, environ=variables))


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An app that was written for Deno."""
    folder = tmp_path / "my app"
    folder.mkdir()
    (folder / "deno.jsonc").write_text(DENO_JSON, encoding="utf-8")
    (folder / "web.ts").write_text(APP, encoding="utf-8")
    shutil.copyfile(EXAMPLES.parent / LOCK, folder / "deno.lock")
    return folder


LOCK = "src/lambda_deno_spawn/dev/project/templates/http/deno.lock"


@pytest.mark.long
@pytest.mark.deno
def test_app_for_deno_runs_afterwards(app: Path) -> None:
    before = contents(app)
    environ = {"DENO_DIR": download(EXAMPLES / "hono-api"), "PATH": os.environ["PATH"]}
    planned = run("init", "--dry-run", cwd=app)
    assert (planned.returncode, planned.stderr) == (0, "")
    assert contents(app) == before
    done = run("init", cwd=app)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:9] == [
        "Handler: web.handler in web.ts, found by tasks.start in deno.jsonc",
        "",
        "  wrote     lambda.toml: function my-app",
        "  wrote     events/url.json: a sample, to be adapted",
        "  wrote     lambda.d.ts: types for handlers",
        "  added to  deno.jsonc: tasks lambda:dev, lambda:invoke, lambda:deploy",
        "  wrote     .vscode/launch.json: debugging in VS Code",
        "  wrote     .gitignore: dist/",
        "  wrote     AGENTS.md: for coding agents",
    ]
    lines = [line.strip() for line in planned.stdout.splitlines()[2:9]]
    assert lines == [
        f"would {line.strip().replace('wrote', 'write').replace('added', 'add')}"
        .replace("write     ", "write   ")
        for line in done.stdout.splitlines()[2:9]
    ]  # fmt: skip
    after = contents(app)
    assert after["web.ts"] == before["web.ts"]
    text = after["deno.jsonc"].decode()
    assert "// of this app" in text
    assert "/* pinned */" in text
    event = "@events/url.json"
    invoked = run(
        "invoke", ".", "--timeout", "60", "--event", event, cwd=app, environ=environ
    )
    assert invoked.returncode == 0, invoked.stderr
    assert json.loads(json.loads(invoked.stdout)["body"]) == {"path": "/"}
    # The command is on PATH for tasks, as it is after an installation.
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    task = subprocess.run(
        [deno_binary(), "task", "lambda:invoke"],
        cwd=app,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert task.returncode == 0, task.stderr
    assert task.stdout == invoked.stdout
    before = contents(app)
    again = run("init", "-o", "json", cwd=app)
    assert {item["state"] for item in json.loads(again.stdout)["files"]} == {"kept"}
    assert contents(app) == before


@pytest.mark.deno
def test_app_for_node_runs_afterwards(tmp_path: Path) -> None:
    package = {"type": "module", "main": "dist/index.js", "scripts": {"build": "tsc"}}
    (tmp_path / "package.json").write_text(json.dumps(package, indent=4))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "index.ts").write_text(
        'import type { SQSEvent } from "aws-lambda";\n'
        "export const lambdaHandler = (event: SQSEvent) => event.Records.length;\n"
    )
    done = run("init", str(tmp_path), "--name", "queue", cwd=tmp_path.parent)
    assert done.returncode == 0, done.stderr
    project = load_project(tmp_path)
    assert (project.name, project.function.handler) == (
        "queue",
        "src/index.lambdaHandler",
    )
    assert not (tmp_path / "deno.json").exists()
    invoked = run(
        "invoke", ".", "--timeout", "60", "--event", "@events/sqs.json", cwd=tmp_path
    )
    assert (invoked.returncode, invoked.stdout) == (0, "1\n"), invoked.stderr


def test_app_that_listens_is_said_to(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "server.js").write_text("express().listen(3000);\n")
    done = run("init", cwd=tmp_path)
    assert done.stdout.startswith(
        "Handler: src/server.handler in src/server.js (an app that listens), found by "
    )


def test_what_is_found_but_is_no_handler_is_noted(tmp_path: Path) -> None:
    (tmp_path / "main.ts").write_text("export const add = 1;\n")
    done = run("init", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("Note: main.ts has neither a handler nor an app nor ")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "deno.json",
            "{\n  broken\n}\n",
            "Cannot read 'deno.json': line 2, column 3: 'broken' is not a value; "
            "correct it, and run this again\n",
        ),
        (".vscode", "", "Cannot use '.vscode': it is not a folder, but "),
        ("lambda.toml", "memroy = 1\n", "Cannot use 'lambda.toml': the key 'memroy'"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    (tmp_path / "main.ts").write_text(APP)
    (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    done = run("init", cwd=tmp_path)
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (2, "")
    assert contents(tmp_path) == before


def test_file_that_the_system_refuses_to_write_leaves_all_as_it_was(app: Path) -> None:
    before = contents(app)
    limited = f'ulimit -f {FILE_LIMIT_BLOCKS} && exec "$@"'
    command = [sys.executable, "-m", "lambda_deno_spawn", "init"]
    done = subprocess.run(
        ["/bin/sh", "-c", limited, "sh", *command],
        cwd=app,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stderr == (
        "Cannot write 'lambda.d.ts': File too large; nothing was changed\n"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert contents(app) == before
    assert sorted(path.name for path in app.iterdir()) == sorted(before)

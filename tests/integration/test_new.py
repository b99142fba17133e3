"""``new``: what it writes does all that its README says, and its own checks pass.

What the README of the template ``cdk`` says about CDK is in ``test_new_cdk.py``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from moto.core.config import default_user_config

from lambda_deno_spawn.dev.project.new import (
    TEMPLATES,
    TEMPLATES_FOLDER,
    write_project,
)
from lambda_deno_spawn.dev.project.project import Arch, load_project
from tests.fixtures.aws import reset
from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import download, fetch_bundler
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.project.new import NewProject

EXAMPLES = Path(__file__).parents[2] / "examples"
FIXTURES = Path(__file__).parents[1] / "fixtures"
COMMAND_LIMIT_S = 300.0
NO_WRAPPER = 'exec "$@"'
# Blocks of 512 or 1024 bytes, as the shell has it: less than lambda.d.ts.
FILE_LIMIT_BLOCKS = 8

each_template = pytest.mark.parametrize("template", TEMPLATES)


def run(
    command: str,
    cwd: Path,
    *,
    deno_dir: str | None = None,
    wrapper: str = NO_WRAPPER,
    environ: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would type it, ours and Deno's wherever they are."""
    name, *arguments = shlex.split(command)
    environ = {
        **os.environ,
        **(environ or {}),
        **({} if deno_dir is None else {"DENO_DIR": deno_dir}),
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if name == "lambda-deno-spawn" and wrapper == NO_WRAPPER:
        return as_text(run_command(*arguments, cwd=cwd, environ=environ))
    places = {
        "lambda-deno-spawn": [sys.executable, "-m", "lambda_deno_spawn"],
        "deno": [deno_binary()],
    }
    return subprocess.run(
        ["/bin/sh", "-c", wrapper, "sh", *places[name], *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# --- what it writes ----------------------------------------------------------------


@pytest.fixture(scope="module")
def deno_dir() -> str:
    """Deno's cache, with the packages that templates import, and the bundler."""
    download(EXAMPLES / "hono-api")
    download(FIXTURES / "mcp")
    return fetch_bundler()


@pytest.fixture
def project(tmp_path: Path, template: str) -> NewProject:
    return write_project("orders", TEMPLATES[template], Arch.here(), tmp_path)


def commands(project: NewProject) -> list[str]:
    """Return the commands of a project's README, in their order."""
    readme = (project.path / "README.md").read_text("utf-8")
    return re.findall(r"^ {4}(\S.*)$", readme, re.MULTILINE)


@pytest.mark.cases(1)
@pytest.mark.deno
@each_template
def test_new_project_passes_its_own_checks(project: NewProject, deno_dir: str) -> None:
    before = contents(project.path)
    done = run("deno task check", project.path, deno_dir=deno_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    # A lock file would be new, or another one, if anything were not pinned.
    assert contents(project.path) == before


def body(answer: str) -> dict[str, object]:
    """Return what an HTTP client gets, which is JSON here."""
    found: dict[str, object] = json.loads(json.loads(answer)["body"])
    return found


def failed(answer: str) -> list[str]:
    """Return the records of a batch that are to be delivered again."""
    found = json.loads(answer)["batchItemFailures"]
    return [item["itemIdentifier"][-1] for item in found]


ANSWERS: dict[str, Callable[[str], bool]] = {
    "events/greeting.json": lambda out: json.loads(out)["message"] == "Hello Ada",
    "events/hello.json": lambda out: body(out) == {"message": "Welcome Ada"},
    "events/note.json": lambda out: body(out)["text"] == "Buy milk",
    "events/batch.json": lambda out: len(failed(out)) == 1,
    "events/readings.json": lambda out: failed(out) == ["2"],
    "events/changes.json": lambda out: failed(out) == ["2"],
    "events/nightly.json": lambda out: json.loads(out)["day"] == "2026-11-28",
    "events/prompt.json": lambda out: out.endswith("is left behind.\n"),
    "events/list.json": lambda out: '"convert"' in str(json.loads(out)["body"]),
    "events/call.json": lambda out: '"meters":4828.032' in json.loads(out)["body"],
}


@pytest.mark.long
@pytest.mark.deno
@each_template  # the commands of most READMEs are the same
@pytest.mark.cases(1)
def test_commands_of_the_readme_work_in_their_order(
    project: NewProject,
    deno_dir: str,
    stand_in: dict[str, str],
    layers: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In place of an invocation in a container.
    monkeypatch.setitem(default_user_config["lambda"], "use_docker", False)
    reset(stand_in)
    before = contents(project.path)
    dist = project.path / "dist"
    dist.mkdir()
    for layer in layers.iterdir():  # building them takes long
        (dist / layer.name).symlink_to(layer)
    nowhere = str(project.path / "nowhere")
    environ = {
        **stand_in,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
    }
    done = {}
    for command in commands(project):
        if command.startswith("npm "):
            continue
        if project.path.joinpath("cdk").exists() and (
            "--remote" in command or " logs " in command
        ):
            continue
        # A person is asked.
        asked = " --yes" if " delete " in command else ""
        done[command] = run(
            command + asked, project.path, deno_dir=deno_dir, environ=environ
        )
        said = done[command]
        assert said.returncode == 0, f"{command}:\n{said.stdout}{said.stderr}"
    first = next(iter(done))
    assert ANSWERS[first.partition("@")[2]](done[first].stdout), done[first].stdout
    package = dist / f"{project.path.name}.zip"
    if package.exists():
        with zipfile.ZipFile(package) as content:
            names = [name for name in content.namelist() if "function" in name]
        assert names == ["function.bundle.js", "function.bundle.js.map"]
    after = contents(project.path)
    assert {name: after[name] for name in after if not name.startswith("dist/")} == (
        before
    )


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize(
    ("template", "event"),
    [("http", "events/note.json"), ("mcp", "events/list.json")],
)
def test_new_project_answers_its_other_events(
    project: NewProject, deno_dir: str, event: str
) -> None:
    command = f"lambda-deno-spawn invoke . --event @{event}"
    done = run(command, project.path, deno_dir=deno_dir)
    assert done.returncode == 0, done.stderr
    assert ANSWERS[event](done.stdout), done.stdout


def test_every_event_of_a_template_is_sent_to_it() -> None:
    events = {
        file.relative_to(folder).as_posix()
        for folder in TEMPLATES_FOLDER.iterdir()
        for file in folder.glob("events/*.json")
    }
    assert events == {*ANSWERS}


# --- the command -------------------------------------------------------------------


def test_command_prints_the_files_and_what_to_do_next(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("lambda-deno-spawn", "deno"):
        (programs / name).touch(0o755)
    environ = {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = run("lambda-deno-spawn new my-orders", tmp_path, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    created, _, following = done.stdout.partition("\n\nNext:\n")
    assert created.splitlines() == [
        "Created my-orders:",
        *(f"  {file}" for file in sorted(contents(tmp_path / "my-orders"))),
    ]
    assert following.splitlines() == [
        "  cd my-orders",
        "  lambda-deno-spawn invoke . --event @events/greeting.json",
        "  deno task test",
    ]
    assert load_project(tmp_path / "my-orders").arch is Arch.here()


def test_next_steps_work_where_neither_program_is_on_path(tmp_path: Path) -> None:
    done = run("lambda-deno-spawn new orders", tmp_path, environ={"PATH": "/bin"})
    _, _, following = done.stdout.partition("\n\nNext:\n")
    own = f"{sys.executable} -m lambda_deno_spawn"
    assert following.splitlines() == [
        "  cd orders",
        f"  {own} invoke . --event @events/greeting.json",
        f"  {own} deno task test",
    ]


def test_command_prints_one_object_with_json_output(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    options = "--template http --path services --arch arm64 -o json"
    done = run(f"lambda-deno-spawn new api {options}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "services" / "api"
    assert json.loads(done.stdout) == {
        "path": str(path),
        "files": sorted(contents(path)),
    }
    assert load_project(path).arch is Arch.ARM64


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("a.b", "Cannot use the name 'a.b': Lambda accepts 1 to 64 letters"),
        ("a --template htp", "Cannot use template 'htp': it does not exist"),
        ("taken", "Cannot write project 'taken': a file with this name exists"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(
    tmp_path: Path, arguments: str, sentence: str
) -> None:
    (tmp_path / "taken").touch()
    done = run(f"lambda-deno-spawn new {arguments}", tmp_path)
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (2, "")
    assert contents(tmp_path) == {"taken": b""}


def test_file_that_the_system_refuses_to_write_leaves_nothing(tmp_path: Path) -> None:
    wrapper = f'ulimit -f {FILE_LIMIT_BLOCKS} && exec "$@"'
    done = run("lambda-deno-spawn new orders", tmp_path, wrapper=wrapper)
    assert done.stderr == "Cannot write project 'orders': File too large\n"
    assert (done.returncode, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []

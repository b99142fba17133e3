"""``dev`` while files are saved: the next request runs the new code."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.devserver.watcher import GitIgnored
from tests.integration.dev_server import LIMIT_S, DevServer, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.deno

LIB = "export const word = 'first';\n"
CODE = """
import { word } from "../lib/word.ts";
export async function handler(event: any) {
  if (event.wait) {
    console.log("waits");
    await new Promise((done) => setTimeout(done, event.wait));
  }
  return word;
}
"""

# With a limit for the programs of a user that only this one has.
FEW_WATCHES = [
    "unshare", "--user", "--map-root-user", "sh", "-c",
    'echo 2 >/proc/sys/user/max_inotify_watches && exec "$0" "$@"',
]  # fmt: skip

FILES = [
    "plain.ts", "x.log", "keep.log", "out/a.ts", "sub/out/b.ts", "sub/deep.tmp",
    "sub/own.txt", "sub/back.txt", "only/here.md", "sub/only/here.md", "dir/x/y.ts",
    "dir/keep.ts", "a b.ts",
]  # fmt: skip
IGNORE = "*.log\n!keep.log\nout/\n/only\n*.tmp\ndir/*\n!dir/keep.ts\n# out\n"
IGNORE_SUB = "*.txt\n!back.txt\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(
        tmp_path / "project",
        {
            ".git/HEAD": "",
            ".gitignore": "out/\n*.bak\n",
            "deno.json": "{}",
            "one/function.ts": CODE,
            "one/lambda.toml": "timeout = 60\n",
            "two/function.ts": "export const handler = () => 'two';\n",
            "two/lambda.toml": "",
            "lib/word.ts": LIB,
        },
    )


@pytest.fixture
def dev(project: Path) -> Iterator[DevServer]:
    with DevServer(project) as server:
        yield server


def answer(dev: DevServer, name: str = "one", event: Any = None) -> Any:
    payload = json.dumps(event or {}).encode()
    response = dev.lambda_client().invoke(FunctionName=name, Payload=payload)
    return json.loads(response["Payload"].read())


def reloaded(dev: DevServer, name: str, since: int) -> None:
    """Wait until a function has new code."""

    def is_it(change: dict[str, Any]) -> bool:
        notice = change.get("notice", {})
        return (notice.get("function"), notice.get("level")) == (name, "reload")

    dev.wait_for(is_it, since)


def test_saved_code_serves_the_next_request(dev: DevServer, project: Path) -> None:
    assert answer(dev) == "first"
    # A request that runs meanwhile ends on the code it began with.
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        running = threads.submit(answer, dev, "one", {"wait": 2000})
        dev.wait_for(lambda c: c["kind"] == "log" and "waits" in str(c["line"]))
        since = len(dev.changes)
        write(project, {"lib/word.ts": LIB.replace("first", "second")})
        reloaded(dev, "one", since)
        assert answer(dev) == "second"
        assert running.result(LIMIT_S) == "first"

    # Half-written: the error is told once, and in each answer.
    since = len(dev.changes)
    write(project, {"one/function.ts": CODE[:60]})
    reloaded(dev, "one", since)
    for _ in range(2):
        assert answer(dev)["errorType"] == "Runtime.UserCodeSyntaxError"
    dev.notice("Runtime.UserCodeSyntaxError", since)
    errors = [
        c["notice"]["text"]
        for c in dev.changes[since:]
        if c.get("notice", {}).get("level") == "error"
    ]
    assert len(errors) == 1
    assert "Runtime.UserCodeSyntaxError" in errors[0]

    # The next good one heals.
    since = len(dev.changes)
    write(
        project, {"one/function.ts": CODE.replace("return word", "return `${word}!`")}
    )
    reloaded(dev, "one", since)
    assert answer(dev) == "second!"


def test_what_git_ignores_changes_nothing(dev: DevServer, project: Path) -> None:
    since = len(dev.changes)
    write(project, {"one/function.ts.bak": CODE, "one/out/x.ts": CODE, ".git/x": "1"})
    write(project, {"two/data.txt": "1"})
    reloaded(dev, "two", since)
    notices = [c["notice"] for c in dev.changes[since:] if c["kind"] == "notice"]
    assert [each["function"] for each in notices] == ["two"]


def test_project_files_are_read_again_and_functions_come_and_go(
    dev: DevServer, project: Path
) -> None:
    since = len(dev.changes)
    write(
        project,
        {
            "three/lambda.toml": "",
            "three/function.js": "export const handler = () => 3;",
        },
    )
    dev.notice("is served now", since)
    assert answer(dev, "three") == 3

    since = len(dev.changes)
    write(project, {"two/lambda.toml": "memory = 1\n"})
    assert "expected a whole number of MB" in dev.notice("memory is 1", since)["text"]
    assert answer(dev, "two") == "two", "what was there before serves on"

    since = len(dev.changes)
    write(project, {"two/lambda.toml": 'name = "zwei"\n'})
    dev.notice("is served now", since)
    assert answer(dev, "zwei") == "two"


def test_a_function_is_served_again_when_its_folder_is_back(tmp_path: Path) -> None:
    """Such as after a change of the branch, and back."""
    folder = write(tmp_path / "f", {"function.ts": "export const handler = () => 1;"})
    with DevServer(folder, "--timeout", "20") as dev:
        assert answer(dev, "f") == 1
        since = len(dev.changes)
        folder.rename(tmp_path / "away")
        gone = f"Cannot run 'f': its folder '{folder}' is gone"
        dev.notice(gone, since)
        assert answer(dev, "f")["errorMessage"].startswith(gone)
        (tmp_path / "away").rename(folder)
        reloaded(dev, "f", since)
        assert answer(dev, "f") == 1


def test_files_of_variables_are_read_again(tmp_path: Path) -> None:
    """Wherever they are, and though Git ignores them."""
    code = "export const handler = () => Deno.env.get('WORD');"
    folder = write(
        tmp_path / "f",
        {".git/HEAD": "", ".gitignore": ".env", "function.ts": code, ".env": "WORD=1"},
    )
    file = folder / ".env"
    with DevServer(folder, "--env-file", file, "--env", "OTHER=2") as dev:
        assert answer(dev, "f") == "1"
        for text, expected in (("WORD=1 $", "1"), ("WORD=3", "3")):
            since = len(dev.changes)
            file.write_text(text)
            if expected == "1":
                assert "line 1" in dev.notice(str(file), since)["text"]
            else:
                reloaded(dev, "f", since)
            assert answer(dev, "f") == expected
        invoked = dev.lambda_client().invoke(FunctionName="f", LogType="Tail")
        record = dev.ended(invoked["ResponseMetadata"]["RequestId"])
        assert record["status"] == 200


def test_files_are_compared_when_the_system_has_no_watches_left(project: Path) -> None:
    try:
        subprocess.run([*FEW_WATCHES, "true"], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the limit cannot be lowered: {error}")
    with DevServer(project, wrapper=FEW_WATCHES) as dev:
        text = dev.notice("files are compared")["text"]
        assert "fs.inotify.max_user_watches = " in text
        assert answer(dev) == "first"
        since = len(dev.changes)
        write(project, {"lib/word.ts": LIB.replace("first", "second")})
        reloaded(dev, "one", since)
        assert answer(dev) == "second"


def test_type_errors_are_told_once_and_the_function_runs(tmp_path: Path) -> None:
    code = "export function handler(): string { return 'text'; }\n"
    folder = write(tmp_path / "f", {"function.ts": code})
    with DevServer(folder, "--check") as dev:
        since = len(dev.changes)
        write(folder, {"function.ts": code.replace("'text'", "7")})
        text = dev.notice("TS2322", since)["text"]
        assert "function.ts:1:" in text
        assert "\x1b" not in text
        assert answer(dev, "f") == 7
        write(folder, {"function.ts": code.replace("'text'", "'fine'")})
        dev.notice("no type errors any more", since)
        told = [c for c in dev.changes[since:] if "TS2322" in str(c)]
        assert len(told) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_git_agrees_on_what_is_ignored(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "sub").mkdir()
    (tmp_path / ".gitignore").write_text(IGNORE)
    (tmp_path / "sub/.gitignore").write_text(IGNORE_SUB)
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    command = ["git", "-C", str(tmp_path), "check-ignore", "--", *FILES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ignored = GitIgnored()
    ours = {name for name in FILES if ignored.matches(tmp_path / name)}
    assert ours == set(done.stdout.splitlines())

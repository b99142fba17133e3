"""``new``: what it writes does all that its README says, and its own checks pass."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.new import TEMPLATES, write_project
from lambda_deno_spawn.dev.project.project import Arch, load_project
from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import download, fetch_bundler
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.project.new import NewProject

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND_LIMIT_S = 120.0
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
    """Deno's cache, with the packages that templates import: those of an example."""
    return download(EXAMPLES / "hono-api")


@pytest.fixture
def project(tmp_path: Path, template: str) -> NewProject:
    return write_project("orders", TEMPLATES[template], Arch.here(), tmp_path)


@pytest.mark.deno
@each_template
def test_new_project_passes_its_own_tests_and_checks(
    project: NewProject, deno_dir: str
) -> None:
    before = contents(project.path)
    # Types are judged once: by the second one.
    for command in ("deno task test --no-check", "deno task check"):
        done = run(command, project.path, deno_dir=deno_dir)
        assert done.returncode == 0, done.stdout + done.stderr
    # A lock file would be new, or another one, if anything were not pinned.
    assert contents(project.path) == before


def body(answer: str) -> dict[str, object]:
    """Return what an HTTP client gets, which is JSON here."""
    found: dict[str, object] = json.loads(json.loads(answer)["body"])
    return found


ANSWERS: dict[str, Callable[[str], bool]] = {
    "events/greeting.json": lambda out: json.loads(out)["message"] == "Hello Ada",
    "events/hello.json": lambda out: body(out) == {"message": "Welcome Ada"},
    "events/note.json": lambda out: body(out)["text"] == "Buy milk",
    "events/batch.json": lambda out: len(json.loads(out)["batchItemFailures"]) == 1,
    "events/nightly.json": lambda out: json.loads(out)["day"] == "2026-11-28",
    "events/prompt.json": lambda out: out.endswith("is left behind.\n"),
}


@pytest.mark.deno
@each_template
def test_new_project_answers_each_of_its_events(
    project: NewProject, deno_dir: str
) -> None:
    for event in (file for file in project.files if file.startswith("events/")):
        command = f"lambda-deno-spawn invoke . --event @{event}"
        done = run(command, project.path, deno_dir=deno_dir)
        assert done.returncode == 0, done.stderr
        assert ANSWERS[event](done.stdout), done.stdout


@pytest.mark.deno
@each_template
def test_new_project_is_built_as_it_is(project: NewProject, deno_dir: str) -> None:
    fetch_bundler()
    done = run("lambda-deno-spawn build .", project.path, deno_dir=deno_dir)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    package = project.path / "dist" / f"{project.path.name}.zip"
    with zipfile.ZipFile(package) as content:
        code = [name for name in content.namelist() if name.startswith("function")]
    assert code == ["function.bundle.js", "function.bundle.js.map"]


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

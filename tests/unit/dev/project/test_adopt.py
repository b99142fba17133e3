"""A folder becomes a project: what is added to which file, and that nothing is lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.project import jsonc
from lambda_deno_spawn.dev.project.adopt import (
    TASKS,
    TYPES_PACKAGE,
    Adoption,
    State,
    carry_out,
    plan_adoption,
)
from lambda_deno_spawn.dev.project.new import TEMPLATES, TYPES, write_project
from lambda_deno_spawn.dev.project.project import Arch, load_project
from lambda_deno_spawn.errors import UsageError

SERVED = "Deno.serve(() => new Response());"
EVERY_FILE = {
    "lambda.toml", "events/url.json", "lambda.d.ts", "deno.json",
    ".vscode/launch.json", ".gitignore", "AGENTS.md",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app, and nothing else."""
    path = tmp_path / "orders"
    path.mkdir()
    (path / "main.ts").write_text(SERVED, encoding="utf-8")
    return path


def plan(folder: Path, **options: str) -> Adoption:
    return plan_adoption(folder, Arch.ARM64, **options)


def adopt(folder: Path, **options: str) -> dict[str, tuple[State, str]]:
    adoption = plan(folder, **options)
    carry_out(adoption)
    return {step.file: (step.state, step.detail) for step in adoption.steps}


def refusal(folder: Path, **options: str) -> str:
    before = contents(folder)
    with pytest.raises(UsageError) as caught:
        adopt(folder, **options)
    assert contents(folder) == before
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def test_bare_app_gets_every_file(folder: Path) -> None:
    found = adopt(folder)
    assert {*found} == EVERY_FILE
    assert {state for state, _ in found.values()} == {State.WRITTEN}
    assert {*contents(folder)} == {*EVERY_FILE, "main.ts", "events", ".vscode"}
    assert (folder / "main.ts").read_text("utf-8") == SERVED
    project = load_project(folder)
    assert (project.name, project.arch) == ("orders", Arch.ARM64)
    assert project.function.handler == "main.handler"
    assert (folder / "lambda.d.ts").read_bytes() == TYPES.read_bytes()
    tasks = json.loads((folder / "deno.json").read_bytes())["tasks"]
    assert {*tasks} == {*TASKS}
    assert "@events/url.json" in tasks["lambda:invoke"]
    assert "@events/url.json" in (folder / ".vscode/launch.json").read_text("utf-8")
    event = json.loads((folder / "events/url.json").read_bytes())
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/"
    assert "deno task" not in (folder / "AGENTS.md").read_text("utf-8")


def test_app_behind_an_adapter_gets_a_request_of_its_first_page(folder: Path) -> None:
    source = "exports.handler = require('aws-serverless-express')(app);"
    (folder / "main.ts").write_text(source, encoding="utf-8")
    adopt(folder)
    event = json.loads((folder / "events/rest.json").read_bytes())
    assert event["path"] == "/"
    assert event["resource"] == event["requestContext"]["resourcePath"] == "/"
    assert event["queryStringParameters"] is event["pathParameters"] is None


@pytest.mark.parametrize("there", [None, "dist\n", "node_modules\n*.log"])
def test_packages_of_npm_are_ignored(folder: Path, there: str | None) -> None:
    (folder / "package.json").write_text("{}", encoding="utf-8")
    if there is not None:
        (folder / ".gitignore").write_text(there, encoding="utf-8")
    adopt(folder)
    lines = (folder / ".gitignore").read_text("utf-8").split()
    assert sorted(line.strip("/") for line in lines if line != "*.log") == [
        "dist",
        "node_modules",
    ]
    assert adopt(folder)[".gitignore"][0] is State.KEPT


def test_second_run_changes_nothing(folder: Path) -> None:
    (folder / "deno.json").write_text('{ // c\n  "tasks": {}\n}', encoding="utf-8")
    (folder / ".gitignore").write_text("node_modules", encoding="utf-8")
    adopt(folder)
    before = contents(folder)
    again = adopt(folder)
    assert {state for state, _ in again.values()} == {State.KEPT}
    assert contents(folder) == before


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_new_project_needs_nothing_but_tasks(tmp_path: Path, template: object) -> None:
    assert template in TEMPLATES.values()
    path = write_project("orders", template, Arch.ARM64, tmp_path).path  # type: ignore[arg-type]
    adoption = plan(path)
    assert [step.file for step in adoption.writes] == ["deno.json"]
    assert adoption.app.handler == "function.handler"


def test_name_handler_and_runtime_are_those_that_are_given(folder: Path) -> None:
    (folder / "jobs").mkdir()
    (folder / "jobs" / "night.ts").write_text("export const run = 1;", encoding="utf-8")
    adopt(folder, name="nightly", handler="jobs/night.run", runtime="python3.12")
    project = load_project(folder)
    assert (project.name, project.runtime) == ("nightly", "python3.12")
    assert project.function.handler == "jobs/night.run"


def test_files_that_are_there_stay_and_get_only_what_is_missing(folder: Path) -> None:
    there = {
        "lambda.toml": 'name = "mine"\nhandler = "main.handler"\n',
        "events/a.json": "{}",
        "deno.jsonc": '{\n  // own\n  "tasks": { "lambda:dev": "mine" }, // end\n}\n',
        ".vscode/launch.json": '{\n  // own\n  "configurations": [],\n}\n',
        ".gitignore": "node_modules\r\n*.log",
        "AGENTS.md": "# Mine\n",
        "lambda.d.ts": "// older\n",
    }
    for name, text in there.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode())
    found = adopt(folder)
    for name in ("lambda.toml", "events/a.json", "AGENTS.md", "lambda.d.ts"):
        assert (folder / name).read_bytes() == there[name].encode()
    assert found["AGENTS.md"][0] is State.NEEDED
    assert found["lambda.d.ts"] == (
        State.KEPT,
        "not that of this version; remove it and run this again to have that",
    )
    assert not (folder / "deno.json").exists()
    text = (folder / "deno.jsonc").read_text("utf-8")
    assert text.startswith("{\n  // own\n")
    assert text.endswith("}, // end\n}\n")
    assert jsonc.parse(text)["tasks"] == {
        "lambda:dev": "mine",
        "lambda:invoke": "lambda-deno-spawn invoke . --event @events/a.json",
        "lambda:deploy": "lambda-deno-spawn deploy .",
    }
    launch = (folder / ".vscode/launch.json").read_text("utf-8")
    assert "// own" in launch
    assert len(jsonc.parse(launch)["configurations"]) == 2
    ignored = (folder / ".gitignore").read_bytes()
    assert ignored == b"node_modules\r\n*.log\r\ndist/\r\n"


@pytest.mark.parametrize("line", ["dist", "/dist/", "**/dist", "*.zip", "dist/*"])
def test_ignored_output_needs_no_line(folder: Path, line: str) -> None:
    (folder / ".gitignore").write_text(f"# output\n{line}\n", encoding="utf-8")
    assert adopt(folder)[".gitignore"][0] is State.KEPT


def test_rules_of_the_repository_above_count(folder: Path) -> None:
    (folder.parent / ".git").mkdir()
    (folder.parent / ".gitignore").write_text("orders/dist\n", encoding="utf-8")
    assert adopt(folder)["../.gitignore"][0] is State.KEPT
    assert not (folder / ".gitignore").exists()


def test_package_json_gets_scripts(folder: Path) -> None:
    (folder / "package.json").write_text('{\n    "name": "x"\n}\n', encoding="utf-8")
    assert adopt(folder)["package.json"][0] is State.CHANGED
    text = (folder / "package.json").read_text("utf-8")
    assert {*json.loads(text)["scripts"]} == {*TASKS}
    assert '\n        "lambda:dev"' in text
    assert not (folder / "deno.json").exists()


def test_configuration_above_is_not_hidden_by_a_new_one(folder: Path) -> None:
    (folder.parent / "deno.json").write_text("{}", encoding="utf-8")
    state, detail = adopt(folder)["../deno.json"]
    assert state is State.NEEDED
    assert "lambda:invoke" in detail
    assert not (folder / "deno.json").exists()
    assert (folder.parent / "deno.json").read_text("utf-8") == "{}"


def test_types_from_a_package_need_no_copy(folder: Path) -> None:
    imports = {"imports": {TYPES_PACKAGE: f"npm:{TYPES_PACKAGE}@0.2.0"}}
    (folder / "deno.json").write_text(json.dumps(imports), encoding="utf-8")
    adopt(folder)
    assert not (folder / "lambda.d.ts").exists()


def test_link_stays_a_link_and_modes_stay(folder: Path) -> None:
    elsewhere = folder.parent / "shared.json"
    elsewhere.write_text("{}", encoding="utf-8")
    elsewhere.chmod(0o640)
    (folder / "deno.json").symlink_to("../shared.json")
    adopt(folder)
    assert (folder / "deno.json").is_symlink()
    assert "lambda:dev" in elsewhere.read_text("utf-8")
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o640


# --- refusals ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("deno.json", '{ "tasks": {,} }', "line 1, column 13: a value is missing"),
        ("deno.json", '{ "tasks": [] }', "tasks is not an object"),
        ("package.json", "{", "line 1, column 1: '{' is never closed"),
        (".vscode/launch.json", "{ nonsense", "line 1, column 3: "),
        (
            ".vscode/launch.json",
            '{"configurations": {}}',
            "configurations is not a list",
        ),
        ("lambda.toml", "name = ", "Invalid value"),
        ("lambda.toml", 'handler = "gone.handler"', "Cannot find the file of handler"),
    ],
)
def test_broken_file_is_refused_before_anything_is_written(
    folder: Path, name: str, text: str, problem: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    assert problem in refusal(folder)


@pytest.mark.parametrize("name", [".vscode", "events", "lambda.d.ts", "AGENTS.md"])
def test_something_else_in_place_of_a_file_or_folder_is_refused(
    folder: Path, name: str
) -> None:
    if name in (".vscode", "events"):
        (folder / name).touch()
        assert "it is not a folder" in refusal(folder)
    else:
        (folder / name).mkdir()
        assert "it is a folder" in refusal(folder)


def test_folder_has_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        plan(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it is not a folder"):
        plan(tmp_path / "file")


@pytest.mark.parametrize("option", ["name", "handler"])
def test_option_that_the_project_file_would_contradict_is_refused(
    folder: Path, option: str
) -> None:
    (folder / "lambda.toml").write_text('name = "mine"\n', encoding="utf-8")
    assert refusal(folder, **{option: "main.x" if option == "handler" else "a"}) == (
        f"Cannot use --{option}: '{folder}/lambda.toml' exists and is left as it is; "
        "change it there"
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "a b"}, "Cannot use the name 'a b'"),
        ({"handler": "main"}, "Cannot use --handler 'main'"),
        ({"handler": "../main.x"}, "Cannot use --handler '../main.x'"),
        ({"handler": "gone.x"}, "Cannot find the file of handler 'gone.x'"),
    ],
)
def test_bad_option_is_refused(
    folder: Path, options: dict[str, str], problem: str
) -> None:
    assert refusal(folder, **options).startswith(problem)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", [".", "deno.json"])
def test_what_may_not_be_written_is_refused_in_the_plan(
    folder: Path, name: str
) -> None:
    (folder / "deno.json").write_text("{}", encoding="utf-8")
    path = folder / name
    path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        with pytest.raises(UsageError, match="you have no permission"):
            plan(folder)
    finally:
        path.chmod(0o700)


# --- all or nothing ------------------------------------------------------------


@pytest.mark.parametrize("method", ["write_bytes", "hardlink_to", "replace"])
@pytest.mark.parametrize(
    "error",
    [FileExistsError(17, "No space left"), KeyboardInterrupt()],
    ids=["error", "interrupt"],
)
def test_failure_at_any_step_is_undone(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: BaseException,
) -> None:
    (folder / "deno.json").write_text("{ /* mine */ }", encoding="utf-8")
    (folder / ".gitignore").write_text("a\n", encoding="utf-8")
    before = contents(folder)
    original = getattr(Path, method)
    adoption = plan(folder)
    failures = 0
    is_failing = True
    while is_failing:
        left = failures

        def fail(path: Path, *rest: object) -> object:
            nonlocal left
            left -= 1
            if left == -1:
                raise error
            return original(path, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(Path, method, fail)
            try:
                carry_out(adoption)
                is_failing = False
            except (UsageError, KeyboardInterrupt) as raised:
                message = str(raised)
        if is_failing:
            failures += 1
            assert contents(folder) == before
            assert not message or message.endswith("No space left; nothing was changed")
    # It changes two files, which are written twice, and adds five.
    wanted = {"write_bytes": 9, "hardlink_to": 5, "replace": 2}
    assert failures == wanted[method]


def test_file_that_has_changed_since_it_was_read_is_left_alone(folder: Path) -> None:
    (folder / "deno.json").write_text("{}", encoding="utf-8")
    adoption = plan(folder)
    (folder / "deno.json").write_text('{"by": "another"}', encoding="utf-8")
    before = contents(folder)
    with pytest.raises(UsageError, match="another program has changed it"):
        carry_out(adoption)
    assert contents(folder) == before


def test_file_that_appears_meanwhile_is_left_alone(folder: Path) -> None:
    adoption = plan(folder)
    (folder / "AGENTS.md").write_text("another's", encoding="utf-8")
    before = contents(folder)
    with pytest.raises(UsageError, match="File exists; nothing was changed"):
        carry_out(adoption)
    assert contents(folder) == before

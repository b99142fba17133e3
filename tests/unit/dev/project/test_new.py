"""A new project: its files, and that it appears complete or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.aws_keys import TOP_KEYS
from lambda_deno_spawn.dev.project.function import INSPECT_PORT
from lambda_deno_spawn.dev.project.new import (
    COMMON,
    FILLED_IN,
    PART,
    TEMPLATE_NAME,
    TEMPLATES,
    TEMPLATES_FOLDER,
    find_template,
    write_project,
)
from lambda_deno_spawn.dev.project.project import Arch, load_project
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.project.new import Template

ROOT = Path(__file__).parents[4]
EVENT = TEMPLATES["event"]
EVENT_FILES = (
    ".gitignore",
    ".vscode/extensions.json",
    ".vscode/launch.json",
    "AGENTS.md",
    "README.md",
    "deno.json",
    "events/greeting.json",
    "function.ts",
    "function_test.ts",
    "lambda.d.ts",
    "lambda.toml",
)

# The templates that import packages, and where these are tested in the same versions.
PACKAGES = {"http": "examples/hono-api", "mcp": "tests/fixtures/mcp"}
SERVING = ("http", "serve", "mcp")

each_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(name: str, parent: Path) -> str:
    with pytest.raises(UsageError) as caught:
        write_project(name, EVENT, Arch.ARM64, parent)
    return str(caught.value)


# --- content -----------------------------------------------------------------


@each_template
def test_project_has_the_files_that_it_says(tmp_path: Path, template: Template) -> None:
    project = write_project("orders", template, Arch.ARM64, tmp_path)
    assert project.path == tmp_path / "orders"
    found = [file for file in project.path.rglob("*") if file.is_file()]
    names = [file.relative_to(project.path).as_posix() for file in found]
    assert sorted(names) == list(project.files)
    assert {*EVENT_FILES} - {EVENT.event} < {*project.files}
    assert template.event in project.files
    assert ("deno.lock" in project.files) == (template.name in PACKAGES)
    assert not [file for file in project.files if file.endswith(PART)]


def test_plain_project_has_these_files_and_no_others(tmp_path: Path) -> None:
    assert write_project("a", EVENT, Arch.ARM64, tmp_path).files == EVENT_FILES


@each_template
def test_name_and_instruction_set_are_filled_in(
    tmp_path: Path, template: Template
) -> None:
    path = write_project("Orders_2-b", template, Arch.ARM64, tmp_path).path
    project = load_project(path)
    assert (project.name, project.arch) == ("Orders_2-b", Arch.ARM64)
    assert project.function.handler == "function.handler"
    assert (project.memory_mb, project.timeout_s) == (512, 10)
    assert (path / "README.md").read_text("utf-8").startswith("# `Orders_2-b`\n")
    for file in path.rglob("*"):
        assert file.is_dir() or TEMPLATE_NAME.encode() not in file.read_bytes()


@each_template
def test_debugger_is_told_the_template_s_event_and_the_usual_port(
    tmp_path: Path, template: Template
) -> None:
    path = write_project("orders", template, Arch.ARM64, tmp_path).path
    launch = json.loads((path / ".vscode" / "launch.json").read_text("utf-8"))
    invoking, attaching = launch["configurations"]
    assert f"@{template.event}" in invoking["runtimeArgs"]
    assert "--inspect" in invoking["runtimeArgs"]
    assert invoking["attachSimplePort"] == attaching["port"] == INSPECT_PORT
    # Milliseconds; the default is too short for a start that downloads packages.
    assert invoking["timeout"] == attaching["timeout"] == 30_000


@each_template
def test_runtime_is_filled_in_where_it_is_not_the_default(
    tmp_path: Path, template: Template
) -> None:
    path = write_project("a", template, Arch.ARM64, tmp_path, "python3.12").path
    assert load_project(path).runtime == "python3.12"
    assert '\nruntime = "python3.12"\n' in (path / "lambda.toml").read_text("utf-8")


@each_template
def test_template_can_be_used_as_it_is(tmp_path: Path, template: Template) -> None:
    path = write_project(TEMPLATE_NAME, template, Arch.X86_64, tmp_path).path
    folders = (TEMPLATES_FOLDER / template.name, TEMPLATES_FOLDER / COMMON)
    for name in FILLED_IN:
        sources = [f / name for f in folders if (f / name).is_file()]
        if not sources:
            continue
        text = sources[0].read_text("utf-8").replace(EVENT.event, template.event)
        part = folders[0] / f"{name}{PART}"
        text += part.read_text("utf-8") if part.is_file() else ""
        assert (path / name).read_text("utf-8") == text


@each_template
def test_part_of_a_template_follows_what_all_have(
    tmp_path: Path, template: Template
) -> None:
    path = write_project("orders", template, Arch.ARM64, tmp_path).path
    folder = TEMPLATES_FOLDER / template.name
    for part in folder.rglob(f"*{PART}"):
        name = part.relative_to(folder).as_posix().removesuffix(PART)
        common = (TEMPLATES_FOLDER / COMMON / name).read_text("utf-8")
        start, end = common[:20], part.read_text("utf-8")
        text = (path / name).read_text("utf-8")
        assert text.startswith(start)
        assert text.endswith(end)


@each_template
def test_settings_that_are_offered_can_be_used(
    tmp_path: Path, template: Template
) -> None:
    path = write_project("orders", template, Arch.ARM64, tmp_path).path
    part = TEMPLATES_FOLDER / template.name / f"lambda.toml{PART}"
    if part.is_file():
        text = re.sub(r"^# (\w+ =|\[)", r"\1", part.read_text("utf-8"), flags=re.M)
        with (path / "lambda.toml").open("a", encoding="utf-8") as file:
            file.write(text)
        assert load_project(path).aws.keys() <= {"events"}


def test_every_folder_of_templates_is_a_template() -> None:
    folders = {path.name for path in TEMPLATES_FOLDER.iterdir() if path.is_dir()}
    assert folders == {COMMON, *TEMPLATES}


@each_template
def test_types_are_the_runtime_s(tmp_path: Path, template: Template) -> None:
    path = write_project("orders", template, Arch.ARM64, tmp_path).path
    types = ROOT / "src" / "lambda_deno_spawn" / "js" / "lambda.d.ts"
    assert (path / "lambda.d.ts").read_bytes() == types.read_bytes()


def test_project_file_shows_every_other_key_as_a_comment(tmp_path: Path) -> None:
    path = write_project("orders", EVENT, Arch.ARM64, tmp_path).path
    file = path / "lambda.toml"
    text = file.read_text("utf-8")
    # Lines that are commented out: `# key = value`, `# [table]`.
    all_keys = re.sub(r"^# (\w+ =|\[)", r"\1", text, flags=re.MULTILINE)
    file.write_text(all_keys, "utf-8")
    project = load_project(path)
    assert project.role == "arn:aws:iam::123456789012:role/orders"
    assert project.env == {"STAGE": "production"}
    file.write_text(f"zzz = 1\n{all_keys}", "utf-8")
    with pytest.raises(UsageError) as caught:
        load_project(path)
    known = str(caught.value).partition("keys are ")[2].split(", ")
    # Those for AWS alone are on the page that the file names.
    assert sorted(tomllib.loads(all_keys)) == sorted({*known} - {*TOP_KEYS})


@pytest.mark.parametrize(("name", "tested_in"), PACKAGES.items())
def test_packages_are_pinned_to_what_is_tested(
    tmp_path: Path, name: str, tested_in: str
) -> None:
    path = write_project("a", TEMPLATES[name], Arch.ARM64, tmp_path).path
    imports = json.loads((path / "deno.json").read_bytes())["imports"]
    lock = (path / "deno.lock").read_text("utf-8")
    example = ROOT / tested_in
    tested = json.loads((example / "deno.json").read_bytes())["imports"]
    locked = json.loads((example / "deno.lock").read_bytes())["npm"]
    for package, specifier in imports.items():
        assert re.fullmatch(rf"npm:{re.escape(package)}@\d+\.\d+\.\d+", specifier)
        assert tested[package] == specifier
    for package, facts in json.loads(lock)["npm"].items():
        assert locked[package] == facts
    assert "://" not in lock, "a lock that names a registry binds projects to it"


def test_packages_for_cdk_are_pinned_without_a_registry() -> None:
    folder = TEMPLATES_FOLDER / "cdk" / "cdk"
    package = json.loads((folder / "package.json").read_bytes())
    lock = json.loads((folder / "package-lock.json").read_bytes())["packages"]
    for kind in ("dependencies", "devDependencies"):
        assert lock[""][kind] == package[kind]
        for name, version in package[kind].items():
            assert lock[f"node_modules/{name}"]["version"] == version
    assert not [name for name, facts in lock.items() if "resolved" in facts]


@each_template
def test_commands_of_the_readme_lead_from_invoke_to_delete(
    tmp_path: Path, template: Template
) -> None:
    path = write_project("orders", template, Arch.ARM64, tmp_path).path
    text = (path / "README.md").read_text("utf-8")
    invoke = "lambda-deno-spawn invoke"
    deploy = ["lambda-deno-spawn deploy ."]
    delete = ["lambda-deno-spawn delete ."]
    if template.name in SERVING:
        deploy = [f"{deploy[0]} --function-url"]
    if template.name == "cdk":
        steps = ("ci", "run check", "run synth", "run bootstrap", "run deploy")
        deploy = [f"npm --prefix cdk {step}" for step in steps]
        delete = ["npm --prefix cdk run destroy"]
    assert re.findall(r"^ {4}(.*)$", text, re.MULTILINE) == [
        f"{invoke} . --event @{template.event}",
        "lambda-deno-spawn deno task test",
        *deploy,
        f"{invoke} --remote . --event @{template.event}",
        "lambda-deno-spawn logs .",
        *delete,
    ]
    explained = re.findall(r"^\| `(\w+)` +\|", text, re.MULTILINE)
    names = [command.rpartition("run ")[2].split()[-1] for command in deploy]
    if template.name == "cdk":
        assert explained == ["invoke", "deno", *names, "logs", "destroy"]
    else:
        assert explained == ["invoke", "deno", "deploy", "logs", "delete"]


@pytest.mark.parametrize(
    ("name", "hint"), [("htp", "did you mean http? "), ("rust", ""), ("common", "")]
)
def test_unknown_template_is_refused_with_the_known_ones(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_template(name)
    assert str(caught.value) == (
        f"Cannot use template {name!r}: it does not exist; {hint}"
        "templates are event, http, serve, sqs, schedule, stream, kinesis, dynamodb, "
        "mcp, cdk"
    )


# --- complete or not at all ------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a.b", "..", "a/b", "/tmp/a", "größe", "a\n", "n" * 65],
    ids=repr,
)
def test_name_that_lambda_does_not_accept_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(name, tmp_path) == (
        f"Cannot use the name {name!r}: Lambda accepts 1 to 64 letters, digits, - and "
        "_; give such a name, and the parent folder in --path"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["-", "_", "0", "n" * 64])
def test_name_that_lambda_accepts_is_a_folder(tmp_path: Path, name: str) -> None:
    assert write_project(name, EVENT, Arch.ARM64, tmp_path).path.name == name
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / ".hidden").write_text("mine", encoding="utf-8")
    assert refusal("orders", tmp_path) == (
        f"Cannot write project '{tmp_path}/orders': the folder exists and is not "
        "empty; choose another name, or another parent folder with --path"
    )
    assert names_in(tmp_path / "orders") == [".hidden"]
    assert names_in(tmp_path) == ["orders"]


def test_second_project_of_a_name_is_refused(tmp_path: Path) -> None:
    write_project("orders", EVENT, Arch.ARM64, tmp_path)
    (tmp_path / "orders" / "function.ts").write_text("mine", encoding="utf-8")
    assert "is not empty" in refusal("orders", tmp_path)
    assert (tmp_path / "orders" / "function.ts").read_text("utf-8") == "mine"


def test_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    project = write_project("orders", EVENT, Arch.ARM64, tmp_path)
    assert (project.path / "function.ts").is_file()


def _identity(path: Path) -> tuple[int, ...]:
    """Return the attributes of a path that change only if it is replaced or written."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("mine", encoding="utf-8"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.parent),
        os.mkfifo,
    ],
    ids=["file", "dangling-link", "link-to-a-folder", "fifo"],
)
def test_file_in_the_way_is_left_alone(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "orders")
    before = _identity(tmp_path / "orders")
    assert "a file with this name exists" in refusal("orders", tmp_path)
    assert _identity(tmp_path / "orders") == before
    assert names_in(tmp_path) == ["orders"]


def test_missing_parent_folder_is_not_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "nowhere", tmp_path / "file"):
        assert refusal("orders", place) == (
            f"Cannot write project '{place}/orders': there is no folder '{place}'; "
            "create it first"
        )
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_parent_folder_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        message = refusal("orders", tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert message == f"Cannot write project '{tmp_path}/orders': Permission denied"
    assert names_in(tmp_path) == []


@pytest.fixture
def at_fourth_file(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[], None]], None]:
    """Call a function once three files of a project are written."""
    write_bytes = Path.write_bytes
    written: list[Path] = []

    def arrange(happens: Callable[[], None]) -> None:
        def write(path: Path, content: bytes) -> int:
            written.append(path)
            if len(written) == 4:
                happens()
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", write)

    return arrange


def test_full_disk_leaves_nothing(
    tmp_path: Path, at_fourth_file: Callable[[Callable[[], None]], None]
) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    at_fourth_file(fill)
    message = refusal("orders", tmp_path)
    assert (
        message == f"Cannot write project '{tmp_path}/orders': No space left on device"
    )
    assert names_in(tmp_path) == []


def test_interruption_leaves_nothing(
    tmp_path: Path, at_fourth_file: Callable[[Callable[[], None]], None]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    at_fourth_file(interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_project("orders", EVENT, Arch.ARM64, tmp_path)
    assert names_in(tmp_path) == []


def test_folder_that_appears_meanwhile_is_left_alone(
    tmp_path: Path, at_fourth_file: Callable[[Callable[[], None]], None]
) -> None:
    def appear() -> None:
        (tmp_path / "orders").mkdir()
        (tmp_path / "orders" / "theirs").touch()

    at_fourth_file(appear)
    assert refusal("orders", tmp_path).startswith("Cannot write project ")
    assert names_in(tmp_path) == ["orders"]
    assert names_in(tmp_path / "orders") == ["theirs"]


def test_files_have_the_modes_that_the_user_s_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_project("orders", EVENT, Arch.ARM64, tmp_path).path
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o750
    assert (path / "events").stat().st_mode & 0o777 == 0o750
    assert (path / "function.ts").stat().st_mode & 0o777 == 0o640

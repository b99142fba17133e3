"""The project file: the effect of each key, and its error messages."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.config import ResponseMode, Start, Strategy
from lambda_deno_spawn.dev.project.project import Arch, load_project
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.project.project import Project

    Load = Callable[[str], Project]

DOCUMENTATION = Path(__file__).parents[4] / "docs" / "project.md"
ROLE = "arn:aws:iam::123456789012:role/service/orders"
LAYER = "arn:aws:lambda:eu-central-1:123456789012:layer:deno:3"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that writes a project file and loads the project."""
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "function.ts").touch()
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> Project:
        Path("orders/lambda.toml").write_text(text, encoding="utf-8")
        return load_project(Path("orders"))

    return load


def refusal(load: Load, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(text)
    return str(caught.value)


def known_keys(load: Load) -> list[str]:
    """Return all keys, as listed in the error about an unknown one."""
    return refusal(load, "zzz = 1").partition("keys are ")[2].split(", ")


def test_folders_whose_names_lambda_does_not_accept_are_different_functions(
    tmp_path: Path,
) -> None:
    """Both were called function, so the second one replaced the first in AWS."""

    def name_of(folder: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "index.js").touch()
        return load_project(tmp_path / folder).name

    names = [name_of(folder) for folder in ("注文", "支払い", "注文-1", "支払い-1")]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"(?:function|1)-[0-9a-f]{8}", name) for name in names)
    assert name_of("Pröjekt") == "Pr-jekt"
    assert name_of("2026") == "2026"
    assert name_of("カ\u3099") == name_of("ガ")  # as macOS may write it
    long = [name_of(f"{'orders-' * 10}{end}") for end in "ab"]
    assert {len(name) for name in long} == {64}
    assert len(set(long)) == 2


def test_function_without_a_project_file_has_a_name_and_defaults(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my function!"
    folder.mkdir()
    (folder / "index.js").touch()
    project = load_project(folder)
    assert project.name == "my-function"
    assert project.function.handler == "index.handler"
    assert project.variables == {}


def test_empty_project_file_says_nothing(load: Load) -> None:
    project = load("")
    assert (project.name, project.arch.value) == ("orders", "x86_64")
    assert (project.runtime, project.bundle) == ("python3.13", None)
    assert project.function.handler == "function.handler"
    assert project.function.task_root == Path("orders").resolve()
    silent = (
        project.memory_mb, project.timeout_s, project.storage_mb, project.strategy,
        project.start, project.permissions, project.response_mode,
        project.description, project.role,
    )  # fmt: skip
    assert silent == (None,) * 9
    assert (project.layers, project.include, project.exclude) == ((), (), ())
    assert (project.env, project.tags, project.variables) == ({}, {}, {})


@pytest.mark.parametrize(
    ("line", "attribute", "expected"),
    [
        ('name = "Orders_2-b"', "name", "Orders_2-b"),
        (f'name = "{"n" * 64}"', "name", "n" * 64),
        ('arch = "x86_64"', "arch", Arch.X86_64),
        ('arch = "arm64"', "arch", Arch.ARM64),
        ('runtime = "python3.12"', "runtime", "python3.12"),
        ('runtime = "python3.14"', "runtime", "python3.14"),
        ('runtime = "provided.al2023"', "runtime", "provided.al2023"),
        ("memory = 128", "memory_mb", 128),
        ("memory = 10_240", "memory_mb", 10_240),
        ("timeout = 1", "timeout_s", 1),
        ("timeout = 900", "timeout_s", 900),
        ("storage = 512", "storage_mb", 512),
        ("storage = 10240", "storage_mb", 10_240),
        ('strategy = "fresh"', "strategy", Strategy.FRESH),
        ('start = "exec"', "start", Start.EXEC),
        ('start = "auto"', "start", Start.AUTO),
        ('permissions = "none"', "permissions", "none"),
        ('response_mode = "stream"', "response_mode", ResponseMode.STREAM),
        ('response_mode = "buffered"', "response_mode", ResponseMode.BUFFERED),
        ('description = ""', "description", ""),
        (f'description = "{"ä" * 256}"', "description", "ä" * 256),
        ('description = """two\nlines"""', "description", "two\nlines"),
        (f'role = "{ROLE}"', "role", ROLE),
        ('role = "arn:aws-cn:iam::123456789012:role/a"', "role",
         "arn:aws-cn:iam::123456789012:role/a"),
        ("layers = []", "layers", ()),
        (f'layers = ["{LAYER}"]', "layers", (LAYER,)),
        ("bundle = false", "bundle", False),
        ("bundle = true", "bundle", True),
        ('include = ["a/*.txt", ".env"]', "include", ("a/*.txt", ".env")),
        ('exclude = ["drafts/", "..."]', "exclude", ("drafts/", "...")),
        ('[env]\nAB = "x"\nCD = 3', "env", {"AB": "x", "CD": "3"}),
        ("[env]\nAB = true\nCD = false", "env", {"AB": "true", "CD": "false"}),
        ("[env]\nAB = 1.5\nCD = ''", "env", {"AB": "1.5", "CD": ""}),
        ('[tags]\n"cost centre" = 42', "tags", {"cost centre": "42"}),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)  # fmt: skip
def test_key_has_its_value(
    load: Load, line: str, attribute: str, expected: object
) -> None:
    assert getattr(load(line), attribute) == expected


NAME = "expected 1 to 64 letters, digits, - and _"
MEMORY = "expected a whole number of MB from 128 to 10240"
TIMEOUT = "expected a whole number of seconds from 1 to 900"
STORAGE = "expected a whole number of MB from 512 to 10240"
LAYERS = "expected a list of ARNs of layer versions"
PATTERNS = "expected a list of patterns below the project's folder"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('name = "a b"', f"name is 'a b'; {NAME}"),
        ('name = ""', f"name is ''; {NAME}"),
        ('name = "a\\n"', f"name is 'a\\n'; {NAME}"),
        (f'name = "{"n" * 65}"', f"name is '{'n' * 65}'; {NAME}"),
        ("name = 1", f"name is 1; {NAME}"),
        ("handler = 1", "handler is 1; expected file.export, such as src/api.handler"),
        ('arch = "arm"', "arch is 'arm'; expected one of x86_64, arm64"),
        ('arch = ["arm64"]', "arch is ['arm64']; expected one of x86_64, arm64"),
        ('runtime = "nodejs22.x"', "runtime is 'nodejs22.x'; expected one of "
         "python3.12, python3.13, python3.14, provided.al2023"),
        ("memory = 127", f"memory is 127; {MEMORY}"),
        ("memory = 10241", f"memory is 10241; {MEMORY}"),
        ("memory = 512.0", f"memory is 512.0; {MEMORY}"),
        ("memory = true", f"memory is True; {MEMORY}"),
        ('memory = "512"', f"memory is '512'; {MEMORY}"),
        ("timeout = 0", f"timeout is 0; {TIMEOUT}"),
        ("timeout = 901", f"timeout is 901; {TIMEOUT}"),
        ("storage = 511", f"storage is 511; {STORAGE}"),
        ("storage = 10241", f"storage is 10241; {STORAGE}"),
        ('start = "copy"', "start is 'copy'; expected one of auto, fork, exec"),
        ('strategy = "warm"', "strategy is 'warm'; expected one of "
         + ", ".join(Strategy)),
        ("permissions = true", "permissions is True; expected text"),
        ('response_mode = "Stream"',
         "response_mode is 'Stream'; expected one of buffered, stream"),
        ("description = 1", "description is 1; expected at most 256 characters"),
        (f'description = "{"d" * 257}"',
         f"description is '{'d' * 257}'; expected at most 256 characters"),
        ('role = "orders"', "role is 'orders'; expected the ARN of a role"),
        ('layers = "deno"', f"layers is 'deno'; {LAYERS}"),
        ('layers = ["deno"]', f"layers is ['deno']; {LAYERS}"),
        (f"layers = {[LAYER] * 6}", f"layers is {[LAYER] * 6}; expected at most 5"),
        ('bundle = "no"', "bundle is 'no'; expected true or false"),
        ('include = "a"', f"include is 'a'; {PATTERNS}"),
        (
            'include = ["!"]',
            f"include is ['!']; {PATTERNS}: '!' is not a pattern of a .gitignore",
        ),
        ('include = [""]', f"include is ['']; {PATTERNS}"),
        ('exclude = [".."]', f"exclude is ['..']; {PATTERNS}"),
        ('exclude = ["a/../../b"]', f"exclude is ['a/../../b']; {PATTERNS}"),
        ("exclude = [1]", f"exclude is [1]; {PATTERNS}"),
        ("env = 1", "env is 1; expected a table: [env] and lines NAME = value"),
        ("[env]\nAB.CD = 1",
         "env.AB: the member 'CD' is unknown; it has from, key, name"),
        ("[env]\nA = 1", "env.A: Lambda does not accept the name 'A'; use two or "
         "more letters, digits and underscores, a letter first"),
        ("[env]\nAWS_REGION = 'x'", "env.AWS_REGION: Lambda reserves AWS_REGION; "
         "choose another name, or set it in this shell's environment if it is a "
         "credential or a region"),
        ('[env]\nAB = "\\u0000"',
         "env.AB: its value contains a NUL character; remove it"),
        ("tags = []", "tags is []; expected a table: [tags] and lines NAME = value"),
        ("[tags]\nteam = ['a']",
         "tags.team is ['a']; expected text, a number, true or false"),
    ],
    ids=lambda value: value[:24],
)  # fmt: skip
def test_invalid_value_is_refused_with_the_expected_one(
    load: Load, line: str, problem: str
) -> None:
    assert refusal(load, line) == f"Cannot use 'orders/lambda.toml': {problem}"


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ('permissions = "--alow-net"', "LAMBDA_DENO_PERMISSIONS"),
        ("[env]\nLAMBDA_DENO_WARM = 'cold'", "LAMBDA_DENO_WARM"),
        ("[env]\nAWS_LAMBDA_LOG_LEVEL = 'loud'", "AWS_LAMBDA_LOG_LEVEL"),
    ],
)
def test_setting_is_checked_by_the_runtime_itself(
    load: Load, line: str, variable: str
) -> None:
    message = refusal(load, line)
    assert message.startswith("Cannot use 'orders/lambda.toml': ")
    assert f"Cannot use {variable}: its value is " in message


def test_mistyped_key_is_refused_with_the_one_that_was_meant(load: Load) -> None:
    message = refusal(load, 'name = "a"\nmemroy = 512')
    start = (
        "Cannot use 'orders/lambda.toml': the key 'memroy' is unknown; did you mean "
    )
    assert message.startswith(f"{start}memory? The keys are alias, ")


def test_unknown_key_is_refused_with_all_keys(load: Load) -> None:
    assert "the key 'zzz' is unknown; the keys are alias, " in refusal(load, "zzz = 1")
    assert known_keys(load) == sorted(known_keys(load))
    assert {"name", "handler", "env", "tags"} <= set(known_keys(load))


@pytest.mark.parametrize("content", [b"name", b'name = "a', b'name = "\xff"'])
def test_file_that_is_not_toml_is_refused(load: Load, content: bytes) -> None:
    load("")
    Path("orders/lambda.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"^Cannot read 'orders/lambda\.toml': "):
        load_project(Path("orders"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_file_that_may_not_be_read_is_refused(load: Load) -> None:
    load("")
    Path("orders/lambda.toml").chmod(0)
    with pytest.raises(UsageError, match=r"Cannot read 'orders/lambda\.toml': "):
        load_project(Path("orders"))


def test_handler_of_the_file_counts_for_the_folder(load: Load) -> None:
    assert load('handler = "src/api.list"').function.handler == "src/api.list"


def test_handler_of_the_caller_overrides_that_of_the_file(load: Load) -> None:
    load('handler = "src/api.list"')
    project = load_project(Path("orders"), "function.other")
    assert project.function.handler == "function.other"


def test_file_that_was_named_is_the_handler_whatever_the_project_file_says(
    load: Load,
) -> None:
    """The key ``handler`` was rejected if the function was given as a file."""
    load('name = "shop"\nhandler = "src/api.list"')
    project = load_project(Path("orders/function.ts"))
    assert (project.name, project.function.handler) == ("shop", "function.handler")


def test_path_that_is_not_there_is_refused(load: Load) -> None:
    load("")
    with pytest.raises(UsageError, match=r"^Cannot find function 'nowhere'"):
        load_project(Path("nowhere"))
    with pytest.raises(UsageError, match=r"^Cannot find function 'orders/no\.ts'"):
        load_project(Path("orders/no.ts"))


def test_settings_are_variables_and_env_overrides_them(load: Load) -> None:
    keys = 'strategy="fresh"\nstart="auto"\npermissions="none"\n'
    keys += "response_mode='stream'\n[env]\nLAMBDA_DENO_PERMISSIONS = 'all'\n"
    project = load(f"{keys}TABLE = 'orders'")
    assert project.variables == {
        "LAMBDA_DENO_STRATEGY": "fresh",
        "LAMBDA_DENO_START": "auto",
        "LAMBDA_DENO_PERMISSIONS": "all",
        "LAMBDA_DENO_RESPONSE_MODE": "stream",
        "TABLE": "orders",
    }
    assert all(type(value) is str for value in project.variables.values())


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"),
     ("arm64", "arm64")],
)  # fmt: skip
def test_machine_s_instruction_set_is_spelled_as_lambda_does(
    monkeypatch: pytest.MonkeyPatch, machine: str, arch: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert Arch.here().value == arch


def test_example_of_the_documentation_has_every_key_and_can_be_used(
    load: Load,
) -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    project = load(example)
    assert (project.name, project.memory_mb) == ("orders-api", 1024)
    assert project.env == {"TABLE": "orders", "RETRIES": "3", "DRY_RUN": "false"}
    # AWS refuses them with others.
    excluded = {"tenancy", "managed_instances", "image"}
    assert {*known_keys(load)} == {*tomllib.loads(example), *excluded}


def test_documentation_describes_every_key_and_no_other(load: Load) -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    section = text.partition("## Keys")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `\[{0,2}(\w+)\]{0,2}` \|", section, re.MULTILINE)
    assert sorted(described) == known_keys(load)

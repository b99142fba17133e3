"""The command line that starts Deno, decided before a process exists."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from lambda_deno_spawn.errors import ConfigError, HandlerError
from lambda_deno_spawn.launch.command import (
    DenoCommand,
    deno_command,
    shown_command,
    shown_variables,
)
from lambda_deno_spawn.launch.deno_json import find_config, searched_above
from lambda_deno_spawn.launch.module_cache import GivenCache
from lambda_deno_spawn.permissions import STEERING
from tests.unit.launch.function import HOSTS, Function

pytestmark = pytest.mark.as_lambda

DENIED = [f"{host}:9001" for host in [*HOSTS, "192.0.2.7"]]
DENY = f"--deny-net={','.join(DENIED)}"


def test_the_whole_default_command_line(function: Function) -> None:
    command = function.command(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512")
    assert command.argv("/tmp/private") == [
        str(function.binary),
        "run",
        "--quiet",
        "--no-prompt",
        "--unstable-detect-cjs",
        "--unstable-sloppy-imports",
        "--no-config",
        "--v8-flags=--max-old-space-size=366,--min-semi-space-size=8",
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        "--deny-sys=setPriority",
        DENY,
        f"--ignore-env={','.join(STEERING)}",
        "--deny-read=/mnt",
        "--ignore-read",
        f"--allow-read={function.task_root},/tmp/private,{searched(function)}",
        "--allow-write=/tmp/private",
        str(function.state_dir / "entry.mjs"),
    ]
    assert command.cwd == str(function.task_root)


def searched(function: Function) -> str:
    """Return the folders above the task root that ``require`` asks for packages."""
    return ",".join(searched_above(function.task_root)[0])


def test_layers_are_readable_where_there_are_any(function: Function) -> None:
    function.layers.mkdir()
    argv = function.command().argv("/p")
    paths = f"{function.task_root},{function.layers},/p,{searched(function)}"
    assert f"--allow-read={paths}" in argv


def permission_flags(command: DenoCommand) -> list[str]:
    return command.argv("/p")[1 + len(command.arguments) : -1]


CONFIGS = [
    ("deno.json", '{"permissions":{"default":{"net":true}}}', True),
    ("deno.json", '{"permissions":{"strict":{"net":true}}}', False),
    ("deno.json", '{"permissions":[]}', False),
    ("deno.json", '{"imports":{}}', False),
    ("deno.json", "[]", False),
    ("deno.jsonc", '{"permissions":{"default":{}}}', True),
    ("deno.jsonc", '{// why\n"permissions":{"default":{}},}', True),
    ("deno.json", '{/* why */"permissions":{"default":{}}}', True),
    ("deno.jsonc", '{// why\n"imports":{},}', False),
]


@pytest.mark.parametrize(
    ("name", "text", "is_used"),
    [pytest.param(*case, id=f"{case[0]}: {case[1]!r}") for case in CONFIGS],
)
def test_default_permissions_of_deno_json_are_used(
    function: Function, name: str, text: str, is_used: bool
) -> None:
    function.write(name, text)
    command = function.command()
    assert command.arguments[5:7] == ("--config", str(function.task_root / name))
    if is_used:
        hidden = f"--deny-read={function.task_root},/mnt"
        assert permission_flags(command) == ["-P", DENY, hidden, "--ignore-read"]
    else:
        assert permission_flags(command)[:5] == [
            "--allow-net", "--allow-env", "--allow-sys", "--deny-sys=setPriority",
            DENY,
        ]  # fmt: skip


def test_deno_json_comes_before_deno_jsonc(function: Function) -> None:
    assert find_config(function.task_root) is None
    jsonc = function.write("deno.jsonc", "{}")
    assert find_config(function.task_root) == str(jsonc)
    json_ = function.write("deno.json", "{}")
    assert find_config(function.task_root) == str(json_)


def test_node_modules_are_used_as_they_are_where_no_config_says_more(
    function: Function,
) -> None:
    (function.task_root / "node_modules").mkdir()
    arguments: tuple[str, ...] = (
        "run",
        "--quiet",
        "--no-prompt",
        "--unstable-detect-cjs",
        "--unstable-sloppy-imports",
        "--no-config",
    )
    v8 = f"--v8-flags={space(16)}"
    assert function.command().arguments == (
        *arguments, "--node-modules-dir=manual", v8,
    )  # fmt: skip
    config = str(function.write("deno.json", "{}"))
    arguments = arguments[:5]
    assert function.command().arguments == (
        *arguments, "--config", config, "--no-lock", v8,
    )  # fmt: skip
    function.write("deno.lock", "{}")
    assert function.command().arguments == (
        *arguments, "--config", config, "--frozen", v8,
    )  # fmt: skip


def heap(size_mb: int) -> str:
    return f"--max-old-space-size={size_mb}"


def space(size_mb: int) -> str:
    return f"--min-semi-space-size={size_mb}"


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        pytest.param({}, "--min-semi-space-size=16", id="no-memory-size"),
        pytest.param({"MEMORY": "63"}, f"{heap(32)},{space(1)}", id="tiny"),
        pytest.param({"MEMORY": "128"}, f"{heap(32)},{space(2)}", id="smallest"),
        pytest.param({"MEMORY": "161"}, f"{heap(32)},{space(2)}", id="minimum"),
        pytest.param({"MEMORY": "162"}, f"{heap(33)},{space(2)}", id="above-minimum"),
        pytest.param(
            {"MEMORY": "1024"}, f"{heap(852)},{space(16)}", id="largest-space"
        ),
        pytest.param({"MEMORY": "10240"}, f"{heap(9608)},{space(16)}", id="largest"),
        pytest.param(
            {"MEMORY": "512", "V8": "--expose-gc,--stack-size=900"},
            f"--expose-gc,--stack-size=900,{heap(366)},{space(8)}",
            id="with-other-flags",
        ),
        pytest.param(
            {"MEMORY": "512", "V8": "--max-old-space-size=64"},
            f"--max-old-space-size=64,{space(8)}",
            id="own-limit",
        ),
        pytest.param(
            {"MEMORY": "512", "V8": "--max_old_space_size=64"},
            f"--max_old_space_size=64,{space(8)}",
            id="own-limit-with-underscores",
        ),
        pytest.param(
            {"MEMORY": "512", "V8": "--max-heap-size=64"},
            f"--max-heap-size=64,{space(8)}",
            id="own-limit-of-the-whole-heap",
        ),
        pytest.param(
            {"MEMORY": "512", "V8": "--max-semi-space-size=4"},
            f"--max-semi-space-size=4,{heap(366)}",
            id="own-limit-of-the-space",
        ),
        pytest.param(
            {"MEMORY": "512", "V8": "--min_semi_space_size=1"},
            f"--min_semi_space_size=1,{heap(366)}",
            id="own-space",
        ),
    ],
)
def test_v8_s_memory_follows_from_the_memory_size_unless_it_is_given(
    function: Function, variables: dict[str, str], flags: str
) -> None:
    """V8 takes the last limit it is given: ours came after ``--max_old_space_size``."""
    names = {"MEMORY": "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "V8": "LAMBDA_DENO_V8_FLAGS"}
    command = function.command(
        {}, **{names[key]: text for key, text in variables.items()}
    )
    [argument] = [a for a in command.arguments if a.startswith("--v8")]
    assert argument == f"--v8-flags={flags}"


def test_a_task_root_that_is_no_folder_is_refused(function: Function) -> None:
    missing = str(function.task_root / "missing")
    with pytest.raises(ConfigError, match="expected an existing folder") as caught:
        function.command(LAMBDA_TASK_ROOT=missing)
    assert (caught.value.variable, caught.value.value) == ("LAMBDA_TASK_ROOT", missing)


@pytest.mark.parametrize("variable", ["LAMBDA_TASK_ROOT", "TMPDIR"])
def test_a_comma_in_a_folder_is_refused(
    function: Function, tmp_path: Path, variable: str
) -> None:
    """It would split a permission flag: one half of it names another folder."""
    folder = tmp_path / "a,b"
    folder.mkdir()
    state_dir = folder / "state" if variable == "TMPDIR" else function.state_dir
    settings = function.settings(**{variable: str(folder)})
    with pytest.raises(ConfigError, match="expected no comma in it") as caught:
        deno_command(settings, {}, str(state_dir))
    assert (caught.value.variable, caught.value.value) == (variable, str(folder))


def test_a_handler_without_file_stops_the_command(function: Function) -> None:
    with pytest.raises(HandlerError):
        function.command(_HANDLER="missing.handler")
    assert not (function.state_dir / "entry.mjs").exists()


def test_a_bundle_needs_no_guesses_about_suffixes(function: Function) -> None:
    function.write("function.bundle.js")
    assert "--unstable-sloppy-imports" not in function.command().arguments


def test_tsconfig_json_becomes_a_configuration_beside_the_entry_module(
    function: Function,
) -> None:
    function.write("package.json", "{}")
    assert list(function.command().files) == ["entry.mjs"]
    function.write("tsconfig.json", '{"compilerOptions": {"jsx": "react-jsx"}}')
    command = function.command()
    at = command.arguments.index("--config") + 1
    assert command.arguments[at] == str(function.state_dir / "deno.json")
    assert command.files["deno.json"] == '{"compilerOptions": {"jsx": "react-jsx"}}'


def test_node_options_load_modules_first_set_v8_flags_and_are_told_otherwise(
    function: Function,
) -> None:
    options = "--import=./a.mjs -r /opt/b.cjs --max-old-space-size=99 --inspect"
    command = function.command({"NODE_OPTIONS": options})
    root = function.task_root
    assert (
        'async () => { await import("node:module").then((module) => '
        f'module.createRequire("file://{root}/index.js")("/opt/b.cjs")); '
        f'await import("file://{root}/a.mjs"); '
        f'return await import("file://{root}/function.ts"); }}'
    ) in command.entry_text
    [v8] = [flag for flag in command.arguments if flag.startswith("--v8")]
    assert "--max-old-space-size=99" in v8
    assert command.notes == ("NODE_OPTIONS: --inspect has no effect in Deno",)
    withheld = function.command({"NODE_OPTIONS": options}, LAMBDA_DENO_ENV="TABLE")
    assert withheld.notes == ()


def test_packages_of_layers_and_of_node_path_are_found_last(
    function: Function,
) -> None:
    for inner in ("", "node9", "node22", "nodex"):
        (function.layers / "nodejs" / inner / "node_modules").mkdir(parents=True)
    command = function.command({"NODE_PATH": "/mnt/a:/mnt/b:"})
    nodejs = function.layers / "nodejs"
    assert command.facts["packageFolders"] == [
        "/mnt/a",
        "/mnt/b",
        str(nodejs / "node22" / "node_modules"),
        str(nodejs / "node9" / "node_modules"),
        str(nodejs / "node_modules"),
    ]


# What is shown of all this.


def test_the_command_line_is_shown_as_a_shell_takes_it(function: Function) -> None:
    odd = '/x$"z`\\'
    command = function.command(LAMBDA_DENO_PERMISSIONS=f"default --allow-read='{odd}'")
    words = shlex.split(shown_command(command))
    assert words == command.argv("$TMPDIR")
    assert shown_command(command).endswith("entry.mjs")
    assert '--allow-write="$TMPDIR" ' in shown_command(command)


def test_variables_are_shown_by_name_only(function: Function) -> None:
    environ = {"TABLE": "hush", "AWS_LAMBDA_RUNTIME_API": "hush", "SECRET": "hush"}
    command = function.command(environ, LAMBDA_DENO_ENV="TABLE")
    shown = shown_variables(environ, command)
    assert shown == (
        "variables: DENO_DIR, DENO_DISABLE_NODE_SHIM, DENO_NO_UPDATE_CHECK, HOME, "
        "NO_COLOR, TABLE, TMPDIR; "
        "withheld from it: AWS_LAMBDA_RUNTIME_API, SECRET"
    )
    nothing = shown_variables({}, function.command())
    assert nothing.endswith("withheld from it: none")


@pytest.mark.parametrize(
    ("variables", "config", "sources"),
    [
        ({}, False, "the runtime's defaults"),
        ({"PERMISSIONS": "-R"}, False, "LAMBDA_DENO_PERMISSIONS='-R'"),
        ({"V8_FLAGS": "--a,--b", "PERMISSIONS": "-R"}, True,
         "LAMBDA_DENO_PERMISSIONS='-R' and LAMBDA_DENO_V8_FLAGS='--a --b' and {}"),
    ],
    ids=["none", "one", "all"],
)  # fmt: skip
def test_a_refusal_of_deno_s_can_be_traced_to_settings(
    function: Function, variables: dict[str, str], config: bool, sources: str
) -> None:
    path = function.write("deno.json", "{}") if config else None
    given = {f"LAMBDA_DENO_{name}": value for name, value in variables.items()}
    assert function.command({}, **given).sources == sources.format(path)


def test_a_cache_to_begin_with_is_the_named_one_or_the_packaged(
    function: Function,
) -> None:
    def given(**variables: str) -> GivenCache | None:
        return function.command({"DENO_DIR": "/elsewhere"}, **variables).given_cache

    assert given() is None
    packaged = function.task_root / ".deno_dir"
    packaged.mkdir()
    task_root = str(function.task_root)
    assert given() == GivenCache(str(packaged), is_packaged=True, task_root=task_root)
    named = GivenCache(f"{task_root}/not/there/yet", task_root=task_root)
    assert given(DENO_DIR=named.path) == named
    assert given(DENO_DIR="not/there/yet") == named


def test_a_cache_that_cannot_be_written_to_is_closed(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _path, mode: mode != os.W_OK)
    packaged = function.task_root / ".deno_dir"
    packaged.mkdir()
    found = function.command().given_cache
    assert found == GivenCache(str(packaged), True, True, str(function.task_root))


def test_the_process_is_told_the_variables_that_deno_itself_obeys(
    function: Function,
) -> None:
    """Not those that it may not read, or that are withheld from it."""
    environ = {"HTTPS_PROXY": "http://proxy:3128", "TABLE": "t"}
    facts = function.command(environ).facts
    assert facts["variables"] == {"HTTPS_PROXY": "http://proxy:3128"}
    names = facts["steering"]
    assert isinstance(names, str)
    assert {"HTTPS_PROXY", "HTTP_PROXY"} < set(names.split(","))
    assert "TABLE" not in names.split(",")
    withheld = function.command(environ, LAMBDA_DENO_ENV="TABLE").facts
    assert withheld["variables"] == {}
    assert withheld["steering"] == names
    nothing = function.command(environ, LAMBDA_DENO_PERMISSIONS="--allow-net").facts
    assert (nothing["steering"], nothing["variables"]) == ("", {})


# What the process is told.


def test_the_facts_are_the_static_part_of_the_context(function: Function) -> None:
    command = function.command(
        AWS_LAMBDA_FUNCTION_NAME="hello",
        AWS_LAMBDA_FUNCTION_VERSION="$LATEST",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512",
        AWS_LAMBDA_LOG_GROUP_NAME="/aws/lambda/hello",
        AWS_LAMBDA_LOG_STREAM_NAME="stream",
        AWS_LAMBDA_LOG_FORMAT="JSON",
        AWS_LAMBDA_LOG_LEVEL="WARN",
    )
    assert command.facts == {
        "export": "handler",
        "module": str(function.task_root / "function.ts"),
        "partBytes": 0,
        "invocations": 1,
        "closeMs": 70,
        "lastWordsMs": 1400,
        "console": "log",
        "socket": None,
        "input": None,
        "template": False,
        "places": None,
        "concurrency": 1,
        "resultLimitBytes": 6_291_556,
        "responseMode": "buffered",
        "logFormat": "json",
        "logLevel": "WARN",
        "permissions": {
            "base": "default",
            "set": None,
            "denies": [],
            "runtimeApi": DENIED,
            "everything": False,
            "hidden": True,
            "taskRoot": str(function.task_root),
            "credentialsWithheld": False,
        },
        "steering": ",".join(STEERING),
        "variables": {},
        "packageFolders": [],
        "closedFolders": [],
        "context": {
            "functionName": "hello",
            "functionVersion": "$LATEST",
            "memoryLimitInMB": "512",
            "logGroupName": "/aws/lambda/hello",
            "logStreamName": "stream",
        },
    }


def test_an_unknown_memory_size_is_empty_in_the_context(function: Function) -> None:
    context = function.command().facts["context"]
    assert isinstance(context, dict)
    assert context["memoryLimitInMB"] == ""


@pytest.mark.parametrize(
    ("permissions", "part_bytes"), [("", 0), ("--allow-run=ls", 4096)], ids=repr
)
def test_a_worker_writes_in_parts_if_other_programs_may_write_too(
    function: Function, permissions: str, part_bytes: int
) -> None:
    command = function.command(LAMBDA_DENO_PERMISSIONS=permissions)
    assert command.facts["partBytes"] == part_bytes


@pytest.mark.parametrize(
    ("permissions", "may_have_it"),
    [
        ("", True),
        ("default --allow-read", True),
        ("none", True),
        ("--allow-write=$TMPDIR --deny-write=$TMPDIR/none", True),
        ("all", False),
        ("default --allow-write", False),
        ("default --allow-write=/tmp", False),
        ("default --allow-write=$TMPDIR/..", False),
        ("default --allow-run=ls", False),
        ("default --allow-ffi", False),
    ],
)
def test_a_link_leads_to_folders_only_where_no_handler_can_change_it_or_runs_programs(
    function: Function, permissions: str, may_have_it: bool
) -> None:
    command = function.command(LAMBDA_DENO_PERMISSIONS=permissions)
    assert command.may_have_alias is may_have_it

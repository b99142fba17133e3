"""How Deno is started: everything that is decided before a process exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.errors import ConfigError, HandlerError
from lambda_deno_spawn.launch import binary, command
from lambda_deno_spawn.launch.addresses import local_addresses, runtime_api_spellings
from lambda_deno_spawn.launch.binary import find_binary
from lambda_deno_spawn.launch.command import (
    DenoCommand,
    deno_command,
    shown_command,
    shown_variables,
)
from lambda_deno_spawn.launch.deno_json import find_config
from lambda_deno_spawn.launch.entry import RUNTIME_JS, entry_source
from lambda_deno_spawn.launch.handler import Handler, find_handler
from lambda_deno_spawn.launch.module_cache import GivenCache
from lambda_deno_spawn.launch.variables import withheld_credentials
from lambda_deno_spawn.permissions import STEERING

RUNTIME_API = "127.0.0.1:9001"
HOSTS = ["127.0.0.1", "localhost", "127.0.0.0/8", "0.0.0.0", "[::1]", "[::]"]
DENIED = [f"{host}:9001" for host in [*HOSTS, "192.0.2.7"]]
DENY = f"--deny-net={','.join(DENIED)}"


class Function:
    """A task root, a state folder and a binary under ``tmp_path``."""

    def __init__(self, root: Path) -> None:
        self.task_root = root / "task"
        self.state_dir = root / "state"
        self.layers = root / "layers"
        self.binary = root / "bin" / "deno"
        for folder in (self.task_root, self.state_dir):
            folder.mkdir()
        write_program(self.binary)
        self.write("function.ts")

    def write(self, name: str, text: str = "") -> Path:
        path = self.task_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def settings(self, **variables: str) -> Settings:
        environ = {
            "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
            "_HANDLER": "function.handler",
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "LAMBDA_DENO_BIN": str(self.binary),
            **variables,
        }
        return Settings.from_environ(environ, "/")

    def command(
        self, environ: dict[str, str] | None = None, **variables: str
    ) -> DenoCommand:
        settings = self.settings(**variables)
        return deno_command(settings, environ or {}, str(self.state_dir))


def write_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Function:
    # Places that a machine has or has not, so they belong to its environment.
    function = Function(tmp_path)
    monkeypatch.setattr(command, "LAYERS_ROOT", str(function.layers))
    monkeypatch.setattr(binary, "LAYER_BINARY", str(function.layers / "bin/deno"))
    monkeypatch.setattr(command, "local_addresses", lambda: ["192.0.2.7"])
    return function


# The handler's file.

FOUND = [
    ("function.ts", "function.handler", "handler"),
    ("function.mjs", "function.handler", "handler"),
    ("index.js", "index.default", "default"),
    ("src/api/users.ts", "src/api/users.handler", "handler"),
    ("src/api/users.ts", "./src/api/users.handler", "handler"),
    ("a.b.c.ts", "a.b.c.handler", "handler"),
    ("a.b.ts", "a.b.c.handler", "c.handler"),
    ("api.ts", "api.users.get", "users.get"),
    ("v1.2/api.ts", "v1.2/api.get", "get"),
    ("with space/übung.ts", "with space/übung.handler", "handler"),
    ("tsx.tsx", "tsx.handler", "handler"),
]


@pytest.mark.parametrize(
    ("file", "handler", "export"),
    [pytest.param(*case, id=f"{case[1]} in {case[0]}") for case in FOUND],
)
def test_a_handler_s_file_and_export_are_found(
    tmp_path: Path, file: str, handler: str, export: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert find_handler(tmp_path, handler) == Handler(str(path), export)


def test_suffixes_are_tried_in_order(tmp_path: Path) -> None:
    names = ["f.bundle.js", "f.js", "f.mjs", "f.cjs", "f.ts", "f.tsx"]
    for name in names:
        (tmp_path / name).touch()
    for name in names:
        assert find_handler(tmp_path, "f.handler").path == str(tmp_path / name)
        (tmp_path / name).unlink()


def test_the_longest_file_name_wins(tmp_path: Path) -> None:
    (tmp_path / "a.js").touch()
    (tmp_path / "a.b.tsx").touch()
    assert find_handler(tmp_path, "a.b.c") == Handler(str(tmp_path / "a.b.tsx"), "c")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "f.js").mkdir()
    (tmp_path / "f.ts").touch()
    assert find_handler(tmp_path, "f.handler").path == str(tmp_path / "f.ts")


@pytest.mark.parametrize(
    "handler",
    [
        "",
        "function",
        "function.",
        ".handler",
        "function..handler",
        "src/function",
        "src/.handler",
        "src/",
        "src//function.handler",
        "/function.handler",
        "/var/task/function.handler",
        "../function.handler",
        "src/../../function.handler",
    ],
    ids=repr,
)
def test_a_malformed_handler_is_refused(tmp_path: Path, handler: str) -> None:
    (tmp_path / "function.js").touch()
    with pytest.raises(HandlerError) as caught:
        find_handler(tmp_path, handler)
    assert caught.value.error_type == "Runtime.MalformedHandlerName"
    assert str(caught.value) == (
        f"Cannot use handler {handler!r}: expected file.export, "
        "such as function.handler or src/api.handler"
    )


def test_a_handler_without_file_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(HandlerError) as caught:
        find_handler(tmp_path, "src/api.handler")
    assert caught.value.error_type == "Runtime.ImportModuleError"
    assert str(caught.value) == (
        "Cannot find the file of handler 'src/api.handler': none of src/api.bundle.js, "
        "src/api.js, src/api.mjs, src/api.cjs, src/api.ts, src/api.tsx "
        f"exists in {str(tmp_path)!r}"
    )


def test_a_name_that_the_file_system_refuses_is_no_file(tmp_path: Path) -> None:
    """``Path.is_file`` raised, and the runtime ended without an init error."""
    with pytest.raises(HandlerError, match="Cannot find the file of handler"):
        find_handler(tmp_path, "f" * 300 + ".handler")


# The binary.


def test_the_binary_of_the_setting_comes_first(function: Function) -> None:
    write_program(function.layers / "bin/deno")
    assert find_binary(function.settings(), "") == str(function.binary)


@pytest.mark.parametrize("kind", ["missing", "folder", "not-executable"])
def test_a_binary_that_cannot_be_executed_is_refused(
    function: Function, kind: str
) -> None:
    path = function.task_root / "deno"
    if kind == "folder":
        path.mkdir()
    elif kind == "not-executable":
        path.touch(mode=0o644)
    write_program(function.layers / "bin/deno")
    with pytest.raises(ConfigError) as caught:
        find_binary(function.settings(LAMBDA_DENO_BIN=str(path)), "")
    assert caught.value.variable == "LAMBDA_DENO_BIN"
    assert caught.value.value == str(path)
    assert caught.value.expected == "an executable file"


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the import of the PyPI package fail, as where it is not installed."""
    monkeypatch.setitem(sys.modules, "deno", None)


def test_layer_then_package_then_path_are_searched(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = function.settings(LAMBDA_DENO_BIN="")
    in_layer = write_program(function.layers / "bin/deno")
    packaged = ModuleType("deno")
    packaged.__dict__["find_deno_bin"] = lambda: "/site/deno"
    monkeypatch.setitem(sys.modules, "deno", packaged)
    path = str(function.binary.parent)
    assert find_binary(settings, path) == str(in_layer)
    in_layer.unlink()
    assert find_binary(settings, path) == "/site/deno"
    without_package(monkeypatch)
    assert find_binary(settings, path) == str(function.binary)


def test_a_package_without_its_binary_is_passed_over(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_deno_bin() -> str:
        raise FileNotFoundError

    packaged = ModuleType("deno")
    packaged.__dict__["find_deno_bin"] = find_deno_bin
    monkeypatch.setitem(sys.modules, "deno", packaged)
    settings = function.settings(LAMBDA_DENO_BIN="")
    path = str(function.binary.parent)
    assert find_binary(settings, path) == str(function.binary)


def test_the_first_executable_on_the_path_is_taken(
    function: Function, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch)
    monkeypatch.chdir(function.binary.parent)
    (tmp_path / "folder/deno").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/deno").touch(mode=0o644)
    folders = ["", str(tmp_path / "none"), str(tmp_path / "folder")]
    folders += [str(tmp_path / "plain"), str(function.binary.parent)]
    settings = function.settings(LAMBDA_DENO_BIN="")
    assert find_binary(settings, os.pathsep.join(folders)) == str(function.binary)


def test_no_binary_anywhere_says_where_it_may_be(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        find_binary(function.settings(LAMBDA_DENO_BIN=""), "")
    assert caught.value.variable == "LAMBDA_DENO_BIN"
    assert caught.value.value is None
    assert "attach the Deno layer" in caught.value.expected


# The entry module.


@pytest.mark.parametrize(
    "name",
    [
        "plain.ts",
        "with space.ts",
        "quotes'and\".ts",
        "back\\slash`${x}.ts",
        "übung-漢-😀.ts",
        "what?.ts",
        "half#way.ts",
        "100%.ts",
        "already%20encoded.ts",
        "a&b=c+d,e;f:g@h!i~j*k(l)m$n.ts",
        "[brackets]{braces}|^.ts",
        "line\u2028separator\nnewline.ts",
    ],
    ids=ascii,
)
def test_the_entry_imports_the_very_file_whatever_its_name(
    tmp_path: Path, name: str
) -> None:
    module = tmp_path / "some folder" / name
    source = entry_source(module, parts=())
    match = re.fullmatch(
        r'import \{ start \} from (".*?");\nstart\(\(\) => import\((".*")\)\);\n',
        source,
    )
    assert match is not None
    runtime_url, module_url = (json.loads(text) for text in match.groups())
    assert file_of(module_url) == str(module)
    assert file_of(runtime_url).endswith("/lambda_deno_spawn/js/runtime.js")
    assert Path(file_of(runtime_url)).is_file()


def test_the_runtime_s_javascript_is_ascii() -> None:
    """Text of other characters takes V8 two bytes for each, and a process 0.4 ms."""
    for path in Path(RUNTIME_JS).parent.glob("*.js"):
        assert path.read_bytes().isascii(), path.name


def file_of(url: str) -> str:
    assert url.isascii()
    # What a URL parser would drop, change or take for something else.
    assert not re.search(r'[\s"<>\\^`{|}#?]', url)
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("file", "")
    assert not re.search(r"%(?![0-9A-F]{2})", parts.path)
    return unquote(parts.path, errors="strict")


def test_the_entry_names_an_absolute_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"file://{tmp_path}/f.ts" in entry_source(Path("f.ts"))


def test_the_entry_is_to_be_in_the_state_folder(function: Function) -> None:
    command = function.command()
    assert command.entry == str(function.state_dir / "entry.mjs")
    expected = entry_source(function.task_root / "function.ts", parts=())
    assert command.entry_text == expected


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({}, []),
        ({"LAMBDA_DENO_MAX_INVOCATIONS": "1"}, []),
        ({"LAMBDA_DENO_MAX_INVOCATIONS": "2"}, ["closing.js"]),
        ({"LAMBDA_DENO_STRATEGY": "server"}, ["closing.js", "server.js"]),
    ],
)
def test_the_entry_names_no_file_that_is_not_needed(
    function: Function, variables: dict[str, str], parts: list[str]
) -> None:
    # Deno reads each of them when a process starts, also those that are never loaded.
    source = function.command(None, **variables).entry_text
    assert re.findall(r"/js/(\w+\.js)", source) == ["runtime.js", *parts]


# The command line.


def test_the_whole_default_command_line(function: Function) -> None:
    command = function.command(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512")
    assert command.argv("/tmp/private") == [
        str(function.binary),
        "run",
        "--quiet",
        "--no-prompt",
        "--unstable-detect-cjs",
        "--no-config",
        "--v8-flags=--max-old-space-size=366,--min-semi-space-size=8",
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        "--deny-sys=setPriority",
        DENY,
        f"--ignore-env={','.join(STEERING)}",
        f"--allow-read={function.task_root},/tmp/private",
        "--allow-write=/tmp/private",
        str(function.state_dir / "entry.mjs"),
    ]
    assert command.cwd == str(function.task_root)


def test_layers_are_readable_where_there_are_any(function: Function) -> None:
    function.layers.mkdir()
    argv = function.command().argv("/p")
    assert f"--allow-read={function.task_root},{function.layers},/p" in argv


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
    assert command.arguments[4:6] == ("--config", str(function.task_root / name))
    if is_used:
        assert permission_flags(command) == ["-P", DENY]
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
        "--no-config",
    )
    v8 = f"--v8-flags={space(16)}"
    assert function.command().arguments == (
        *arguments, "--node-modules-dir=manual", v8,
    )  # fmt: skip
    config = str(function.write("deno.json", "{}"))
    arguments = arguments[:4]
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


@pytest.mark.parametrize(
    ("runtime_api", "more"),
    [
        ("127.0.0.1:9001", []),
        ("localhost:9001", []),
        ("127.0.0.2:9001", ["127.0.0.2"]),
        ("[::1]:9001", []),
        ("0.0.0.0:9001", []),
        ("169.254.100.1:9001", ["169.254.100.1"]),
        ("[fd00::1]:9001", ["[fd00::1]"]),
        ("runtime.test:9001", ["runtime.test", "0.0.0.0/0"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_way_to_the_runtime_api_is_denied(
    runtime_api: str, more: list[str]
) -> None:
    local = ["192.0.2.2", "[fd00::2]"]
    found = runtime_api_spellings(runtime_api, local)
    assert sorted(found) == sorted(f"{h}:9001" for h in [*HOSTS, *local, *more])
    assert found[0] == runtime_api


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 169.254.100.1
        /32 host LOCAL
"""
IF_INET6 = """fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
20010db8000100100000000000000000 04 40 00 82     eth0
20010db8000100020003000400050006 04 40 00 82     eth0
20010db8001000000000000100000000 04 40 00 82     eth0
"""


def test_the_machine_s_own_addresses_are_read(tmp_path: Path) -> None:
    assert local_addresses(tmp_path) == []
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    assert local_addresses(tmp_path) == ["192.0.2.2", "169.254.100.1"]
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert local_addresses(tmp_path)[2:] == [
        "[fe80::fc:ff:fe00:1]", "[fd00::2]", "[2001:db8:1:10::]",
        "[2001:db8:1:2:3:4:5:6]", "[2001:db8:10::1:0:0]",
    ]  # fmt: skip


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


# The environment.


def test_the_runtime_s_own_variables_are_withheld(function: Function) -> None:
    environ = {
        "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
        "_X_AMZN_TRACE_ID": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        "_LAMBDA_TELEMETRY_LOG_FD": "62",
        "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET": "/tmp/s",
        "_LAMBDA_CONTROL_SOCKET": "15",
        "LAMBDA_DENO_WARM": "off",
        "LAMBDA_DENO_WRAM": "off",
        "_HANDLER": "function.handler",
        "AWS_SESSION_TOKEN": "token",
        "AWS_LAMBDA_METADATA_TOKEN": "m",
        "TABLE": "t",
    }
    assert function.command(environ).environ == {
        "_HANDLER": "function.handler",
        "AWS_SESSION_TOKEN": "token",
        "AWS_LAMBDA_METADATA_TOKEN": "m",
        "TABLE": "t",
        "DENO_DISABLE_NODE_SHIM": "1",
        "DENO_NO_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
    }


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ("", []),
        ("TABLE", ["TABLE"]),
        ("AWS_*", ["AWS_REGION"]),
        ("AWS_* TABLE", ["AWS_REGION", "TABLE"]),
        ("*", ["AWS_REGION", "TABLE"]),
        ("AWS_SESSION_TOKEN", ["AWS_SESSION_TOKEN"]),
        ("AWS_SESSION_T*", []),
        ("AWS_* @credentials", ["AWS_REGION", "AWS_SESSION_TOKEN"]),
        ("AWS", []),
        ("MISSING", []),
        ("AWS_LAMBDA_RUNTIME_API,_X_AMZN_TRACE_ID", []),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
def test_an_allow_list_hands_on_what_it_names(
    function: Function, names: str, kept: list[str]
) -> None:
    environ = {
        "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
        "_X_AMZN_TRACE_ID": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        "AWS_REGION": "eu-central-1",
        "AWS_SESSION_TOKEN": "token",
        "TABLE": "t",
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "LD_LIBRARY_PATH": "/lib64",
    }
    command = function.command(environ, LAMBDA_DENO_ENV=names)
    always = ["PATH", "LANG", "TZ", "LD_LIBRARY_PATH"]
    always += ["DENO_DISABLE_NODE_SHIM", "DENO_NO_UPDATE_CHECK", "NO_COLOR"]
    assert sorted(command.environ) == sorted([*kept, *always])


def test_home_and_tmpdir_are_the_process_s_own(function: Function) -> None:
    command = function.command({"HOME": "/root", "TMPDIR": "/tmp"})
    environ = command.process_environ("/tmp/private", "/tmp/cache")
    assert environ["DENO_DIR"] == "/tmp/cache"
    assert (environ["HOME"], environ["TMPDIR"]) == ("/tmp/private", "/tmp/private")
    assert command.environ["HOME"] == "/root"


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
    facts = function.command(environ).facts["variables"]
    assert isinstance(facts, dict)
    assert facts["HTTPS_PROXY"] == "http://proxy:3128"
    assert facts["HTTP_PROXY"] is None
    assert "TABLE" not in facts
    withheld = function.command(environ, LAMBDA_DENO_ENV="TABLE").facts["variables"]
    assert isinstance(withheld, dict)
    assert withheld["HTTPS_PROXY"] is None
    nothing = function.command(environ, LAMBDA_DENO_PERMISSIONS="--allow-net")
    assert nothing.facts["variables"] == {}


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
        "socket": None,
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
            "credentialsWithheld": False,
        },
        "variables": dict.fromkeys(STEERING),
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


ALL_CREDENTIALS = [
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY", "AWS_SECURITY_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_LAMBDA_METADATA_TOKEN",
]  # fmt: skip


@pytest.mark.parametrize("name", ALL_CREDENTIALS)
def test_no_wildcard_matches_credentials(function: Function, name: str) -> None:
    environ = {name: "secret"}

    def hands_on(names: str | None) -> bool:
        variables = {} if names is None else {"LAMBDA_DENO_ENV": names}
        command = function.command(environ, **variables)
        hints = command.facts["permissions"]
        assert isinstance(hints, dict)
        assert hints["credentialsWithheld"] is (name not in command.environ)
        return name in command.environ

    assert hands_on(None)
    assert hands_on(name)
    assert hands_on("@credentials")
    assert hands_on("* @credentials")
    assert not hands_on("")
    assert not hands_on("*")
    assert not hands_on("AWS_*")
    assert not hands_on(f"{name}*")


@pytest.mark.parametrize(
    ("names", "withheld"),
    [
        (None, []),
        ("@credentials", []),
        ("AWS_SESSION_TOKEN", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
        ("*", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]),
    ],
)
def test_what_leads_to_fetched_credentials_is_withheld(
    function: Function, names: str | None, withheld: list[str]
) -> None:
    """It leads to the Runtime API's address, which no process may reach."""
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{RUNTIME_API}/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
        "TABLE": "t",
    }
    variables = {} if names is None else {"LAMBDA_DENO_ENV": f"TABLE {names}"}
    command = function.command(environ, **environ, **variables)
    settings = function.settings(**environ, **variables)
    assert command.environ.keys() & environ.keys() == {"TABLE"}
    assert sorted(withheld_credentials(settings)) == withheld
    hints = command.facts["permissions"]
    assert isinstance(hints, dict)
    assert hints["credentialsWithheld"] is bool(withheld)

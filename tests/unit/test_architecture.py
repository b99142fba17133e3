"""Who may import whom, enforced by reading the source: see docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "lambda_deno_spawn"
SOURCE = Path(__file__).parents[2] / "src" / PACKAGE

# What each module may import of ours: anywhere in it, for type checking too.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"dev.cli"},
    "errors": set(),
    "invocation": {"errors"},
    "records": set(),
    "hello": {"records"},
    "protocol": {"errors", "hello", "invocation"},
    "permissions": {"errors", "records"},
    "config": {"errors", "permissions", "records"},
    "deno": {
        "config", "errors", "hello", "module_cache", "permissions", "records",
    },
    "state": {"records"},
    "module_cache": {"records", "state"},
    "descendants": {"records"},
    "process": {"descendants", "errors", "records"},
    "exits": {"errors", "process", "protocol"},
    "logs": {"config", "invocation"},
    "metrics": {"config"},
    "pool": {"records"},
    "spawn": {
        "deno", "errors", "hello", "module_cache", "permissions", "process", "records",
        "state",
    },
    "exchange": {"errors", "invocation", "protocol"},
    "http_exchange": {
        "errors", "exchange", "http1", "invocation", "protocol", "transport",
    },
    "worker": {
        "descendants", "errors", "exchange", "exits", "http_exchange", "invocation",
        "logs", "module_cache", "process", "protocol", "spawn", "state",
    },
    "strategies": {
        "config", "credentials", "deno", "descendants", "errors", "exchange",
        "invocation", "logs", "module_cache", "pool", "process", "spawn", "state",
        "worker",
    },
    "credentials": {"config", "deno", "errors", "logs"},
    "snapshot": {
        "config", "credentials", "errors", "invocation", "logs", "spawn", "strategies",
    },
    "extension": {"errors", "logs"},
    "execution": {
        "config", "errors", "exchange", "invocation", "logs", "metrics", "protocol",
        "worker",
    },
    "http1": set(),
    "transport": {"http1"},
    "runtime_api": {"__init__", "errors", "http1", "invocation", "logs", "transport"},
    "loop": {"errors", "invocation", "logs"},
    "bootstrap": {
        "config", "credentials", "deno", "descendants", "errors", "execution",
        "extension", "invocation", "logs", "loop", "module_cache", "process", "records",
        "runtime_api", "snapshot", "spawn", "state", "strategies",
    },
    "dev.__init__": set(),
    "dev.archive": {"errors"},
    "dev.aws": {"__init__", "dev.aws_errors", "dev.plan", "errors"},
    "dev.aws_errors": {"dev.plan", "errors"},
    "dev.build": {"dev.quotas",
        "__init__", "deno", "dev.archive", "dev.bundle", "dev.elf", "dev.layer",
        "dev.local_runtime", "dev.project", "dev.seed", "dev.selection", "errors",
    },
    "dev.bundle": {"deno", "errors"},
    "dev.cli": {"dev.quotas",
        "__init__", "config", "dev.cli_aws", "dev.cli_build", "dev.cli_layer",
        "dev.cli_new", "dev.cli_options", "dev.cli_publish", "dev.cli_remote",
        "dev.console",
        "dev.doctor", "dev.function", "dev.invoke", "dev.isolation",
        "dev.local_runtime", "dev.project", "dev.tables", "errors",
    },
    "dev.cli_aws": {"dev.quotas",
        "config", "deno", "dev.aws", "dev.build", "dev.cli_options", "dev.console",
        "dev.deploy", "dev.deploy_layers", "dev.deployment", "dev.execute",
        "dev.function", "dev.plan", "dev.project", "dev.publish", "dev.wanted",
        "errors",
    },
    "dev.cli_build": {"dev.quotas",
        "dev.build", "dev.cli_options", "dev.console", "dev.function", "dev.project",
        "dev.tables",
    },
    "dev.cli_layer": {"dev.quotas",
        "dev.cli_options", "dev.console", "dev.doctor", "dev.layer", "dev.project",
        "dev.tables",
    },
    "dev.cli_new": {"dev.cli_options", "dev.console", "dev.new", "dev.project"},
    "dev.cli_options": {"dev.console", "dev.layer", "dev.publish"},
    "dev.cli_publish": {"dev.layer",
        "dev.aws", "dev.cli_options", "dev.console", "dev.execute", "dev.project",
        "dev.publish", "dev.tables", "errors",
    },
    "dev.cli_remote": {
        "dev.aws", "dev.cli_options", "dev.console", "dev.project", "dev.remote",
        "dev.remote_logs",
    },
    "dev.console": {"errors"},
    "dev.deploy": {
        "dev.deploy_layers", "dev.plan", "dev.project", "dev.publish", "dev.wanted",
        "errors",
    },
    "dev.deploy_layers": {
        "dev.plan", "dev.publish", "dev.quotas", "dev.wanted", "errors",
    },
    "dev.deployment": {
        "dev.aws", "dev.plan", "dev.publish", "dev.wanted", "errors",
    },
    "dev.doctor": {
        "config", "deno", "dev.function", "dev.local_runtime", "dev.quotas", "errors",
        "module_cache",
    },
    "dev.elf": {"errors"},
    "dev.emulator": {"errors"},
    "dev.execute": {"dev.quotas", "dev.aws", "dev.aws_errors", "dev.plan", "errors"},
    "dev.function": {"deno", "errors"},
    "dev.interpreter": {"dev.archive", "dev.elf", "dev.project", "errors"},
    "dev.invoke": {"dev.emulator", "dev.function", "dev.local_runtime", "errors"},
    "dev.isolation": {
        "config", "descendants", "dev.emulator", "dev.function", "dev.local_runtime",
        "errors",
        "permissions",
    },
    "dev.isolation_children": set(),
    "dev.layer": {"dev.quotas",
        "__init__", "dev.archive", "dev.doctor", "dev.elf", "dev.interpreter",
        "dev.project", "dev.wheels", "errors",
    },
    "dev.local_runtime": {"config", "deno", "dev.function", "errors"},
    "dev.new": {"dev.project", "errors"},
    "dev.plan": set(),
    "dev.project": {"dev.quotas", "config", "dev.function", "errors"},
    "dev.publish": {"dev.quotas", "dev.aws", "dev.layer", "dev.plan", "errors"},
    "dev.quotas": set(),
    "dev.remote": {"dev.aws", "dev.plan", "errors"},
    "dev.remote_logs": {
        "dev.aws", "dev.deployment", "dev.plan", "dev.wanted", "errors",
    },
    "dev.seed": {
        "config", "deno", "dev.function", "dev.local_runtime", "dev.project", "errors",
        "hello", "invocation", "module_cache", "protocol",
    },
    "dev.selection": {"dev.project"},
    "dev.tables": {"dev.doctor", "dev.isolation"},
    "dev.wanted": {
        "dev.plan", "dev.project", "dev.publish", "dev.quotas", "errors",
    },
    "dev.wheels": {"dev.project", "errors"},
}  # fmt: skip
PURE = [
    "errors", "records", "hello", "invocation", "protocol", "permissions", "config",
    "metrics", "pool", "http1",
    "dev.deploy", "dev.deploy_layers",
]  # fmt: skip
OUTSIDE = {
    "asyncio", "datetime", "httpx", "logging", "os", "pathlib", "random", "select",
    "signal", "socket", "subprocess", "sys", "threading", "time",
}  # fmt: skip
# Who alone may import what reaches outside, in the runtime and anywhere.
RUNTIME_OWNERS = {
    "ctypes": {"descendants"},
    "fcntl": {"process", "state", "transport"},
    "h11": {"http1"},
    "httpx": set[str](),  # decision 0022
    "importlib": set[str](),  # every import can be read
    "socket": {"transport"},
    "subprocess": set[str](),  # os.posix_spawn, see process.launch
}
OWNERS = {
    "boto3": {"dev.aws", "dev.aws_errors"},
    "botocore": {"dev.aws", "dev.aws_errors"},
    "elftools": {"dev.elf"},
    "sqlite3": {"dev.seed"},
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
# What costs a cold start tens of milliseconds: imported while Deno loads the handler.
# dataclasses and orjson bring inspect with them.
SLOW = {
    "asyncio", "dataclasses", "httpx", "orjson", "pathlib", "subprocess", "typing",
    "urllib",
}  # fmt: skip


@dataclass(frozen=True)
class Imports:
    """What a module imports: dotted names of others, names of ours.

    Attributes:
        everywhere: All of it.
        at_start: What importing the module imports at once.
        touches_environment: True if it reads or writes ``os.environ``.
    """

    everywhere: set[str] = field(default_factory=set)
    at_start: set[str] = field(default_factory=set)
    touches_environment: bool = False


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


NAMES = sorted(name_of(path) for path in SOURCE.rglob("*.py"))
RUNTIME = [name for name in NAMES if not name.startswith(("dev.", "__main__"))]


def read_imports(source: str) -> Imports:
    tree = ast.parse(source)
    everywhere = {name for node in ast.walk(tree) for name in imported(node)}
    at_start = {name for node in at_import(tree.body) for name in imported(node)}
    touches = any(map(is_environment, ast.walk(tree)))
    return Imports(everywhere, at_start, touches)


def imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(level=level) if level:
            yield "a relative import"
        case ast.ImportFrom(str(module), names):
            for alias in names:
                inner = f"{module}.{alias.name}"
                yield inner if as_ours(inner) in NAMES else module


def at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Walk what runs when a module is imported: no function, no type checking."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                continue
            case ast.If(test=ast.Name("TYPE_CHECKING"), orelse=orelse):
                yield from at_import(orelse)
            case _:
                yield statement
                yield from at_import(statements_in(statement))


def statements_in(statement: ast.stmt) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    waiting = list(ast.iter_child_nodes(statement))
    for node in waiting:
        if isinstance(node, ast.stmt):
            found.append(node)
        else:  # such as the handlers of a try, the cases of a match
            waiting.extend(ast.iter_child_nodes(node))
    return found


def is_environment(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(ast.Name("os"), attribute):
            return attribute in ENVIRONMENT
        case ast.ImportFrom("os", names):
            return any(alias.name in ENVIRONMENT for alias in names)
    return False


def as_ours(name: str) -> str:
    """Return our module's name without the package's; empty if it is not ours."""
    first, _, rest = name.partition(".")
    if first != PACKAGE:
        return ""
    if not rest:
        return "__init__"
    return f"{rest}.__init__" if f"{rest}.__init__" in NAMES else rest


def ours(names: set[str]) -> set[str]:
    return {as_ours(name) for name in names} - {""}


def others(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names if not as_ours(name)}


MODULES = {
    name_of(path): read_imports(path.read_text(encoding="utf-8"))
    for path in SOURCE.rglob("*.py")
}
each_module = pytest.mark.parametrize("name", NAMES)
each_runtime_module = pytest.mark.parametrize("name", RUNTIME)


def test_every_module_has_its_place_in_the_table() -> None:
    assert set(NAMES) - set(ALLOWED) == set(), "new modules: add what they may import"
    assert set(ALLOWED) - set(NAMES) == set(), "modules that are gone"


@each_module
def test_a_module_imports_only_what_the_table_allows(name: str) -> None:
    assert ours(MODULES[name].everywhere) - ALLOWED.get(name, set()) == set()
    assert "a relative import" not in MODULES[name].everywhere


def test_imports_have_no_cycle() -> None:
    graph = {name: ours(imports.everywhere) for name, imports in MODULES.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(NAMES)


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reaches_nothing_outside(name: str) -> None:
    assert others(MODULES[name].everywhere) & OUTSIDE == set()


def test_how_deno_is_started_is_decided_without_starting_it() -> None:
    found = others(MODULES["deno"].everywhere)
    assert found & {"asyncio", "subprocess", "httpx", "socket", "signal"} == set()


@each_runtime_module
def test_the_runtime_never_imports_the_developer_s_side(name: str) -> None:
    found = ours(MODULES[name].everywhere)
    assert not {module for module in found if module.startswith(("dev.", "__main__"))}


@each_runtime_module
def test_only_bootstrap_reads_the_environment(name: str) -> None:
    assert MODULES[name].touches_environment == (name == "bootstrap")


@each_runtime_module
def test_what_reaches_outside_has_its_owner_in_the_runtime(name: str) -> None:
    found = others(MODULES[name].everywhere)
    owned = {module for module, owners in RUNTIME_OWNERS.items() if name in owners}
    assert found & (set(RUNTIME_OWNERS) - owned) == set()


@each_module
def test_what_has_one_owner_is_imported_by_it_alone(name: str) -> None:
    found = others(MODULES[name].everywhere)
    owned = {module for module, owners in OWNERS.items() if name in owners}
    assert found & (set(OWNERS) - owned) == set()


def test_the_emulator_is_a_witness_against_the_client() -> None:
    assert "runtime_api" not in ours(MODULES["dev.emulator"].everywhere)


def test_bootstrap_starts_without_what_is_slow_to_import() -> None:
    """The first Deno process is started before asyncio is imported."""
    reached_from = {"bootstrap": "the interpreter", "__init__": "the package"}
    waiting = list(reached_from)
    slow = []
    for name in waiting:
        imports = MODULES[name].at_start
        slow += [f"{name} imports {module}" for module in others(imports) & SLOW]
        for module in ours(imports) - set(reached_from):
            reached_from[module] = name
            waiting.append(module)
    assert slow == [], reached_from
    assert {"config", "deno", "process", "spawn"} <= set(reached_from)


# The rules are only as good as the reading.

EXAMPLE = """
from __future__ import annotations
import os.path, json as j
from typing import TYPE_CHECKING
from lambda_deno_spawn import __version__, logs
from lambda_deno_spawn.dev import cli
if TYPE_CHECKING:
    import httpx
else:
    import select
try:
    import orjson
except ImportError:
    import simplejson
class C:
    import ctypes
    def method(self):
        import socket
async def later():
    if True:
        from lambda_deno_spawn.errors import ConfigError
        from . import sibling
"""


def test_imports_are_found_wherever_they_stand() -> None:
    imports = read_imports(EXAMPLE)
    at_start = {
        "__future__", "os.path", "json", "typing", "lambda_deno_spawn",
        "lambda_deno_spawn.logs", "lambda_deno_spawn.dev.cli", "select", "orjson",
        "simplejson", "ctypes",
    }  # fmt: skip
    assert imports.at_start == at_start
    assert imports.everywhere == at_start | {
        "httpx", "socket", "lambda_deno_spawn.errors", "a relative import",
    }  # fmt: skip
    assert ours(imports.everywhere) == {"__init__", "logs", "dev.cli", "errors"}
    assert "os" in others(imports.everywhere)


@pytest.mark.parametrize(
    ("source", "touches"),
    [
        ("import os\nos.environ['A']", True),
        ("import os\ndef f():\n    return os.getenv('A')", True),
        ("from os import environ", True),
        ("import os\nos.getcwd()", False),
        ("environ = {}\nenviron['A']", False),
    ],
)
def test_uses_of_the_environment_are_found(source: str, touches: bool) -> None:
    assert read_imports(source).touches_environment == touches

"""The import rules of docs/architecture.md, checked by reading the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "lambda_deno_spawn"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / PACKAGE
DOCUMENTATION = ROOT / "docs" / "architecture.md"

# Which of our modules each folder, and each module outside the folders, may import,
# anywhere and for type checking too. Modules of one folder may import each other; "x.y"
# is one module of x. The same table is in docs/architecture.md.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "records": set(),
    "limits": set(),
    "strict_json": set(),
    "one_file": set(),
    "early": {"records"},
    "deferred": {"records"},
    "http": {"records"},
    "invocation": {"errors", "records", "strict_json"},
    "permissions": {"early", "errors", "records"},
    "config": {"early", "errors", "limits", "permissions", "records"},
    "processes": {"early", "errors", "records"},
    "log": {"config", "invocation", "strict_json"},
    "native": {"errors", "records"},
    "protocol": {
        "early", "errors", "invocation", "limits", "records", "strict_json",
    },
    "recording": {"records", "strict_json"},
    "launch": {
        "config", "early", "errors", "limits", "permissions", "processes.state",
        "records",
    },
    "worker": {
        "errors", "http", "invocation", "launch", "log", "permissions", "processes",
        "protocol", "records",
    },
    "runtime_api": {
        "__init__", "config", "errors", "http", "invocation", "limits", "log",
        "records", "strict_json",
    },
    "serving": {
        "config", "errors", "invocation", "launch", "limits", "log", "native",
        "processes", "protocol", "recording", "records", "strict_json", "worker",
    },
    "bootstrap": {
        "config", "deferred", "early", "errors", "invocation", "launch", "log",
        "native", "processes", "records", "runtime_api", "serving", "worker",
    },
    "dev.project": {"config", "errors", "launch"},
    "dev.local": {"bootstrap", "config", "dev.project", "errors", "launch"},
    "dev.devserver": {"dev.local", "dev.project", "errors", "launch"},
    "dev.recording": {
        "dev.aws", "dev.devserver", "dev.local", "dev.project", "errors", "launch",
        "recording",
    },
    "dev.bench": {"dev.local", "dev.project", "errors", "launch"},
    "dev.doctor": {
        "config", "dev.local", "dev.project", "errors", "launch", "native",
        "permissions", "processes",
    },
    "dev.package": {
        "__init__", "config", "dev.local", "dev.project", "errors", "invocation",
        "launch", "native", "one_file", "protocol",
    },
    "dev.aws": {"__init__", "dev.package", "dev.project", "errors"},
    "dev.cli": {
        "__init__", "config", "dev.aws", "dev.bench", "dev.devserver", "dev.doctor",
        "dev.local", "dev.package", "dev.project", "dev.recording", "errors", "launch",
    },
    "__main__": {"dev.cli"},
}  # fmt: skip
PURE = [
    "errors", "records", "limits", "strict_json", "protocol.hello", "invocation",
    "protocol.frames", "permissions", "config",
    "serving.metrics", "serving.pool", "http.http1", "recording.form",
    "recording.redaction", "dev.recording.compare",
    "dev.aws.deploy", "dev.aws.deploy_layers", "dev.bench.report", "dev.bench.picture",
    "dev.devserver.eventstream", "dev.devserver.guard",
]  # fmt: skip
OUTSIDE = {
    "asyncio", "datetime", "httpx", "logging", "os", "pathlib", "random", "select",
    "signal", "socket", "subprocess", "sys", "threading", "time",
}  # fmt: skip
# The only modules that may import these, in the runtime and anywhere.
RUNTIME_OWNERS = {
    "ctypes": {"processes.descendants", "processes.shared_memory"},
    "fcntl": {
        "processes.child",
        "processes.launch",
        "processes.state",
        "http.transport",
    },
    "h11": {"http.http1"},
    "httpx": set[str](),  # decision 0022
    "importlib": set[str](),  # every import can be read
    "socket": {"http.transport", "native.control", "processes.launch"},
    "subprocess": set[str](),  # os.posix_spawn, see processes.launch
}
OWNERS = {
    "boto3": {"dev.aws.session", "dev.aws.errors"},
    "botocore": {"dev.aws.credentials", "dev.aws.session", "dev.aws.errors"},
    "elftools": {"dev.package.elf"},
    "uvicorn": {"dev.devserver.server"},
    "watchfiles": {"dev.devserver.watcher"},
    "sqlite3": {"dev.package.seed"},
}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
# Modules that cost a cold start two to tens of milliseconds: imported while Deno loads
# the handler, or where they are needed.
SLOW = {
    "asyncio", "collections", "contextlib", "dataclasses", "enum", "functools",
    "httpx", "inspect", "json", "pathlib", "re", "signal",
    "subprocess", "typing", "urllib",
}  # fmt: skip


@dataclass(frozen=True)
class Imports:
    """The imports of a module, as dotted names.

    Attributes:
        everywhere: All of them.
        at_start: The ones that run when the module is imported.
        touches_environment: True if it reads or writes ``os.environ``.
    """

    everywhere: set[str] = field(default_factory=set)
    at_start: set[str] = field(default_factory=set)
    touches_environment: bool = False


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


# js/src holds a tool of the checkout, which is not a module of the package.
FILES = [path for path in SOURCE.rglob("*.py") if SOURCE / "js" not in path.parents]
NAMES = sorted(map(name_of, FILES))
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
    """Walk the statements that run when a module is imported."""
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
    """Return our module's name without the package's; empty for another's module."""
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


class Modules(dict[str, Imports]):
    """Every module's imports, read when they are asked for."""

    def __missing__(self, name: str) -> Imports:
        path = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
        imports = self[name] = read_imports(path.read_text(encoding="utf-8"))
        return imports


MODULES = Modules()
each_module = pytest.mark.parametrize("name", NAMES)
each_runtime_module = pytest.mark.parametrize("name", RUNTIME)


def folder_of(module: str) -> str:
    """Return the row of the table that a module belongs to."""
    folder = module.removesuffix(".__init__")
    while folder not in ALLOWED and "." in folder:
        folder = folder.rpartition(".")[0]
    return folder


def is_allowed(module: str, imported_module: str) -> bool:
    own, folder = folder_of(module), folder_of(imported_module)
    return folder == own or bool({folder, imported_module} & ALLOWED[own])


def test_every_module_has_its_place_in_the_table() -> None:
    homeless = {name for name in NAMES if folder_of(name) not in ALLOWED}
    assert homeless == {"dev.__init__"}, "new modules: put them into a folder"
    assert set(ALLOWED) == {folder_of(name) for name in NAMES} - {"dev"}


@each_module
def test_a_module_imports_only_what_the_table_allows(name: str) -> None:
    found = ours(MODULES[name].everywhere)
    assert [module for module in found if not is_allowed(name, module)] == []
    assert "a relative import" not in MODULES[name].everywhere


def test_the_table_allows_nothing_that_is_not_used() -> None:
    for folder, allowed in ALLOWED.items():
        inside = [name for name in NAMES if folder_of(name) == folder]
        used = {module for name in inside for module in ours(MODULES[name].everywhere)}
        used |= {folder_of(module) for module in used}
        assert allowed - used == set(), folder


def test_the_documentation_has_the_same_table() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    section = text.split("## Import rules\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE)
    documented = {
        folder: set(re.findall(r"`([^`]+)`", allowed))
        for folders, allowed in rows
        for folder in re.findall(r"`([^`]+)`", folders)
    }
    assert documented == ALLOWED


def test_the_documentation_names_every_module_and_no_other() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    section = text.split("## Modules\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    documented = set(re.findall(r"`([^`]+\.(?:py|js|ts))`", " ".join(cells)))
    files = [
        path for path in SOURCE.rglob("*.*") if path.suffix in (".py", ".js", ".ts")
    ]
    assert documented == {
        path.relative_to(SOURCE).as_posix()
        for path in files
        if path.name != "__init__.py"
        and "templates" not in path.relative_to(SOURCE).parts
    }


def test_the_documentation_shows_the_tree() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    tree = text.split("## The tree\n")[1].split("```")[1]
    modules = {name.rpartition(".")[2] for name in NAMES} - {"__init__"}
    assert modules - set(tree.split()) == set()


def test_neither_imports_nor_folders_have_a_cycle() -> None:
    graph = {name: ours(MODULES[name].everywhere) for name in NAMES}
    assert set(TopologicalSorter(graph).static_order()) == set(NAMES)
    folders: dict[str, set[str]] = {}
    for name, imported_modules in graph.items():
        arrows = {folder_of(module) for module in imported_modules}
        folders.setdefault(folder_of(name), set()).update(arrows)
    for folder, arrows in folders.items():
        arrows.discard(folder)
    TopologicalSorter(folders).prepare()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reaches_nothing_outside(name: str) -> None:
    assert others(MODULES[name].everywhere) & OUTSIDE == set()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if folder_of(name) == "launch"]
)
def test_how_deno_is_started_is_decided_without_starting_it(name: str) -> None:
    found = others(MODULES[name].everywhere)
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


@pytest.mark.parametrize("name", ["emulator", "environment", "http_server"])
def test_the_emulator_is_a_witness_against_the_client(name: str) -> None:
    found = ours(MODULES[f"dev.local.{name}"].everywhere)
    assert not {each for each in found if each.startswith(("http", "runtime_api"))}


def test_the_state_of_the_emulator_reaches_nothing_outside() -> None:
    found = others(MODULES["dev.local.environment"].everywhere)
    assert found & OUTSIDE == {"signal"}, "the numbers of signals, and nothing else"


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
    assert {"config", "launch.command", "processes.launch", "worker.start"} <= set(
        reached_from
    )


# The rules are only as good as the reading.

EXAMPLE = """
from __future__ import annotations
import os.path, json as j
from typing import TYPE_CHECKING
from lambda_deno_spawn import __version__
from lambda_deno_spawn.log import writer
from lambda_deno_spawn.dev.cli import app
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
        "lambda_deno_spawn.log.writer", "lambda_deno_spawn.dev.cli.app", "select",
        "orjson",
        "simplejson", "ctypes",
    }  # fmt: skip
    assert imports.at_start == at_start
    assert imports.everywhere == at_start | {
        "httpx", "socket", "lambda_deno_spawn.errors", "a relative import",
    }  # fmt: skip
    assert ours(imports.everywhere) == {
        "__init__",
        "log.writer",
        "dev.cli.app",
        "errors",
    }
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

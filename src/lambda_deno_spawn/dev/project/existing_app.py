"""The handler in a folder with an app that was not written for this runtime.

Knows where projects for Deno and for Node.js name their main module, and what in a
source is a handler, an app or a server. Reads files, runs nothing, and says where it
found what it names. Specification: docs/project.md, "A folder that exists".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.project import jsonc
from lambda_deno_spawn.dev.project.function import DEFAULT_EXPORT, SOURCE_NAMES
from lambda_deno_spawn.dev.project.project import HANDLER
from lambda_deno_spawn.errors import HandlerError, UsageError
from lambda_deno_spawn.launch.deno_json import CONFIG_NAMES, PACKAGE
from lambda_deno_spawn.launch.handler import HANDLER_SUFFIXES, find_handler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCE_LIMIT_BYTES = 1_000_000
SOURCE_FOLDERS = ("", "src")
MAIN_NAMES = (*SOURCE_NAMES, "server", "app", "lambda")
COMMANDS = ("start", "serve", "dev", "preview")
# Conditions of `exports` in package.json, the first of which counts.
CONDITIONS = ("deno", "import", "module", "node", "default", "require")
OUTPUT_FOLDERS = ("dist", "build", "out", "lib")
NOT_A_MODULE = re.compile(
    r"\.d\.[mc]?ts$|(?:^|[._])(?:test|spec|bench)\.\w+$|\.config\.\w+$"
)
MODULE = re.compile(r"[^\s\"'`=&|;()]+\.[mc]?[jt]sx?(?=[\s\"'`&|;)]|$)")
# Those that begin a line: in other places it may be a path, such as "/*".
COMMENT = re.compile(r"^[ \t]*(?:/\*.*?\*/|//[^\n]*)", re.DOTALL | re.MULTILINE)
ONLY_AS_MAIN = re.compile(r"\bimport\.meta\.main\b|\brequire\.main\b")

DECLARED = r"export\s+(?:async\s+)?(?:const|let|var|function\s*\*?)\s*"
NAMED_EXPORT = re.compile(
    rf"{DECLARED}(\w+)|\b(?:module\.)?exports\.(\w+)\s*=(?!=)|export\s*\{{([^}}]*)\}}"
    r"|module\.exports\s*=\s*\{([^}]*)\}"
)
DEFAULT = re.compile(r"export\s+default\b|\bmodule\.exports\s*=(?!\s*\{)|export\s*=")
# Exports whose names a source does not show.
MADE_EXPORT = re.compile(
    r"export\s*\*|export\s+(?:const|let|var)\s*[{\[]"
    r"|\b(?:exports|module)\s*[),;\[]|=\s*(?:module\.)?exports\b(?!\.)"
)
SERVER = re.compile(
    r"\bDeno\.serve\s*\(|\.listen\s*\(|(?<![.\w])serve\s*\(\s*[{\w]"
    r"|\bcreateServer\s*\("
)
WEB = re.compile(
    r"\bfetch\s*[(:]|\bnew (?:Hono|Router|Application|Koa|Elysia|OpenAPIHono)\b"
    r"|\b(?:express|fastify|Fastify|createYoga)\s*\("
)
# Packages that hand the events of HTTP to an app; the last reads only the older form.
ADAPTER = re.compile(
    r"""["'](?:(?:npm|jsr):/?)?(?:serverless-http|serverless-koa|lambda-api"""
    r"""|@(?:codegenie|vendia)/serverless-express|@fastify/aws-lambda"""
    r"""|aws-lambda-fastify|@as-integrations/aws-lambda"""
    r"""|(?:@hono/)?hono(?:@[^"'/]*)?/aws-lambda"""
    r"""|@trpc/server(?:@[^"'/]*)?/adapters/aws-lambda"""
    r"""|(?P<older>aws-serverless-express))(?:@[^"'/]*)?(?:/[^"']*)?["']"""
)
# The sample event for a source, by the names that the types of events have.
EVENTS = tuple(
    (re.compile(rf"\b(?:{names})\b"), sample)
    for names, sample in (
        (r"SQS(?:Event|Handler|BatchResponse)|SqsEvent", "sqs"),
        (r"KinesisStream(?:Event|Handler|BatchResponse)|KinesisEvent", "kinesis"),
        (r"DynamoDBStream(?:Event|Handler)|DynamoDBBatchResponse", "dynamodb"),
        (r"SNS(?:Event|Handler)", "sns"),
        (r"S3(?:Event|Handler)", "s3-put"),
        (r"MSK(?:Event|Handler)|SelfManagedKafkaEvent", "kafka"),
        (r"SES(?:Event|Handler)", "ses"),
        (r"CloudWatchLogs(?:Event|Handler)", "cloudwatch-logs"),
        (r"Scheduled(?:Event|Handler)", "schedule"),
        (r"EventBridge(?:Event|Handler)", "eventbridge"),
        (r"ALB(?:Event|Handler)|AlbEvent", "alb"),
        (r"APIGatewayProxy(?:Event|Handler)V2\w*|ApiGatewayV2Event", "http"),
        (r"LambdaFunctionURL(?:Event|Handler)|FunctionUrlEvent", "url"),
        (r"APIGatewayProxy(?:Event|Handler)|ApiGatewayV1Event", "rest"),
    )
)  # fmt: skip
URL_EVENT = "url"
REST_EVENT = "rest"


@dataclass(frozen=True, slots=True)
class App:
    """The handler of a folder.

    Attributes:
        handler: ``file.export``, relative to the folder.
        file: Path below the folder, with slashes.
        found_by: What names the file.
        event: A sample event that it can read; None: nothing tells which.
        note: What is to be looked at; None: nothing.
        listens: It is a server, without an export that has the handler's name.
        has_routes: It hands HTTP requests to an app, which has its own routes.
    """

    handler: str
    file: str
    found_by: str
    event: str | None = None
    note: str | None = None
    listens: bool = False
    has_routes: bool = False


def read_json(path: Path) -> dict[str, Any] | None:
    """Return an object from a file of JSON with comments; None: there is no file.

    Raises:
        UsageError: The file cannot be read, or is not such an object.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        content = jsonc.parse(text)
    except jsonc.JsoncError as error:
        raise UsageError(
            f"Cannot read {str(path)!r}: {error}; correct it, and run this again"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"Cannot read {str(path)!r}: expected an object in braces")
    return content


def read_text(path: Path) -> str | None:
    """Return the text of a file; None: there is no file.

    Raises:
        UsageError: It cannot be read as text in UTF-8, or something else is there.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        what = "a folder" if path.is_dir() else "neither a file nor a folder"
        if path.is_symlink() and not path.exists():
            what = "a link to a file that does not exist"
        raise UsageError(f"Cannot read {str(path)!r}: it is {what}; move it away")
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"Cannot read {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"Cannot read {str(path)!r}: it is not UTF-8") from error


def find_app(folder: Path) -> App:
    """Find the handler of a folder.

    Of the modules that the project names, the first that has a handler, an app or a
    server counts, and without one the first.

    Raises:
        UsageError: No module is named, or a file that names one cannot be read.
    """
    files: dict[str, str] = {}
    for file, found_by in _named_files(folder):
        files.setdefault(file, found_by)
    for file, found_by in files.items():
        export = _export(_source(folder / file))
        if export is not None:
            return _app(folder, file, export, found_by)
    if files:
        file, found_by = next(iter(files.items()))
        note = (
            f"{file} has neither a handler nor an app nor a server that could be seen; "
            "docs/handlers.md has the forms"
        )
        return _app(folder, file, DEFAULT_EXPORT, found_by, note)
    raise UsageError(
        f"Cannot find an app in {str(folder)!r}: no main module is named in deno.json "
        f"or package.json, and no source file is called {', '.join(MAIN_NAMES[:-1])} "
        f"or {MAIN_NAMES[-1]}; name it with --handler file.export, or use `new` for a "
        "new project"
    )


def named_app(folder: Path, handler: str, found_by: str) -> App:
    """Return the app with a handler.

    Raises:
        UsageError: There is no such file.
    """
    try:
        found = find_handler(folder, handler)
    except HandlerError as error:
        raise UsageError(str(error)) from error
    path = Path(found.path)
    file = path.relative_to(folder).as_posix()
    return _seen(_source(path), handler, file, found_by)


def other_exports(path: Path, export: str) -> list[str]:
    """Return what a module exports if the wanted export is surely not there.

    An empty list means that the export is there, that a server takes its place, or that
    its source alone does not tell.

    Args:
        path: The module.
        export: Name of the export; it may be nested, as in ``api.users.get``.

    Raises:
        UsageError: The module cannot be read.
    """
    source = _source(path)
    if any(pattern.search(source) for pattern in (DEFAULT, SERVER, MADE_EXPORT)):
        return []
    names = list(dict.fromkeys(filter(None, _exports(source))))
    wanted = export.partition(".")[0]
    is_open = wanted in names or "default" in names
    return [] if is_open or not all(map(str.isidentifier, names)) else names


def _app(
    folder: Path, file: str, export: str, found_by: str, note: str | None = None
) -> App:
    suffix = _suffix(file)
    assert suffix is not None  # only modules are named
    handler = f"{file.removesuffix(suffix)}.{export}"
    if not HANDLER.fullmatch(handler):
        raise UsageError(
            f"Cannot use {file!r} as the handler's file: Lambda accepts no spaces in "
            "its name; rename it"
        )
    loaded = Path(find_handler(folder, handler).path).relative_to(folder).as_posix()
    if loaded != file:
        note = f"Lambda loads {loaded} in place of {file}: remove or rename one of them"
    source = _source(folder / file)
    if note is None and ONLY_AS_MAIN.search(source) and not _has_export(source, export):
        note = (
            f"{file} asks whether it is the main module, which is false here: start "
            "the server without that condition"
        )
    return _seen(source, handler, file, found_by, note)


def _seen(
    source: str, handler: str, file: str, found_by: str, note: str | None = None
) -> App:
    """Return an app with what its source shows."""
    event = _event(source)
    export = handler.rpartition(".")[2]
    return App(
        handler,
        file,
        found_by,
        event,
        note,
        listens=SERVER.search(source) is not None and not _has_export(source, export),
        has_routes=event == URL_EVENT or ADAPTER.search(source) is not None,
    )


def _named_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Return paths of modules that exist, and what names them."""
    configs = [(name, read_json(folder / name)) for name in CONFIG_NAMES]
    name, config = next(((n, c) for n, c in configs if c is not None), ("", None))
    package = read_json(folder / PACKAGE)
    for target in _targets((config or {}).get("exports")):
        yield from _module(folder, target, f"exports in {name}")
    for key in ("exports", "module", "main"):
        for target in _targets((package or {}).get(key)):
            yield from _module(folder, target, f"{key} in {PACKAGE}")
    for content, key, source in (
        (config, "tasks", name),
        (package, "scripts", PACKAGE),
    ):
        commands: Any = (content or {}).get(key)
        for command in COMMANDS if isinstance(commands, dict) else ():
            for target in MODULE.findall(_command(commands.get(command))):
                yield from _module(folder, target, f"{key}.{command} in {source}")
    for parent in SOURCE_FOLDERS:
        for stem in MAIN_NAMES:
            for suffix in HANDLER_SUFFIXES:
                yield from _module(
                    folder, f"{parent}/{stem}{suffix}".strip("/"), "its name"
                )
    for parent in SOURCE_FOLDERS:
        place = folder / parent
        found = sorted(place.iterdir()) if place.is_dir() else []
        modules = [
            path.name for path in found if path.is_file() and _is_module(path.name)
        ]
        if len(modules) == 1:
            target = f"{parent}/{modules[0]}".strip("/")
            yield from _module(folder, target, "being the only source file")


def _targets(exports: Any) -> Iterator[str]:
    """Return the paths that ``exports`` or ``main`` has for the package itself."""
    if isinstance(exports, str):
        yield exports
    elif isinstance(exports, dict):
        if "." in exports:
            yield from _targets(exports["."])
        for condition in CONDITIONS:
            if condition in exports:
                yield from _targets(exports[condition])


def _command(command: Any) -> str:
    if isinstance(command, dict):  # a task with a description
        command = command.get("command")
    return command if isinstance(command, str) else ""


def _module(folder: Path, target: str, found_by: str) -> Iterator[tuple[str, str]]:
    """Return a module, or the source that it is compiled from."""
    file = os.path.normpath(target)
    if file.startswith(("/", "../")):
        return
    sources = [file, re.sub(r"\.[mc]?js$", "", file)]
    parent, _, rest = file.partition("/")
    if parent in OUTPUT_FOLDERS and rest:
        stem = re.sub(r"\.[mc]?js$", "", rest)
        # `build` leaves dist/ out of the package.
        sources = [f"src/{stem}", stem, *(sources if parent != "dist" else ())]
    for source in sources:
        for suffix in ("", *HANDLER_SUFFIXES):
            path = f"{source}{suffix}"
            if (folder / path).is_file() and _is_module(Path(path).name):
                yield path, found_by
                return


def _is_module(name: str) -> bool:
    return _suffix(name) is not None and not NOT_A_MODULE.search(name)


def _suffix(name: str) -> str | None:
    found = (s for s in HANDLER_SUFFIXES if name.endswith(s) and Path(name).name != s)
    return next(found, None)


def _source(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(SOURCE_LIMIT_BYTES).decode(errors="replace")
    except OSError as error:
        raise UsageError(f"Cannot read {str(path)!r}: {error.strerror}") from error
    return COMMENT.sub("", text)


def _export(source: str) -> str | None:
    """Return the export that is the handler; None: none of the known forms."""
    names = list(_exports(source))
    if _has_export(source, DEFAULT_EXPORT) or SERVER.search(source):
        return DEFAULT_EXPORT
    handlers = [name for name in names if name.lower().endswith("handler")]
    return handlers[0] if len(handlers) == 1 else None


def _has_export(source: str, export: str) -> bool:
    names = [*_exports(source)]
    return export in names or "default" in names or DEFAULT.search(source) is not None


def _exports(source: str) -> Iterator[str]:
    for declared, assigned, listed, gathered in NAMED_EXPORT.findall(source):
        if declared or assigned:
            yield declared or assigned
        for item in (listed or gathered).split(","):
            # `a as b` exports b, and so does `b: a`.
            name = re.split(r"\bas\b", item)[-1] if listed else item.partition(":")[0]
            yield re.sub(r"^\s*(?:async|type)\s+", "", name).partition("(")[0].strip()


def _event(source: str) -> str | None:
    for pattern, sample in EVENTS:
        if pattern.search(source):
            return sample
    if (adapter := ADAPTER.search(source)) is not None:
        return REST_EVENT if adapter["older"] else URL_EVENT
    return URL_EVENT if WEB.search(source) or SERVER.search(source) else None


def names_types(content: Mapping[str, Any], package: str) -> bool:
    """Return whether a ``deno.json`` or a ``package.json`` names a package."""
    keys = ("imports", "dependencies", "devDependencies")
    return any(
        package == name or str(target).startswith(f"npm:{package}")
        for key in keys
        if isinstance(content.get(key), dict)
        for name, target in content[key].items()
    )

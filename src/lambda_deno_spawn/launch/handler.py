"""The handler: from its name to the file and the export."""

from __future__ import annotations

import os

from lambda_deno_spawn.errors import HandlerError
from lambda_deno_spawn.launch.files import is_file, read_text
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.launch.files import AnyPath

# In the order in which they are tried: a bundle wins over the source it was made from.
BUNDLE = ".bundle.js"
HANDLER_SUFFIXES = (
    BUNDLE, ".js", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".jsx",
)  # fmt: skip
# Conditions of "exports" in package.json that hold, and how far they are nested.
_CONDITIONS = ("node", "require", "import", "module-sync", "default")
_CONDITIONS_LIMIT = 8


class Handler(NamedTuple):
    """The file and the export that ``_HANDLER`` names."""

    path: str
    export: str


def find_handler(task_root: AnyPath, handler: str) -> Handler:
    """Return the file and export named by ``folder/file.export``.

    A file name may itself hold dots; the longest one that exists wins, and the rest is
    the export, which may be nested (``file.api.get``). An absolute path leads to a
    handler in a layer. As in AWS's Node runtime, a folder stands for its main file, and
    a file without a suffix is CommonJS; here they count if there is nothing else.

    Raises:
        HandlerError: ``Runtime.MalformedHandlerName``: not of that form, or it leaves
            the task root by ``..``; ``Runtime.ImportModuleError``: there is no such
            file.
    """
    folder, _, name = handler.rpartition("/")
    words = name.split(".")
    parts = folder.split("/")
    if len(words) < 2 or not all(words) or ".." in parts:
        raise HandlerError(
            "Runtime.MalformedHandlerName",
            f"Cannot use handler {handler!r}: expected file.export, "
            "such as function.handler or src/api.handler",
        )
    for count in range(len(words) - 1, 0, -1):
        file = os.path.join(folder, ".".join(words[:count]))
        stem = os.path.join(task_root, os.path.normpath(file))
        for suffix in HANDLER_SUFFIXES:
            path = stem + suffix
            if is_file(path):
                return Handler(path, ".".join(words[count:]))
    for count in range(len(words) - 1, 0, -1):
        file = os.path.join(folder, ".".join(words[:count]))
        path = os.path.join(task_root, os.path.normpath(file))
        main = path if is_file(path) else _file_of_folder(path)
        if main is not None:
            return Handler(main, ".".join(words[count:]))
    wanted = handler.rpartition(".")[0]
    raise HandlerError(
        "Runtime.ImportModuleError",
        f"Cannot find the file of handler {handler!r}: none of "
        f"{', '.join(wanted + suffix for suffix in HANDLER_SUFFIXES)} "
        f"exists in {str(task_root)!r}",
    )


def find_in_packages(folders: Sequence[AnyPath], handler: str) -> Handler | None:
    """Return the handler that a package exports: ``package.export``.

    Layers that wrap a function's own handler are named so. As in AWS's Node runtime,
    packages count if the task root has no such file.

    Args:
        folders: Those that contain packages, in the order in which they count.
        handler: Value of ``_HANDLER``.
    """
    package, _, export = handler.partition(".")
    if "/" in handler or not package or not all(export.split(".")):
        return None
    for folder in folders:
        path = _file_of_folder(os.path.join(folder, package))
        if path is not None:
            return Handler(path, export)
    return None


def _file_of_folder(folder: str) -> str | None:
    """Return the file that ``require`` loads for a folder."""
    if not os.path.isdir(folder):
        return None
    main = _main_file(os.path.join(folder, "package.json"))
    for name in (main, f"{main}/index" if main else None, "index"):
        if name is None:
            continue
        path = os.path.normpath(os.path.join(folder, name))
        for suffix in ("", *HANDLER_SUFFIXES):
            if is_file(path + suffix):
                return path + suffix
    return None


def _main_file(manifest: str) -> str | None:
    """Return the file that a package's ``package.json`` names for ``require``."""
    import json  # few functions need it

    try:
        package = json.loads(read_text(manifest, "utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(package, dict):
        return None
    exports = package.get("exports")
    if isinstance(exports, dict):
        exports = exports.get(".", exports)
    for _ in range(_CONDITIONS_LIMIT):
        if not isinstance(exports, dict):
            break
        known = [exports[name] for name in exports if name in _CONDITIONS]
        exports = known[0] if known else None
    for named in (exports, package.get("main")):
        if isinstance(named, str):
            return named
    return None

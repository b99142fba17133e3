"""The handler: from its name to the file and the export."""

from __future__ import annotations

import os

from lambda_deno_spawn.errors import HandlerError
from lambda_deno_spawn.launch.files import is_file
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lambda_deno_spawn.launch.files import AnyPath

# In the order in which they are tried: a bundle wins over the source it was made from.
BUNDLE = ".bundle.js"
HANDLER_SUFFIXES = (
    BUNDLE, ".js", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".jsx",
)  # fmt: skip


class Handler(NamedTuple):
    """The file and the export that ``_HANDLER`` names."""

    path: str
    export: str


def find_handler(task_root: AnyPath, handler: str) -> Handler:
    """Return the file and export named by ``folder/file.export``.

    A file name may itself hold dots; the longest one that exists wins, and the rest is
    the export, which may be nested (``file.api.get``).

    Raises:
        HandlerError: ``Runtime.MalformedHandlerName``: not of that form, or it leaves
            the task root; ``Runtime.ImportModuleError``: there is no such file.
    """
    folder, _, name = handler.rpartition("/")
    words = name.split(".")
    parts = handler.split("/")[:-1]
    if len(words) < 2 or not all(words) or not all(parts) or ".." in parts:
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
    wanted = "/".join([*parts, ".".join(words[:-1])])
    raise HandlerError(
        "Runtime.ImportModuleError",
        f"Cannot find the file of handler {handler!r}: none of "
        f"{', '.join(wanted + suffix for suffix in HANDLER_SUFFIXES)} "
        f"exists in {str(task_root)!r}",
    )

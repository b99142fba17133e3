"""The tables of errors, from the entries of the command ``explain``."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from docs.site.reference.markdown import code, complete, table

import lambda_deno_spawn
from lambda_deno_spawn.dev.doctor.explain import ENTRIES, Entry
from lambda_deno_spawn.dev.doctor.explain import table as texts_table

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(lambda_deno_spawn.__file__).parent
ERROR_TYPE = re.compile(r"[\"']((?:Runtime|Function|Sandbox)\.[A-Z]\w+)[\"']")
INIT = "at init"
LOADING = "at init, or for an event whose process starts later"
EITHER = "at init or for the event"
EVENT = "for the event"
LOG = "in the log and the metrics"
LAMBDA = "by Lambda itself"
# In the order of the table.
PLACES = {
    INIT: (
        "Runtime.MalformedHandlerName", "Runtime.SecretUnavailable",
        "Runtime.BeforeSnapshotError", "Runtime.AfterRestoreError",
    ),
    LOADING: (
        "Runtime.ImportModuleError", "Runtime.HandlerNotFound",
        "Runtime.UserCodeSyntaxError", "Runtime.InvalidConfiguration",
    ),
    EITHER: (
        "Runtime.InvalidEntrypoint", "Runtime.ExitError", "Runtime.OutOfMemory",
        "Runtime.ResourceExhausted", "Runtime.WorkerProtocolError",
    ),
    EVENT: (
        "Runtime.InvokeTimeout", "Runtime.HandlerNeverSettled",
        "Runtime.UnhandledPromiseRejection", "Runtime.JSONStringifyError",
        "Function.ResponseSizeTooLarge", "Runtime.UnsupportedEvent",
        "Runtime.InvalidResponse", "Runtime.ServerClosed", "Runtime.UnmarshalError",
        "Runtime.LambdaContextUnmarshalError", "Runtime.InvalidStreamingOperation",
        "Runtime.StreamUnavailable",
    ),
    LOG: ("Runtime.LambdaRuntimeClientError",),
    LAMBDA: (
        "Sandbox.Timedout", "Runtime.TruncatedResponse", "Runtime.Unknown",
        "Function.Unknown",
    ),
}  # fmt: skip
# The emulator's answer to a response mode that this runtime never sends.
OF_OTHER_RUNTIMES = {"Runtime.InvalidResponseModeHeader"}


def errors_table() -> str:
    """Return the table of docs/reference/errors.md.

    Raises:
        ReferenceGapError: An error type of the source is not described.
    """
    places = {name: place for place, names in PLACES.items() for name in names}
    complete("error type", sorted(error_types()), places)
    entries = {name: entry for entry in ENTRIES for name in entry.error_types}
    complete("error type", places, {name: each.why for name, each in entries.items()})
    return table(
        ["`errorType`", "When", "What to do", "Setting", "Reported", ""],
        (
            [
                entry.shown,
                entry.why,
                entry.do,
                code(entry.setting) if entry.setting else "",
                reported(entry, places),
                more(entry.page),
            ]
            for entry in dict.fromkeys(entries[name] for name in places)
        ),
    )


def reported(entry: Entry, places: Mapping[str, str]) -> str:
    """Return where the types of an entry are reported."""
    return ", or ".join(dict.fromkeys(places[name] for name in entry.error_types))


def more(page: str) -> str:
    """Return a link from docs/reference/errors.md; empty: it is that page."""
    if page == "reference/errors.md":
        return ""
    path, mark, anchor = page.partition("#")
    return f"[more]({posixpath.relpath(path, 'reference')}{mark}{anchor})"


def error_types() -> set[str]:
    """Return the error types that the source names."""
    found = set()
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("js/**/*.js")]:
        found.update(ERROR_TYPE.findall(path.read_text(encoding="utf-8")))
    return found - OF_OTHER_RUNTIMES


__all__ = ["errors_table", "texts_table"]

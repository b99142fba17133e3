"""The tables of errors, from the entries of the command ``explain``."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from docs.site.reference.markdown import complete, table

import lambda_deno_spawn
from lambda_deno_spawn.dev.doctor.explain import (
    EITHER,
    ENTRIES,
    EVENT,
    INIT,
    LAMBDA,
    LOADING,
    LOG,
)
from lambda_deno_spawn.dev.doctor.explain import table as texts_table

PACKAGE = Path(lambda_deno_spawn.__file__).parent
ERROR_TYPE = re.compile(r"[\"']((?:Runtime|Function|Sandbox)\.[A-Z]\w+)[\"']")
PLACES = (INIT, LOADING, EITHER, EVENT, LOG, LAMBDA)  # in the order of the table
# The emulator's answer to a response mode that this runtime never sends.
OF_OTHER_RUNTIMES = {"Runtime.InvalidResponseModeHeader"}


def errors_table() -> str:
    """Return the table of docs/reference/errors.md.

    Raises:
        ReferenceGapError: An error type of the source is not described.
    """
    described = {
        name: entry.why
        for entry in ENTRIES
        if entry.reported
        for name in re.findall(r"`((?:Runtime|Function|Sandbox)\.\w+)`", entry.shown)
    }
    complete("error type", sorted(error_types()), described)
    return table(
        ["`errorType`", "When", "What to do", "Reported", ""],
        (
            [entry.shown, entry.why, entry.do, entry.reported, more(entry.page)]
            for place in PLACES
            for entry in ENTRIES
            if entry.reported == place
        ),
    )


def more(page: str) -> str:
    """Return a link from docs/reference/errors.md; empty: it is that page."""
    if page == "reference/errors.md":
        return ""
    return f"[more]({posixpath.relpath(page, 'reference')})"


def error_types() -> set[str]:
    """Return the error types that the source names."""
    found = set()
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("js/**/*.js")]:
        found.update(ERROR_TYPE.findall(path.read_text(encoding="utf-8")))
    return found - OF_OTHER_RUNTIMES


__all__ = ["errors_table", "texts_table"]

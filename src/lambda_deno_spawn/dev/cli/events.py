"""The event that a command sends: where it comes from, and whether Lambda accepts it.

Knows the forms of ``--event`` and ``--event-file``, and the command ``events``. Does
not know what is done with the event, whose bytes stay as they are without ``--set``.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lambda_deno_spawn.dev.cli.console import exit_codes
from lambda_deno_spawn.dev.cli.options import SetOption, VerboseOption
from lambda_deno_spawn.dev.project.quotas import EVENT_LIMIT_BYTES
from lambda_deno_spawn.dev.project.samples import (
    find_sample,
    near_sample,
    sample_names,
    set_values,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE_NAME = re.compile(r"[A-Za-z][\w-]*")


def events(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Print this event instead of the names."),
    ] = None,
    *,
    set_: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """List the sample events of AWS services, or print one as JSON.

    `invoke --event NAME` sends it.
    """
    with exit_codes(is_verbose=verbose):
        if name is not None:
            found = find_sample(name)
            if found is None:
                raise _unknown_sample(name)
            text = json.loads(set_values(found, set_ or []))
            print(json.dumps(text, indent=2, ensure_ascii=False))
        elif set_:
            raise UsageError("Cannot use --set: no event is named; give its NAME")
        else:
            print("\n".join(sample_names()))
        sys.stdout.flush()


def read_event(
    event: str | None, event_file: str | None, assignments: Sequence[str] = ()
) -> bytes:
    """Return the event's bytes, after a check that they are JSON.

    Args:
        event: Value of ``--event``: JSON, a file, the name of a sample event, or -.
        event_file: Value of ``--event-file``.
        assignments: Values to set in the event; none: its bytes stay as they are.

    Raises:
        UsageError: Both sources are given, or one cannot be used.
    """
    if event is not None and event_file is not None:
        raise UsageError(
            "Cannot use both event sources, --event and --event-file: give one of them"
        )
    if event_file is not None:
        source = f"--event-file {event_file!r}"
        content = read_file(event_file, "--event-file")
    elif event is None:
        source, content = "--event", b"{}"
    elif event == "-":
        source, content = "stdin", sys.stdin.buffer.read()
    elif event.startswith("@") or _names_file(event):
        source = f"--event {event!r}"
        content = read_file(event.removeprefix("@"), "--event")
    elif (sample := find_sample(event)) is not None:
        source, content = f"--event {event!r}", sample
    elif SAMPLE_NAME.fullmatch(event) and not _is_json(event):
        raise _unknown_sample(event)
    else:
        source, content = "--event", event.encode(errors="surrogateescape")
    if assignments:
        check_json(content, source, "the event")
        content = set_values(content, assignments)
    if len(content) > EVENT_LIMIT_BYTES:
        raise UsageError(
            f"Cannot use the event from {source}: it has {len(content)} bytes, and "
            f"Lambda accepts {EVENT_LIMIT_BYTES}; store the data elsewhere and send "
            "its address"
        )
    check_json(content, source, "the event")
    return content


def read_file(name: str, option: str) -> bytes:
    """Return the content of a file that an option names.

    Raises:
        UsageError: It cannot be read.
    """
    if not name:
        raise UsageError(f"Cannot use {option}: no file is named; give its path")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        state = (error.strerror or type(error).__name__).lower()
        raise UsageError(
            f"Cannot read the file {name!r} of {option}: {state}; give the path of a "
            "readable file"
        ) from error


def read_text(value: str, option: str) -> str:
    """Return the text that an option gives: as it is, ``@FILE``, or ``-`` for stdin.

    Raises:
        UsageError: The file cannot be read.
    """
    if value == "-":
        return sys.stdin.buffer.read().decode(errors="replace")
    if value.startswith("@"):
        return read_file(value[1:], option).decode(errors="replace")
    return value


def _names_file(text: str) -> bool:
    """Return whether an event without @ is a file; no text that is JSON is taken so."""
    if not _is_json(text):
        with contextlib.suppress(OSError, ValueError):  # too long for a name
            return Path(text).is_file()
    return False


def _is_json(text: str) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


def _unknown_sample(name: str) -> UsageError:
    near = near_sample(name)
    hint = f"did you mean {near}? " if near else ""
    return UsageError(
        f"Cannot find the event {name!r}: it is not JSON, a file, or a sample event; "
        f"{hint}sample events are {', '.join(sample_names())}"
    )


def check_json(content: bytes, source: str, what: str) -> None:
    """Reject content that is not JSON, with the position of the error.

    Raises:
        UsageError: The content is not JSON; the message has line and column, if known.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} exists in JavaScript, but not in JSON")

    if not content.strip():
        raise UsageError(f"Cannot use {what} from {source}: it is empty; give JSON")
    try:
        # Check numbers without converting them: Python's limits are not the handler's.
        json.loads(
            content.decode(),
            parse_constant=refuse_constant,
            parse_int=str,
            parse_float=str,
        )
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: byte {error.start} of the text is not UTF-8"
    except json.JSONDecodeError as error:
        if content.startswith(codecs.BOM_UTF8):
            raise UsageError(
                f"Cannot use {what} from {source}: it begins with a byte order mark, "
                "which is not JSON; save it as UTF-8 without one"
            ) from error
        problem = f"line {error.lineno} column {error.colno}: {error.msg}"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:
        problem = str(error)
    else:
        return
    raise UsageError(f"Cannot use {what} from {source}: it is not JSON, {problem}")

"""Exit codes, error messages, prompts and output formats of all commands.

Knows the exit code for each kind of error, and where errors are printed. Does not know
any command.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from lambda_deno_spawn.errors import (
    BuildError,
    DeployError,
    LambdaDenoSpawnError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUILD = 3
EXIT_CHANGES = 4  # of `deploy --plan`: something differs
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_TERMINATED = 143  # 128 + SIGTERM
# The meaning of each; docs/reference/commands.md is generated from this table.
EXIT_CODES = {
    0: "Success.",
    EXIT_FAILED: "The function failed, a check found a problem, or the command itself "
    "failed unexpectedly.",
    EXIT_USAGE: "The command cannot run as given, for example because of an option.",
    EXIT_BUILD: "A build or a deployment failed.",
    EXIT_CHANGES: "`deploy --plan` found changes to make.",
    EXIT_INTERRUPTED: "Interrupted by Ctrl-C (SIGINT).",
    EXIT_TERMINATED: "Ended by SIGTERM or SIGHUP.",
}
# How much of an error's message is shown: the whole is on stdout. A message of a schema
# library has several lines for each field.
MESSAGE_LIMIT_LINES = 40
NAME_SHOWN = 60  # characters of a name that is too long
MESSAGE_LIMIT = 4_000


class Terminated(BaseException):
    """SIGTERM or SIGHUP was received."""


class Output(StrEnum):
    """Format of the result on stdout."""

    TEXT = "text"
    JSON = "json"


def print_note(text: str) -> None:
    """Print a sentence that the user should know to stderr."""
    print(f"Note: {text}", file=sys.stderr, flush=True)


def error_text(error: object, elsewhere: str) -> str:
    """Return type and message of an error body, shortened if the message is long.

    Args:
        error: The body, parsed.
        elsewhere: Where the error is, if it has neither type nor message.
    """
    if not isinstance(error, dict):
        return elsewhere
    message = str(error.get("errorMessage", "")).strip()
    lines = message[:MESSAGE_LIMIT].splitlines()
    shown = "\n".join(lines[:MESSAGE_LIMIT_LINES])
    if len(message) > MESSAGE_LIMIT or len(lines) > MESSAGE_LIMIT_LINES:
        shown += f"\u2026 (shortened; {elsewhere})"
    parts = (str(error.get("errorType", "")), shown)
    return ": ".join(part for part in parts if part) or elsewhere


@contextmanager
def exit_codes(*, is_verbose: bool) -> Iterator[None]:
    """Translate each exception that ends a command into one sentence and an exit code.

    SIGTERM and SIGHUP end the command like Ctrl-C, so that it cleans up.
    """
    before = _end_by(signal.SIGTERM, signal.SIGHUP)
    try:
        _check_surroundings()
        yield
    except typer.Exit:
        raise
    except UsageError as error:
        fail(str(error), EXIT_USAGE, is_verbose=is_verbose)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except _terminations():
        raise typer.Exit(EXIT_TERMINATED) from None
    except BrokenPipeError:  # the reader of the result has exited, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_FAILED) from None
    except (BuildError, DeployError) as error:
        fail(str(error), EXIT_BUILD, is_verbose=is_verbose)
    except LambdaDenoSpawnError as error:
        fail(str(error), EXIT_FAILED, is_verbose=is_verbose)
    except UnicodeEncodeError as error:
        fail(
            f"Cannot use {str(error.object)[:NAME_SHOWN]!r}: it is not UTF-8",
            EXIT_USAGE,
            is_verbose=is_verbose,
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            name = str(error.filename)
            fail(
                f"Cannot use {name[:NAME_SHOWN]!r}…: it has {len(name)} characters, "
                "which is too long for a path",
                EXIT_USAGE,
                is_verbose=is_verbose,
            )
        if isinstance(error, PermissionError) and error.filename is not None:
            fail(
                f"Cannot use {os.fsdecode(error.filename)!r}: permission denied; give "
                "this user access to it, or name another file or folder",
                EXIT_USAGE,
                is_verbose=is_verbose,
            )
        fail(
            f"Cannot complete the command: {type(error).__name__}: {error}; "
            "run it again with --verbose to see where this arose",
            EXIT_FAILED,
            is_verbose=is_verbose,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_surroundings() -> None:
    """Make up for what the shell has closed, as far as a command can do without it.

    Raises:
        UsageError: stdout is closed, or the working folder has been removed.
    """
    for number, name, mode in ((0, "stdin", "r"), (2, "stderr", "w")):
        if getattr(sys, name) is None:  # <&-, 2>&-
            _reserve(number)
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
    if sys.stdout is None:
        raise UsageError("Cannot print a result: stdout is closed; open it")
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError(
            "Cannot use the working folder: it has been removed; change to another"
        ) from None


def _reserve(number: int) -> None:
    """Open a descriptor that is closed, so that no other file or program gets it."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _terminations() -> tuple[type[BaseException], ...]:
    """Return what SIGTERM raises; called for an exception, as asyncio is slow."""
    from asyncio import CancelledError

    return (CancelledError, Terminated)


def _end_by(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """Let signals raise ``Terminated``; return their previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def terminate(_number: int, _frame: object) -> NoReturn:
        raise Terminated

    return {number: signal.signal(number, terminate) for number in numbers}


def confirm(question: str) -> bool:
    """Ask a question on the terminal; Enter alone means no.

    Typer's prompt is not used because it writes to stdout, which is for the result.

    Raises:
        typer.Exit: Ctrl-C or Ctrl-D was pressed.
    """
    while True:
        try:
            sys.stderr.write(f"{question} [y/N]: ")
            sys.stderr.flush()
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line.endswith("\n"):  # Ctrl-D, even after a part of an answer
            print("\nInterrupted: nothing was changed", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED)
        answer = line.strip().lower()
        if answer in ("y", "yes"):
            return True
        if answer in ("", "n", "no"):
            return False


def fail(message: str, exit_code: int, *, is_verbose: bool) -> NoReturn:
    """Print an error message, with the traceback if verbose, and exit."""
    if is_verbose:
        traceback.print_exc()
    print(message, file=sys.stderr)
    raise typer.Exit(exit_code)

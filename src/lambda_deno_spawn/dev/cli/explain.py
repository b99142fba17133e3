"""The command ``explain``: where its text comes from, and how explanations are shown.

Knows the sources and the output. Does not know any error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import EXIT_FAILED, Output, exit_codes
from lambda_deno_spawn.dev.cli.events import read_file, read_text
from lambda_deno_spawn.dev.cli.modes import Mode, refuse_ignored
from lambda_deno_spawn.dev.cli.options import (
    ProfileOption,
    RegionOption,
    StageOption,
    VerboseOption,
)
from lambda_deno_spawn.dev.cli.pages import DOCUMENTATION
from lambda_deno_spawn.dev.doctor.explain import explain as explained
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from lambda_deno_spawn.dev.doctor.explain import Explanation

SINCE = "1h"
TEXT = Mode("without --logs", "a text")
LOGS = Mode("with --logs", "a log in AWS", "leave {} out, or add --logs FUNCTION")


def explain(
    context: typer.Context,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT|FILE|last|-",
            help="An error or a log: as text, in a file (with or without @), from "
            "stdin, or from the last recorded failure.  [default: stdin; on a "
            "terminal, last]",
        ),
        TEXT,
    ] = None,
    *,
    logs: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="Read the log of this function in AWS: its name, its ARN, or its "
            "local folder.",
        ),
        LOGS,
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help=f"With --logs: how far back: 90s, 10m, 2h, 1d.  [default: {SINCE}]",
        ),
        LOGS,
    ] = None,
    stage: Annotated[StageOption, LOGS] = None,
    region: Annotated[RegionOption, LOGS] = None,
    profile: Annotated[ProfileOption, LOGS] = None,
    verbose: Annotated[VerboseOption, TEXT, LOGS] = False,
    output: Annotated[
        Output,
        typer.Option("-o", "--output", help="text: for people; json: an object."),
        TEXT,
        LOGS,
    ] = Output.TEXT,
) -> None:
    """Say why something does not work: what the errors in a log mean.

    Shows the cause of each known error, what to do, what to set, and the page with
    more details. `doctor` finds problems before they cause errors. Exit code 0: at
    least one error is known; 1: none is.
    """
    with exit_codes(is_verbose=verbose):
        if logs is not None:
            refuse_ignored(context, LOGS)
            content = _log_in_aws(logs, since or SINCE, stage, region, profile)
            _show(explained(content), output)
        else:
            refuse_ignored(context, TEXT)
            _show(explained(_text(text)), output)


def _show(found: Sequence[Explanation], output: Output) -> None:
    """Print explanations; exit with 1 if there are none."""
    if output is Output.JSON:
        fields = [
            {"seen": each.seen, **asdict(each.entry), "setting": each.setting}
            for each in found
        ]
        print(json.dumps({"ok": bool(found), "explanations": fields}))
    else:
        write_explanations(found, sys.stdout)
    sys.stdout.flush()
    if not found:
        raise typer.Exit(EXIT_FAILED)


def _text(text: str | None) -> str:
    """Return the text to explain.

    Raises:
        UsageError: There is none, or it is the name of a folder.
    """
    content = _given(text)
    if not content.strip():
        raise UsageError(
            "Cannot explain an empty text: give an error, the file of a log, or --logs "
            "FUNCTION for a function in AWS"
        )
    if text is not None and is_folder(text):
        raise UsageError(
            f"Cannot explain {text!r}: it is a folder; `lambda-deno-spawn doctor` "
            "checks the function in it, and --logs reads its log in AWS"
        )
    return content


def is_folder(text: str) -> bool:
    """Return whether a text is the path of a folder; most texts are none."""
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _given(text: str | None) -> str:
    if text == "last" or (text is None and sys.stdin.isatty()):
        return _last_failure()
    if text is None:
        return read_text("-", "TEXT")
    # A name of one line; an error may be longer than any path.
    if len(text) < 256 and "\n" not in text and Path(text).is_file():
        return read_file(text, "TEXT").decode(errors="replace")
    return read_text(text, "TEXT")


def _last_failure() -> str:
    """Return the outcome and the log of the newest recording of a failure."""
    from lambda_deno_spawn.dev.recording.store import folder, recent

    where = folder(os.environ)
    for stored in recent(where, 100):
        outcome = stored.form["outcome"]
        if outcome.get("kind") == "error":
            print(f"The last failure is in {str(stored.path)!r}", file=sys.stderr)
            return "\n".join(_strings([outcome, stored.form.get("log")]))
    raise UsageError(
        "Cannot explain: no error is given, and no failure is recorded; give its text "
        "or the file of a log, or --logs FUNCTION for a function in AWS"
    )


def _strings(value: object) -> list[str]:
    """Return all texts in a JSON value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def _log_in_aws(
    function: str,
    since: str,
    stage: str | None,
    region: str | None,
    profile: str | None,
) -> str:
    from lambda_deno_spawn.dev.aws.remote_logs import (
        find_log_group,
        parse_since,
        read_log,
    )
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.aws.target import check_account, check_ambiguity
    from lambda_deno_spawn.dev.project.target import find_target

    target = find_target(function, stage=stage)
    since_epoch_ms = round((time.time() - parse_since(since)) * 1000)
    aws = Aws(target.choose_region(region), profile)
    check_account(aws, target)
    check_ambiguity(aws, target)
    log_group = find_log_group(aws, target.name)
    events = read_log(aws, log_group, since_epoch_ms=since_epoch_ms)
    text = "\n".join(event.message for event in events)
    if not text:
        print(
            f"There are no entries in {log_group!r} of the last {since}; --since 1d "
            "looks further back",
            file=sys.stderr,
        )
    return text


def write_explanations(found: Sequence[Explanation], stream: TextIO) -> None:
    """Write what each error in a text means, and what to do about it."""
    for each in found:
        entry = each.entry
        stream.write(f"{each.seen}\n  why: {entry.why}\n  do:  {entry.do}\n")
        if each.setting:
            stream.write(f"  set: {each.setting}\n")
        stream.write(f"  see: {_address(entry.page)}\n\n")
    if not found:
        stream.write(
            "No error in this text is known. Known errors are listed at "
            f"{_address('troubleshooting.md')}\n"
            "`lambda-deno-spawn doctor FUNCTION` checks the function itself.\n"
        )


def _address(page: str) -> str:
    """Return where a page of docs/ is published."""
    path, _, anchor = page.partition("#")
    address = f"{DOCUMENTATION}/{path.removesuffix('.md')}/"
    return f"{address}#{anchor}" if anchor else address

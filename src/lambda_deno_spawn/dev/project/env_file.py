"""Files with environment variables, one ``NAME=VALUE`` a line: ``--env-file``.

Knows the grammar of ``deno run --env-file``: an accepted file gives the same values as
there. A line that Deno would skip, cut short or fill in without a word is refused.
Messages name lines, never their text: each may be part of a secret. Does not know the
commands. Specification: docs/stages.md, "Files of variables"; Deno manual, "Environment
variables".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.project.function import (
    RESERVED_VARIABLES,
    parse_variables,
    variable_problem,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUOTES = "\"'`"
NAME = re.compile(r"[ \t]*(?:export +)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
# A backslash keeps a quote from ending the value, and stays in it.
QUOTED = {
    quote: re.compile(rf"{quote}((?:\\{quote}|[^{quote}])*){quote}") for quote in QUOTES
}
REST = re.compile(r"[ \t]*(?:#.*)?$", re.MULTILINE)
LINE = re.compile(r".*")
REFERENCE = re.compile(r"\\\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_]\w*)|\$")
KEEP = "single quotes around the value keep it as it is"


def given_variables(
    env_files: Sequence[Path] | None, assignments: Sequence[str] | None
) -> dict[str, str]:
    """Return the variables of ``--env-file`` and ``--env``; the latter come first.

    Raises:
        UsageError: A file or an assignment cannot be used.
    """
    return {**read_env_files(env_files or ()), **parse_variables(assignments or [])}


def read_env_files(paths: Sequence[Path]) -> dict[str, str]:
    """Return the variables in files; those of a later file replace earlier ones.

    Raises:
        UsageError: A file cannot be read, has another form, or sets a variable that
            Lambda does not accept.
    """
    variables: dict[str, str] = {}
    for path in paths:
        variables |= parse_env_file(_read(path), str(path))
    return variables


def _read(path: Path) -> str:
    # Not seekable, perhaps: a pipe from a program that decrypts the file.
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        state = (error.strerror or type(error).__name__).lower()
        raise UsageError(
            f"Cannot read the file {str(path)!r} of --env-file: {state}; give the path "
            "of a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Cannot use the file {str(path)!r} of --env-file: it is not UTF-8; save "
            "it as UTF-8"
        ) from error


def parse_env_file(text: str, shown: str) -> dict[str, str]:
    """Return the variables in the text of a file.

    Args:
        text: The file's content.
        shown: The file's name, for messages.

    Raises:
        UsageError: The text has another form, or sets a variable that Lambda does not
            accept.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    variables: dict[str, str] = {}
    place = 0
    while place < len(text):
        line = LINE.match(text, place)
        assert line is not None  # it matches the empty text, too
        content = line[0].strip()
        if not content or content.startswith("#"):
            place = line.end() + 1
            continue
        try:
            name, value, end = _assignment(text, place, variables)
        except ValueError as error:
            number = text.count("\n", 0, place) + 1
            raise UsageError(f"Cannot use {shown!r}: line {number}: {error}") from None
        variables[name] = value
        place = end + 1
    return variables


def _assignment(
    text: str, start: int, variables: Mapping[str, str]
) -> tuple[str, str, int]:
    """Return name and value of an assignment, and where it ends.

    Raises:
        ValueError: The assignment cannot be used; the text says why.
    """
    head = NAME.match(text, start)
    if head is None:
        raise ValueError(
            "it is not NAME=VALUE; write a value of several lines in quotes, and a "
            "comment after #"
        )
    name, value, end = head[1], *_value(text, head.end())
    quote = text[head.end() : head.end() + 1]
    if quote not in ("'", "`"):
        value = _filled_in(value, variables)
    if name in variables:
        raise ValueError(
            "the variable is set above in this file already; remove one of the lines"
        )
    if problem := variable_problem(name, value):
        # Print the name only if it is one of AWS's own; it may belong to a secret.
        is_known = name in RESERVED_VARIABLES
        raise ValueError(
            problem if is_known else problem.replace(repr(name), "of the variable")
        )
    return name, value, end


def _value(text: str, start: int) -> tuple[str, int]:
    """Return a value without its quotes and comment, and where its line ends."""
    quote = text[start : start + 1]
    if quote and quote in QUOTES:
        found = QUOTED[quote].match(text, start)
        if found is None:
            raise ValueError("a value begins with a quote that does not end")
        rest = REST.match(text, found.end())
        if rest is None:
            raise ValueError(
                "there is text after the closing quote; quote the whole value"
            )
        value = found[1]
        return (value.replace("\\n", "\n") if quote == '"' else value), rest.end()
    line = LINE.match(text, start)
    assert line is not None  # it matches the empty text, too
    value, mark, _ = line[0].partition("#")
    if mark and value and not value[-1].isspace():
        raise ValueError(
            "a # in a value begins a comment for some tools and not for others; quote "
            "the value, or put a space before the comment"
        )
    return value.strip(), line.end()


def _filled_in(value: str, variables: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` by variables that are set above."""

    def replacement(found: re.Match[str]) -> str:
        if found[0] == "\\$":
            return "$"
        name = found[1] or found[2]
        if name is None:
            raise ValueError(f"there is a $ without the name of a variable; {KEEP}")
        if name not in variables:
            raise ValueError(
                "a $ is followed by the name of a variable that is not set above in "
                f"this file; {KEEP}"
            )
        return variables[name]

    return REFERENCE.sub(replacement, value)

"""The page of commands: arguments, options and defaults from Typer's own tree.

Knows one or more examples of each command; a test parses them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer
from docs.site.reference.markdown import ReferenceGapError, code, complete, table
from typer.main import get_command

from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.dev.cli.console import EXIT_CODES
from lambda_deno_spawn.dev.cli.pages import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "lambda-deno-spawn"
# What Typer adds to a help text: a default, a range, or both in one pair of brackets.
ADDED = re.compile(
    r"\s*\[(?:default: (?P<default>[^\]]*?))?(?:; )?"
    r"(?P<range>(?:\d+<=)?x[<>]=\d+)?(?P<required>required)?\]"
)
# What Typer shows for a value that has no name.
TYPE_NAME = re.compile(r"<(?:str|int|float|path|file|filename)(?: range)?>")
# By command; each line is a comment and what follows the program's name.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "invoke": (
        (
            "the function in this folder, with an event from a file",
            ". --event @event.json",
        ),
        (
            "with a sample event, in half the memory",
            ". --event sqs --memory 256",
        ),
        ("the deployed function", "--remote orders --event @event.json"),
    ),
    "doctor": (
        ("this machine and a function", "."),
        ("what a hostile event leaves for the next one", "--isolation"),
    ),
    "new": (("a web API with Hono", "orders --template http"),),
    "init": (
        ("the app in this folder", ""),
        ("what it would do in another folder", "orders --dry-run"),
    ),
    "build": (
        ("into dist/", "."),
        ("type-checked and minified, for Graviton", ". --check --minify --arch arm64"),
    ),
    "bench": (("40 events for each way", ". --event @event.json --events 40"),),
    "dev": (
        ("one function, on port 3000", "."),
        ("two, and record failures", "orders users --record failures"),
    ),
    "call": (
        ("a function served by dev", "orders /hello/Ada"),
        ("the URL of a deployed function, signed", "orders /hello/Ada --remote"),
    ),
    "deno": (("a task of deno.json", "task test"),),
    "events": (
        ("list the samples", ""),
        ("print one", "sqs"),
    ),
    "layer build": (("both layers, for both architectures", "--arch both"),),
    "layer publish": (("after layer build", ""),),
    "layer list": (("in one region", "--region eu-central-1"),),
    "layer delete": (("what would be deleted", "--keep 2 --dry-run"),),
    "deploy": (
        ("the function in this folder", "."),
        ("with a URL, without asking", ". --function-url --yes"),
        ("what would change", ". --dry-run"),
    ),
    "delete": (("the function named in lambda.toml", ". --yes"),),
    "logs": (("as it is written", "orders --follow"),),
    "replay": (("the newest recording", "last"),),
    "explain": (
        ("one error", "'NotCapable: Requires net access'"),
        ("a log from a file", "@log.txt"),
    ),
}


def commands_page() -> str:
    """Return docs/reference/commands.md without its frame.

    Raises:
        ReferenceGapError: A command has no example, an option no help.
    """
    command = get_command(app)
    context = typer.Context(
        command, info_name=PROGRAM, help_option_names=["-h", "--help"]
    )
    found = list(leaves(command, context))
    names = [path(inner) for _, inner in found]
    complete("example of", names, {name: str(EXAMPLES[name]) for name in EXAMPLES})
    lines = [
        f"    {context.command_path} {usage(command, context)}",
        "",
        options(command, context),
        "",
        "## Exit codes",
        "",
        table(["Code", "Meaning"], ([code(n), text] for n, text in EXIT_CODES.items())),
        "",
        "A command that gives a code a more specific meaning says so below.",
    ]
    for leaf, inner in sorted(found, key=lambda each: names.index(path(each[1]))):
        lines += ["", *section(leaf, inner)]
    return "\n".join(lines)


def leaves(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Return each command that does something, with its context."""
    children = getattr(command, "commands", None)
    if children is None:
        yield command, context
        return
    for name, child in children.items():
        if not child.hidden:
            inner = typer.Context(child, info_name=name, parent=context)
            yield from leaves(child, inner)


def path(context: Any) -> str:
    """Return the words of a command behind the program's name."""
    return str(context.command_path).partition(" ")[2]


def usage(command: Any, context: Any) -> str:
    """Return arguments and options in short."""
    return " ".join(command.collect_usage_pieces(context))


def section(command: Any, context: Any) -> Iterator[str]:
    """Return what the page says about one command."""
    name = path(context)
    yield from [f"## {name}", ""]
    yield from [escaped((command.help or "").replace("\b", "")).strip(), ""]
    yield from [f"    {PROGRAM} {name} {usage(command, context)}", ""]
    yield "```sh"
    for comment, words in EXAMPLES[name]:
        yield f"{PROGRAM} {name} {words}".rstrip() + f" # {comment}"
    yield from ["```", ""]
    yield options(command, context)
    if name not in PAGES:
        return
    page, _, anchor = PAGES[name].partition("#")
    target = f"../{page.rstrip('/')}.md" + (f"#{anchor}" if anchor else "")
    yield from ["", f"Guide: [{page.rstrip('/')}]({target})"]


def options(command: Any, context: Any) -> str:
    """Return the table of arguments and options; empty: there are none."""
    parameters = [
        parameter
        for parameter in command.get_params(context)
        if not getattr(parameter, "hidden", False)
        and (context.parent is None or parameter.name != "help")
    ]
    records = [
        record
        for parameter in parameters
        if (record := parameter.get_help_record(context)) is not None
    ]
    complete(
        f"option of {path(context) or PROGRAM}",
        [name for name, _ in records],
        {record[0]: row(record)[1] for record in records},
    )
    for name, _ in records:
        if TYPE_NAME.search(name):
            raise ReferenceGapError(f"Cannot describe {name}: it has no metavar")
    if not records:
        return "All arguments are passed on."
    return table(["Option", "Meaning", "Default"], map(row, records))


def row(record: tuple[str, str]) -> list[str]:
    """Return name, meaning and default of an option."""
    name, text = (" ".join(part.split()) for part in record)
    default = ""
    for found in ADDED.finditer(text):
        if found["default"]:
            default = escaped(found["default"])
        if found["required"]:
            default = "required"
    meaning = escaped(ADDED.sub(lambda added: ranged(added["range"]), text))
    # A bar would end the cell, also inside backticks.
    spelled = name.replace("<", "&lt;").replace("|", "&#124;")
    return [f"<code>{spelled}</code>", meaning, default]


def ranged(limits: str | None) -> str:
    """Return the range of a number in words."""
    if limits is None:
        return ""
    least, _, rest = limits.rpartition("<=x")
    number = re.sub(r"\D", "", rest)
    if limits.startswith("x>="):
        return f" At least {number}."
    return f" From {least} to {number}." if least else f" At most {number}."


def escaped(text: str) -> str:
    """Return text of a terminal as Markdown; what is in backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [
        part.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_")
        for part in parts[::2]
    ]
    return "".join(parts)

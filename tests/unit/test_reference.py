"""The reference: it describes all that the code has, and its pages are up to date."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from docs.site.reference import __main__ as reference
from docs.site.reference import (
    commands,
    errors,
    keys,
    markdown,
    metrics,
    settings,
    types,
)
from docs.site.reference.markdown import ReferenceGapError
from typer.main import get_command

from lambda_deno_spawn import config
from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.serving.metrics import EMF_METRICS
from tests.fixtures.pages import DOCS, PAGES, ROOT
from tests.fixtures.pages import commands as commands_on

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND: Any = get_command(app)
UsageError = typer.BadParameter.__bases__[0]  # wherever Typer has it from


def test_every_page_is_as_the_code_has_it() -> None:
    stale = [
        path.name
        for path, text in reference.pages().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run: make reference"


@pytest.mark.parametrize(
    ("write", "module", "name", "key"),
    [
        (settings.settings_table, settings, "ROWS", "LAMBDA_DENO_WARM"),
        (metrics.metrics_table, metrics, "MEANINGS", "idleMs"),
        (metrics.metrics_table, metrics, "DERIVED", "warm"),
        (keys.keys_tables, keys, "KEYS", "memory"),
        (keys.keys_tables, keys, "IN_TABLES", "vpc.ipv6"),
        (keys.keys_tables, keys, "IN_EVENTS", "events.filters"),
        (commands.commands_page, commands, "EXAMPLES", "logs"),
        (types.types_page, types, "GROUPS", "Streams"),
    ],
)
def test_what_is_not_described_is_named(
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[], object],
    module: object,
    name: str,
    key: str,
) -> None:
    described = {**getattr(module, name)}
    del described[key]
    monkeypatch.setattr(module, name, described)
    with pytest.raises(ReferenceGapError):
        write()


def test_a_new_error_type_needs_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    found = errors.error_types()
    assert {"Runtime.ExitError", "Runtime.ServerClosed"} <= found  # of Python, of JS
    monkeypatch.setattr(errors, "error_types", lambda: {*found, "Runtime.NewError"})
    with pytest.raises(ReferenceGapError, match=r"Runtime\.NewError"):
        errors.errors_table()


def test_a_choice_without_a_line_in_the_docstring_is_named() -> None:
    class Choice(Enum):
        """A choice.

        Attributes:
            ONE: The first.
        """

        ONE = "one"
        TWO = "two"

    with pytest.raises(ReferenceGapError, match="TWO"):
        settings.choices(Choice)


def test_an_option_without_help_is_named() -> None:
    broken = typer.Typer()

    @broken.command()
    def run(wanted: str = typer.Option("x")) -> None: ...

    command = get_command(broken)
    with pytest.raises(ReferenceGapError, match="--wanted"):
        commands.options(command, typer.Context(command, info_name="run"))


def test_an_option_whose_value_has_no_name_is_named() -> None:
    broken = typer.Typer()

    @broken.command()
    def run(wanted: int = typer.Option(1, min=0, help="How many.")) -> None: ...

    command = get_command(broken)
    with pytest.raises(ReferenceGapError, match="--wanted <int range>"):
        commands.options(command, typer.Context(command, info_name="run"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (name, words)
        for name, examples in commands.EXAMPLES.items()
        for _, words in examples
    ],
)
def test_an_example_has_arguments_that_its_command_takes(name: str, words: str) -> None:
    parse(f"{name} {words}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_is_one_that_the_command_line_takes(page: Path) -> None:
    for line in commands_on(page.read_text(encoding="utf-8")):
        parse(line)


def parse(line: str) -> None:
    """Let a command parse its arguments, without running it."""
    command = COMMAND
    context = typer.Context(
        command, info_name=commands.PROGRAM, help_option_names=["-h", "--help"]
    )
    words = shlex.split(line)
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            return
        command = command.commands[words.pop(0)]
    with contextlib.suppress(typer.Exit):  # --help
        command.make_context("command", words, parent=context)


@pytest.mark.parametrize("line", ["invoke . --evnt {}", "deploy a b", "layer bild"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises((UsageError, KeyError)):
        parse(line)


def test_a_table_is_written_as_markdown() -> None:
    assert markdown.table(["A", "B"], [["a | b", "two\nlines"]]).splitlines() == [
        "| A | B |",
        "| --- | --- |",
        "| a &#124; b | two lines |",
    ]


@pytest.mark.parametrize(
    ("help_text", "shown"),
    [
        ("Port.  [default: 3000; 0<=x<=65535]", ["Port. From 0 to 65535.", "3000"]),
        ("Time. [default: 3] [x<=900]", ["Time. At most 900.", "3"]),
        ("Stage, [stage.NAME].", ["Stage, [stage.NAME].", ""]),
        ("Name.  [required]", ["Name.", "required"]),
    ],
)
def test_default_and_range_are_told_apart(help_text: str, shown: list[str]) -> None:
    assert commands.row(("--it", help_text))[1:] == shown


def test_every_variable_of_the_platform_that_is_read_is_on_the_page() -> None:
    source = Path(config.__file__).read_text(encoding="utf-8")
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    families = re.findall(r"`(AWS_\w+_)\*`", page)
    read = set(re.findall(r'"((?:AWS|LAMBDA_TASK)_[A-Z_]+|_HANDLER)"', source))
    missing = {
        name
        for name in read
        if f"`{name}`" not in page and not name.startswith(tuple(families))
    }
    assert missing <= {"AWS_"}  # a prefix


def test_the_dashboard_and_the_alarms_use_metrics_that_exist() -> None:
    page = (DOCS / "guides" / "observability.md").read_text(encoding="utf-8")
    template = page.partition('title="monitoring.yaml"\n')[2].partition("```")[0]
    body = re.sub(r"\$\{[\w:]+\}", "x", template.partition("DashboardBody: !Sub |")[2])
    shown = {
        metric[1]
        for widget in json.loads(body)["widgets"]
        for metric in widget["properties"]["metrics"]
    }
    alarms = set(re.findall(r"MetricName: (\w+)", template))
    written = {name for name, *_ in EMF_METRICS} | {*metrics.DERIVED.values()}
    assert shown | alarms <= written
    assert {"WaitTime", "Errors"} <= shown & alarms

"""Help: its options, the page at its end, and the commands that other tools have."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.dev.cli.pages import DOCUMENTATION, PAGES, SYNONYMS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[4]
PASSED_ON = "deno"  # its help is that of Deno


def commands(group: Any, name: str = "") -> Iterator[str]:
    yield name
    for word, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {word}".strip())


NAMES = list(commands(get_command(app)))


def run(*arguments: str) -> tuple[int, str]:
    finished = CliRunner().invoke(app, list(arguments))
    return finished.exit_code, finished.output


@pytest.mark.parametrize("name", [name for name in NAMES if name != PASSED_ON])
def test_short_help_ends_with_a_page_that_exists(name: str) -> None:
    code, text = run(*name.split(), "-h")
    assert code == 0
    assert run(*name.split(), "--help") == (0, text)
    last = text.rstrip().splitlines()[-1]
    found = re.fullmatch(rf" *Documentation: {DOCUMENTATION}/(\S*)", last)
    assert found is not None, last
    page, _, anchor = found[1].partition("#")
    place = f"docs/{page.removesuffix('/')}.md" if page else "README.md"
    file = ROOT / place
    lines = file.read_text().splitlines()
    headings = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    anchors = [
        re.sub(r"[^\w -]", "", item.lower()).replace(" ", "-") for item in headings
    ]
    assert not anchor or anchor in anchors


def test_every_page_is_that_of_a_command() -> None:
    assert set(PAGES) <= set(NAMES)


def test_address_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Documentation"] == DOCUMENTATION


def test_version_has_a_short_option() -> None:
    assert run("-V") == run("--version") == (0, f"lambda-deno-spawn {__version__}\n")


@pytest.mark.parametrize("word", SYNONYMS)
def test_command_of_another_tool_is_answered_with_ours(word: str) -> None:
    code, said = run(word)
    assert code == 2
    if SYNONYMS[word] in NAMES:
        assert f"No such command {word!r}. Did you mean {SYNONYMS[word]!r}?" in said

"""Arguments that are empty, because a variable of the shell is not set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.main import get_command

from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.dev.cli.pages import MAY_BE_EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator


def leaves(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(words), command
        return
    for name in children:
        yield from leaves(children[name], *words, name)


CASES = [
    pytest.param(command, parameter, id=f"{words} {parameter.name}")
    for words, command in leaves(get_command(app))
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and parameter.name not in MAY_BE_EMPTY
]


@pytest.mark.parametrize(("command", "parameter"), CASES)
def test_an_empty_value_is_refused_by_name(command: Any, parameter: Any) -> None:
    given = [name for name in parameter.opts if name.startswith("-")][:1]
    if not given:
        arguments = [item for item in command.params if item.opts[0][0] != "-"]
        given = ["x"] * arguments.index(parameter)
    with pytest.raises(typer.BadParameter, match="it is empty; give a value") as caught:
        command.make_context("command", [*given, ""])
    assert caught.value.param is parameter


def test_the_body_of_a_request_may_be_empty() -> None:
    command: Any = get_command(app)
    call = command.commands["call"]
    assert call.make_context("call", ["x", "--data", ""]).params["data"] == ""

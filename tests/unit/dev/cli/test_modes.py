"""Modes of a command: every option says where it applies, and is refused elsewhere."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from lambda_deno_spawn.dev.cli import app as cli
from lambda_deno_spawn.dev.cli import doctor, explain, invoke, replay
from lambda_deno_spawn.dev.cli.console import exit_codes
from lambda_deno_spawn.dev.cli.modes import Mode, modes_of, refuse_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMANDS: dict[str, Callable[..., Any]] = {
    "invoke": invoke.invoke,
    "doctor": doctor.doctor,
    "explain": explain.explain,
    "replay": replay.replay,
}
# The option that chooses a mode, with a value, and the modes without and with it.
SELECTORS = {
    "invoke": (["--remote", "orders"], invoke.LOCAL, invoke.REMOTE),
    "doctor": (["--isolation"], doctor.CHECKS, doctor.ISOLATION),
    "explain": (["--logs", "orders"], explain.TEXT, explain.LOGS),
    "replay": (["--list"], replay.RUN, replay.LIST),
}
VALUES = {float: "5", int: "256"}  # acceptable ones; text is "x"


def parameters(command: str) -> list[Any]:
    """Return the parameters of the real command, as the user meets them."""
    group: Any = get_command(cli.app)
    return [item for item in group.commands[command].params if item.name != "help"]


CASES = [
    pytest.param(command, item, id=f"{command}-{item.name}")
    for command in COMMANDS
    for item in parameters(command)
]


def as_given(command: str, parameter: Any) -> list[str]:
    """Return arguments that give a parameter a value of its type."""
    hint = get_type_hints(COMMANDS[command])[parameter.name]
    kind = next(kind for kind in (*get_args(hint), hint) if kind is not type(None))
    options = [name for name in parameter.opts if name.startswith("--")]
    if kind is bool:
        return options[:1]
    is_choice = isinstance(kind, type) and issubclass(kind, StrEnum)
    value = next(iter(kind)).value if is_choice else VALUES.get(kind, "x")
    if options:
        return [options[0], value]
    arguments = [item.name for item in parameters(command) if item.opts[0][0] != "-"]
    return ["x"] * (arguments.index(parameter.name) + 1)  # those before it, too


def run(*arguments: str) -> tuple[int, str]:
    finished = CliRunner().invoke(cli.app, list(arguments))
    return finished.exit_code, finished.stderr


@pytest.mark.parametrize(("command", "parameter"), CASES)
def test_every_parameter_declares_the_modes_in_which_it_applies(
    command: str, parameter: Any
) -> None:
    _, without, with_ = SELECTORS[command]
    declared = modes_of(COMMANDS[command])[parameter.name]
    assert declared, f"{parameter.name} of {command}: name its modes in its annotation"
    assert {*declared} <= {without, with_}


@pytest.mark.parametrize(("command", "parameter"), CASES)
def test_a_parameter_that_the_mode_ignores_is_refused_by_name(
    command: str, parameter: Any
) -> None:
    selector, without, with_ = SELECTORS[command]
    declared = modes_of(COMMANDS[command])[parameter.name]
    given = as_given(command, parameter)
    name = given[0] if given[0] != "x" else parameter.metavar.partition("|")[0]
    for mode, chosen in ((without, []), (with_, selector)):
        if mode in declared or given[0] == selector[0]:
            continue
        code, said = run(command, *chosen, *given)
        assert code == 2
        start = rf"Cannot use (\w+ and )?{name} {mode.chosen}: (it applies|they apply) "
        assert re.match(start, said)
        assert said.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_is_used_in_the_modes_that_it_declares(command: str) -> None:
    """A parameter that says it applies, and is read nowhere, would be ignored too."""
    function = COMMANDS[command]
    branches = dict(branches_of(function))
    assert len(branches) == 2
    for name, modes in modes_of(function).items():
        for mode in modes:
            used = branches[mode.chosen]
            assert name in used, f"{name} of {command} is ignored {mode.chosen}"


def branches_of(function: Callable[..., Any]) -> Iterator[tuple[str, set[str]]]:
    """Yield for each mode the names that are read where it was chosen.

    A branch begins with ``refuse_ignored(context, MODE)``; names read before it, such
    as the option that chose, are those of every mode.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    body = next(node for node in ast.walk(tree) if isinstance(node, ast.With))
    before = names_in(*body.items)
    for node in ast.walk(body):
        for block in blocks_of(node):
            for index, statement in enumerate(block):
                if (mode := mode_checked_by(statement)) is not None:
                    chosen = names_in(node.test) if isinstance(node, ast.If) else set()
                    yield mode.chosen, before | chosen | names_in(*block[index:])


def blocks_of(node: ast.AST) -> Iterator[list[ast.stmt]]:
    match node:
        case ast.If(body=body, orelse=otherwise):
            yield from (body, otherwise)
        case ast.With(body=body):
            yield body


def names_in(*nodes: ast.AST) -> set[str]:
    walked = (node for top in nodes for node in ast.walk(top))
    return {node.id for node in walked if isinstance(node, ast.Name)}


def mode_checked_by(statement: ast.AST) -> Mode | None:
    match statement:
        case ast.Expr(ast.Call(ast.Name("refuse_ignored"), [_, ast.Name(name)])):
            modules = (doctor, explain, invoke, replay)
            mode = next(filter(None, (getattr(item, name, None) for item in modules)))
            assert isinstance(mode, Mode)
            return mode
    return None


def test_several_ignored_parameters_are_one_sentence() -> None:
    code, said = run("invoke", "--remote", "orders", "--memory", "256", "--env", "A1=1")
    assert code == 2
    assert said == (
        "Cannot use --memory and --env with --remote: they apply only to a function on "
        "this machine; leave them out\n"
    )


def test_a_value_that_is_the_default_is_given_all_the_same() -> None:
    assert run("doctor", "--isolation", "--handler", "")[0] == 2


def test_a_parameter_without_a_declaration_is_an_error_of_the_command() -> None:
    app = typer.Typer()

    @app.command()
    def hello(context: typer.Context, *, trace_id: str | None = None) -> None:
        with exit_codes(is_verbose=False):
            refuse_ignored(context, invoke.LOCAL)
            assert trace_id is None

    assert CliRunner().invoke(app, []).exit_code == 0
    finished = CliRunner().invoke(app, ["--trace-id", "Root=1"])
    assert finished.exit_code == 1
    assert "--trace-id does not declare the modes" in finished.stderr


def test_modes_are_read_beside_typers_own_declaration() -> None:
    def hello(
        both: Annotated[str, typer.Option(), invoke.LOCAL, invoke.REMOTE], none: str
    ) -> None: ...

    assert modes_of(hello) == {
        "both": [invoke.LOCAL, invoke.REMOTE], "none": [], "return": [],
    }  # fmt: skip

"""Modes of a command: which of its parameters have an effect in each of them.

Knows how a parameter declares its modes (in its annotation, beside Typer's), and how to
reject one that the chosen mode would ignore. Does not know any command. A parameter
without a declaration is a programming error, found at run time and by
tests/unit/dev/cli/test_modes.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

GIVEN = frozenset({"COMMANDLINE", "ENVIRONMENT", "PROMPT"})  # ParameterSource


@dataclass(frozen=True, slots=True)
class Mode:
    """One of the ways in which a command runs.

    Attributes:
        chosen: How the mode is chosen, for messages: "with --remote".
        applies_to: What the parameters of only this mode apply to, for messages.
        advice: What to do about such a parameter in another mode.
    """

    chosen: str
    applies_to: str
    advice: str = "leave {} out"


def modes_of(command: Callable[..., Any]) -> dict[str, list[Mode]]:
    """Return the modes that each parameter of a command declares, in their order."""
    return {
        name: [item for item in getattr(hint, "__metadata__", ()) if is_mode(item)]
        for name, hint in get_type_hints(command, include_extras=True).items()
    }


def is_mode(item: object) -> bool:
    """Return whether an item of an annotation declares a mode."""
    return isinstance(item, Mode)


def refuse_ignored(context: typer.Context, mode: Mode) -> None:
    """Reject given parameters that a mode ignores.

    Args:
        context: Context of the running command.
        mode: The chosen mode.

    Raises:
        UsageError: There are such parameters; the message names each of them.
        TypeError: A given parameter does not declare its modes.
    """
    command = context.command
    assert command.callback is not None
    declared = modes_of(command.callback)
    ignored: list[str] = []
    owner = mode
    for parameter in command.params:
        variable = parameter.name or ""
        source = context.get_parameter_source(variable)
        if source is None or source.name not in GIVEN:
            continue
        modes = declared.get(variable)
        name = _spelling(parameter)
        if not modes:
            raise TypeError(f"{name} does not declare the modes in which it applies")
        if mode not in modes:
            ignored.append(name)
            owner = modes[0]
    if ignored:
        is_one = len(ignored) == 1
        raise UsageError(
            f"Cannot use {' and '.join(ignored)} {mode.chosen}: "
            f"{'it applies' if is_one else 'they apply'} only to {owner.applies_to}; "
            f"{owner.advice.format('it' if is_one else 'them')}"
        )


def _spelling(parameter: Any) -> str:
    """Return an option's long name, or (the first of) an argument's placeholders."""
    options = (name for name in parameter.opts if name.startswith("--"))
    placeholder = str(parameter.metavar or parameter.name).partition("|")[0]
    return str(next(options, placeholder))

"""Groups of commands, and the page of the documentation for each command.

Knows how a command is found by its name and imported, where the documentation is
published, and which page describes which command: its help ends with the address. Does
not know the commands' options.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

HERE = __name__.rpartition(".")[0]
# As in [project.urls] of pyproject.toml.
DOCUMENTATION = "https://lambda-deno-spawn.github.io"
ALL_COMMANDS = "reference/commands/"  # written from the help texts
PAGES = {
    "": "",
    "bench": "bench/",
    "build": "build/",
    "call": "dev/#call",
    "delete": "deploy/#delete",
    "deno": "project/#a-new-project",
    "deploy": "deploy/",
    "dev": "dev/",
    "doctor": "doctor/",
    "events": "project/#sample-events",
    "explain": "troubleshooting/",
    "init": "project/#a-folder-that-exists",
    "invoke": "guides/invoke/",
    "layer": "layers/",
    "layer build": "layers/",
    "layer delete": "layers/#deleting",
    "layer list": "deploy/#layers",
    "layer publish": "deploy/#layers",
    "logs": "deploy/#logs",
    "new": "project/#a-new-project",
    "replay": "replay/",
}
MAY_BE_EMPTY = frozenset({"data"})  # the body of a request
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# Names that other tools have for our commands.
SYNONYMS = {
    "check": "doctor",
    "create": "new",
    "debug": "explain",
    "destroy": "delete",
    "diagnose": "explain",
    "generate-event": "events",
    "layers": "layer",
    "package": "build",
    "remove": "delete",
    "run": "invoke",
    "serve": "dev",
    "start": "dev",
    "start-api": "dev",
    "tail": "logs",
    "test": "invoke",
    "troubleshoot": "explain",
    "watch": "dev",
    "why": "explain",
}


class Commands(TyperGroup):
    """A group whose commands are imported when they are asked for.

    It also knows what other tools call its commands.

    Attributes:
        group: Name of the group; empty for all commands.
        places: Module and function of each command, by its name.
    """

    group: ClassVar[str] = ""
    places: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Deferred(self.places, self._made, self.commands)

    def _made(self, name: str) -> Any:
        """Import a command; its module may declare ``SETTINGS`` for Typer."""
        module_name, _, function = self.places[name].partition(":")
        try:
            module = importlib.import_module(f"{HERE}.{module_name}")
        except KeyboardInterrupt:  # Typer would exit with 1
            sys.exit(130)
        return _command(
            getattr(module, function),
            name=name,
            epilog=page_epilog(f"{self.group} {name}".strip()),
            **getattr(module, "SETTINGS", {}),
        )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; suggest one if the word is that of another tool."""
        word = args[0]
        if word not in self.commands and SYNONYMS.get(word) in self.commands:
            ctx.fail(f"No such command {word!r}. Did you mean {SYNONYMS[word]!r}?")
        return super().resolve_command(ctx, args)


class Deferred(MutableMapping[str, Any]):
    """Values by name, made when they are asked for."""

    def __init__(
        self,
        names: Iterable[str],
        make: Callable[[str], Any],
        made: Mapping[str, Any],
    ) -> None:
        """Remember how to make values.

        Args:
            names: Names of the values that are not made yet.
            make: Returns the value for a name.
            made: Further values.
        """
        self._make = make
        self._values: dict[str, Any] = {**dict.fromkeys(names), **made}

    def __getitem__(self, name: str) -> Any:
        if self._values[name] is None:
            self._values[name] = self._make(name)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values  # without making it


def _command(function: Callable[..., Any], **settings: Any) -> Any:
    alone = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    alone.command(**settings)(function)
    command = get_command(alone)
    for parameter in command.params:
        if parameter.name not in MAY_BE_EMPTY:
            _refuse_empty(parameter)
    return command


def _refuse_empty(parameter: Any) -> None:
    """Have a parameter refuse a text that is empty.

    It comes from a variable that is not set, as in `delete "$NAME"`, and would be taken
    for the working folder, or for an option that is not given.
    """
    cast = parameter.type_cast_value

    def checked(context: Any, value: Any) -> Any:
        if "" in (value if isinstance(value, (list, tuple)) else (value,)):
            raise typer.BadParameter(
                "it is empty; give a value, or leave it out", context, parameter
            )
        return cast(context, value)

    parameter.type_cast_value = checked


def page_url(command: str) -> str:
    """Return the address of a command's page."""
    return f"{DOCUMENTATION}/{PAGES.get(command, ALL_COMMANDS)}"


def page_epilog(command: str) -> str:
    """Return the end of a command's help: the address of its page."""
    # After \b the text is not wrapped, which would break the address.
    return f"\b\nDocumentation: {page_url(command)}"

"""The page of the documentation for each command, named at the end of its help.

Knows where the documentation is published, and which page describes which command.
Does not know the commands' options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    import typer

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
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# What other tools call our commands.
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
    """A group that knows what other tools call its commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; suggest one if the word is that of another tool."""
        word = args[0]
        if word not in self.commands and SYNONYMS.get(word) in self.commands:
            ctx.fail(f"No such command {word!r}. Did you mean {SYNONYMS[word]!r}?")
        return super().resolve_command(ctx, args)


def page_url(command: str) -> str:
    """Return the address of a command's page."""
    return f"{DOCUMENTATION}/{PAGES.get(command, ALL_COMMANDS)}"


def name_pages(app: typer.Typer, group: str = "") -> None:
    """End the help of each command of a group with the address of its page."""
    for command in app.registered_commands:
        callback = command.callback
        name = command.name or (callback.__name__ if callback else "")
        command.epilog = _epilog(f"{group} {name}".strip())
    for item in app.registered_groups:
        if item.typer_instance is not None:
            item.epilog = _epilog(f"{group} {item.name}".strip())
            name_pages(item.typer_instance, f"{group} {item.name}".strip())


def _epilog(command: str) -> str:
    # After \b the text is not wrapped, which would break the address.
    return f"\b\nDocumentation: {page_url(command)}"

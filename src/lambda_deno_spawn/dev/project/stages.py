"""Stages of a project: tables in ``lambda.toml`` that change it for one deployment.

Knows how a stage's table is laid over the rest of the file, the name that its function
gets, and how two stages are kept from having the same one. Does not know the keys.
Specification: docs/stages.md.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEY = "stage"
STAGE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
STAGE_RULE = "1 to 32 lowercase letters, digits and -, with no - at either end"
# A reference to a secret is one value: it is replaced as a whole.
REFERENCE_MARK = "from"
NAME_LIMIT = 64  # of a function; AWS Lambda API reference, CreateFunction


@dataclass(frozen=True, slots=True)
class Stages:
    """A project file, taken apart.

    Attributes:
        file: The file, for messages.
        base: What holds without a stage.
        overlays: The table of each stage, by its name.
    """

    file: str
    base: Mapping[str, object] = field(default_factory=dict)
    overlays: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @classmethod
    def of(cls, file: str, content: Mapping[str, object]) -> Stages:
        """Take a parsed project file apart.

        Raises:
            UsageError: ``stage`` is not a table of tables, or has an invalid name.
        """
        base = dict(content)
        overlays = base.pop(KEY, {})
        if not isinstance(overlays, dict):
            raise UsageError(
                f"Cannot use {file!r}: {KEY} is {overlays!r}; expected tables such as "
                f"[{KEY}.prod]"
            )
        for name, overlay in overlays.items():
            if not STAGE_NAME.fullmatch(name):
                raise UsageError(
                    f"Cannot use {file!r}: a stage has the name {name!r}; expected "
                    f"{STAGE_RULE}"
                )
            if not isinstance(overlay, dict):
                raise UsageError(
                    f"Cannot use {file!r}: {KEY}.{name} is {overlay!r}; expected a "
                    f"table: [{KEY}.{name}] and lines KEY = value"
                )
            if KEY in overlay:
                raise UsageError(
                    f"Cannot use {file!r}: the stage {name!r} has stages of its own; "
                    f"write each stage as [{KEY}.NAME]"
                )
        return cls(file, base, overlays)

    def content(self, stage: str | None) -> dict[str, object]:
        """Return the keys of the file as they are in a stage.

        Args:
            stage: None: without a stage.

        Raises:
            UsageError: There is no such stage.
        """
        if stage is None:
            return dict(self.base)
        if stage not in self.overlays:
            raise self._unknown(stage)
        return merged(self.base, self.overlays[stage])

    def place_of(self, stage: str | None, key: str) -> str:
        """Return a key as it is in the file: ``memory`` or ``stage.prod.memory``."""
        overlay: object = self.overlays.get(stage, {}) if stage is not None else {}
        for part in key.split("."):
            if not isinstance(overlay, dict) or part not in overlay:
                return key
            overlay = overlay[part]
        return f"{KEY}.{stage}.{key}"

    def function_name(self, stage: str | None, base: str) -> str:
        """Return the name of a stage's function.

        Args:
            stage: None: without a stage.
            base: The name without a stage.

        Raises:
            UsageError: The name is too long, or another stage has it, too.
        """
        name = self._name(stage, base)
        if len(name) > NAME_LIMIT:
            raise UsageError(
                f"Cannot use {self.file!r}: in the stage {stage!r} the function's name "
                f"is {name!r}, which has {len(name)} characters, and Lambda accepts "
                f"{NAME_LIMIT}; set `name` in [{KEY}.{stage}]"
            )
        self.check_name(stage, name, base)
        return name

    def check_name(self, stage: str | None, name: str, base: str) -> None:
        """Reject a name that the function has in another stage.

        Raises:
            UsageError: Another stage has it: one would overwrite the other.
        """
        for other in (None, *self.overlays):
            if other != stage and self._name(other, base) == name:
                raise UsageError(
                    f"Cannot use the name {name!r} for the function "
                    f"{_shown(stage)}: it has this name {_shown(other)}, and "
                    f"{self.file!r} would overwrite one with the other; choose another "
                    "name"
                )

    def _name(self, stage: str | None, base: str) -> str:
        if stage is None:
            return base
        given = self.overlays[stage].get("name")
        return given if isinstance(given, str) else f"{base}-{stage}"

    def reject_unknown_keys(self, known: Iterable[str]) -> None:
        """Reject unknown keys, in all stages: most of them are typos.

        Args:
            known: The keys that there are.

        Raises:
            UsageError: There is an unknown key.
        """
        known = set(known)
        tables = {"": self.base}
        tables |= {
            f" in [{KEY}.{name}]": table for name, table in self.overlays.items()
        }
        for where, table in tables.items():
            for key in table:
                if key in known:
                    continue
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}? The" if near else "the"
                raise UsageError(
                    f"Cannot use {self.file!r}: the key {key!r}{where} is unknown; "
                    f"{hint} keys are {', '.join(sorted(known))}"
                )

    def _unknown(self, stage: str) -> UsageError:
        names = sorted(self.overlays)
        if not names:
            return UsageError(
                f"Cannot use --stage {stage}: {self.file!r} has no stages; add a table "
                f"[{KEY}.{stage}], or leave out --stage"
            )
        near = difflib.get_close_matches(stage, names, 1)
        hint = f"did you mean {near[0]}? The" if near else "the"
        return UsageError(
            f"Cannot use --stage {stage}: {self.file!r} has no such stage; {hint} "
            f"stages are {', '.join(names)}"
        )


def _shown(stage: str | None) -> str:
    return "without a stage" if stage is None else f"in the stage {stage!r}"


def merged(
    base: Mapping[str, object], overlay: Mapping[str, object]
) -> dict[str, object]:
    """Return a table with another one laid over it.

    Tables are merged key by key. Everything else, lists included, is replaced.
    """
    result = dict(base)
    for key, value in overlay.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            is_reference = REFERENCE_MARK in value
            value = value if is_reference else merged(below, value)
        result[key] = value
    return result

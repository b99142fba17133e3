"""Stand-ins for enum and contextlib before Deno runs, held against the originals."""

from __future__ import annotations

import contextlib
import enum
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambda_deno_spawn import early

SOURCE = Path(early.__file__)


@pytest.fixture(params=["stand-in", "original"])
def base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "stand-in":
        monkeypatch.delitem(sys.modules, "enum")
    return runpy.run_path(str(SOURCE))["StrEnum"]


def test_it_is_the_original_in_a_program_that_has_imported_enum(base: Any) -> None:
    assert (base is enum.StrEnum) is ("enum" in sys.modules)
    assert early.StrEnum is enum.StrEnum


def test_an_enumeration_of_texts_is_what_it_is_in_enum(base: Any) -> None:
    class Enumeration(base):  # type: ignore[misc]
        """Colours."""

        RED = "red"
        GREEN = "green"

    colour: Any = Enumeration
    red: Any = colour.RED
    assert list(colour) == ["red", "green"]
    assert len(colour) == 2
    assert isinstance(red, colour)
    assert (red.name, red.value) == ("RED", "red")
    assert isinstance(red, str)
    assert colour("red") is red
    assert red in colour
    assert f"{red} {red!s} {red!r}" == "red red <Enumeration.RED: 'red'>"
    assert " or ".join(colour) == "red or green"
    assert json.dumps({"colour": red}) == '{"colour": "red"}'
    assert {red: 1}["red"] == 1
    assert red != colour.GREEN
    assert colour.__doc__ == "Colours."
    others: list[object] = ["blue", "RED", None, 7, []]
    for other in others:
        with pytest.raises(ValueError, match=r"is not a valid .*Enumeration"):
            colour(other)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "x"), KeyError("x"), ValueError("x"), SystemExit(3)]
)
def test_suppress_forgets_the_same_errors(error: BaseException) -> None:
    def fail() -> None:
        raise error

    def outcome(suppress: Callable[..., Any]) -> object:
        with contextlib.suppress(ValueError, SystemExit):
            with suppress(OSError, KeyError):
                fail()
            return "suppressed"
        return "raised"

    stand_in = runpy.run_path(str(SOURCE))["suppress"]
    assert stand_in is not contextlib.suppress
    assert outcome(stand_in) == outcome(contextlib.suppress)

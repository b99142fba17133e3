"""What a command says of a function that has failed."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.cli.console import error_text

ELSEWHERE = "its error is on stdout"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"errorType": "T", "errorMessage": "m"}, "T: m"),
        (
            {"errorType": "ZodError", "errorMessage": "[\n  {}\n]\n"},
            "ZodError: [\n  {}\n]",
        ),
        ({"errorType": "T"}, "T"),
        ({}, ELSEWHERE),
        ("text", ELSEWHERE),
        (None, ELSEWHERE),
    ],
)
def test_an_error_is_shown_with_its_whole_message(error: object, expected: str) -> None:
    assert error_text(error, ELSEWHERE) == expected


@pytest.mark.parametrize("message", ["x" * 100_000, "x\n" * 10_000])
def test_a_long_message_is_shortened(message: str) -> None:
    shown = error_text({"errorType": "T", "errorMessage": message}, ELSEWHERE)
    assert len(shown) < 4_200
    assert shown.count("\n") < 50
    assert shown.endswith(f"\u2026 (shortened; {ELSEWHERE})")

"""What a command says of a function that has failed, and of an argument."""

from __future__ import annotations

import errno

import pytest
import typer

from lambda_deno_spawn.dev.cli.console import error_text, exit_codes

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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "a" * 500),
            "500 characters",
        ),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), "it is not UTF-8"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, exit_codes(is_verbose=False):
        raise error
    assert caught.value.exit_code == 2
    assert said in capsys.readouterr().err

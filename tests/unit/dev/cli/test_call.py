"""What `call` accepts as a header and as a method."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.cli.call import parse_header, parse_method
from lambda_deno_spawn.errors import UsageError


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("Accept: text/html", ("Accept", "text/html")),
        (" x-a :b:c ", ("x-a", "b:c")),
        ("Accept:", ("Accept", "")),
    ],
)
def test_a_header_is_a_name_and_a_value(text: str, header: tuple[str, str]) -> None:
    assert parse_header(text) == header


@pytest.mark.parametrize(
    "text", ["x", ": a", "a b: c", "a: \n", "a: ü", "ü: a", "a:\0"]
)
def test_what_is_not_a_header_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Cannot use --header"):
        parse_header(text)


def test_a_method_is_one_word() -> None:
    assert parse_method("delete") == "DELETE"
    for text in ("G T", "GÜT"):
        with pytest.raises(UsageError, match="Cannot use --request"):
            parse_method(text)

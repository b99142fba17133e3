"""What is guessed of a build's command line before it is parsed."""

from __future__ import annotations

from typing import Any

import pytest
from typer.main import get_command

from lambda_deno_spawn.dev.cli.ahead import FLAGS, VALUES, Words, read
from lambda_deno_spawn.dev.cli.app import app

# With these nothing is bundled, or something else comes first.
NOT_EARLY = {"--check", "--no-bundle", "--help", "-h"}


def options(*, is_flag: bool) -> set[str]:
    group: Any = get_command(app)
    found = [one for one in group.commands["build"].params if one.opts[0][0] == "-"]
    return {
        name
        for one in found
        if one.is_flag is is_flag
        for name in (*one.opts, *one.secondary_opts)
    }


def test_every_option_of_a_build_is_known() -> None:
    assert options(is_flag=False) == VALUES
    assert options(is_flag=True) - NOT_EARLY == FLAGS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Words()),
        ("orders", Words("orders")),
        ("--out d orders -o json", Words("orders", out="d")),
        ("--out=d --stage prod --name=n", Words(out="d", stage="prod", name="n")),
        ("--handler a.b --minify --env A=B=C", Words(handler="a.b")),
        ("--out", None),
        ("--check", None),
        ("orders --no-bundle", None),
        ("--help", None),
        ("--unknown", None),
        ("-ojson", None),
        ("one two", None),
        ("--bundle=no", None),
    ],
)
def test_what_matters_is_read(line: str, expected: Words | None) -> None:
    assert read(line.split()) == expected

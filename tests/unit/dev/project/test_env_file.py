"""Files of variables: the grammar of ``deno run --env-file``, and what is refused.

``tests/integration/test_stages.py`` compares ``ACCEPTED`` with Deno itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.dev.project.env_file import (
    given_variables,
    parse_env_file,
    read_env_files,
)
from lambda_deno_spawn.errors import UsageError
from tests.fixtures.env_file import ACCEPTED, EXPECTED


def test_accepted_file_has_these_values() -> None:
    assert parse_env_file(ACCEPTED, ".env") == EXPECTED


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (SECRET, "it is not NAME=VALUE"),
        (f"AB: {SECRET}", "it is not NAME=VALUE"),
        (f"={SECRET}", "it is not NAME=VALUE"),
        (f"A-{SECRET}=1", "it is not NAME=VALUE"),
        (f'AB="{SECRET}', "a quote that does not end"),
        (f"AB='{SECRET}\nCD=2", "a quote that does not end"),
        (f"AB='{SECRET}'x", "text after the closing quote"),
        (f"AB='it''{SECRET}'", "text after the closing quote"),
        (f"AB={SECRET}#{SECRET}", "a # in a value begins a comment for some tools"),
        (f"AB=x${SECRET}", "a variable that is not set above in this file; single"),
        (f"AB=${{{SECRET}}}", "a variable that is not set above in this file"),
        (f'AB="${SECRET}"', "a variable that is not set above in this file"),
        (f"AB={SECRET}$", "a $ without the name of a variable; single quotes"),
        ("AB=$1", "a $ without the name of a variable"),
        ("AB=${CD:-x}", "a $ without the name of a variable"),
        (f"AB=1\nAB={SECRET}", "the variable is set above in this file already"),
        ("A=1", "Lambda does not accept the name of the variable; use two or more"),
        ("_AB=1", "Lambda does not accept the name of the variable"),
        ("AWS_REGION=eu-central-1", "Lambda reserves AWS_REGION"),
        ("AB='x\0y'", "NUL"),
    ],
)
def test_line_that_tools_read_differently_is_refused_by_its_number(
    line: str, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_env_file(f"# first\n\n{line}\n", "my.env")
    number = 4 if "\nAB" in line else 3
    assert f"Cannot use 'my.env': line {number}: " in str(caught.value)
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


def test_later_file_comes_first_and_an_option_before_all(tmp_path: Path) -> None:
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    one.write_text("AB=1\nCD=1\nEF=1\n")
    two.write_text("CD=2\nEF=2\n")
    given = given_variables([one, two], ["EF=3"])
    assert given == {"AB": "1", "CD": "2", "EF": "3"}
    assert given_variables(None, None) == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such file"), (b"AB=\xff", "it is not UTF-8")],
)
def test_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "x.env"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"x.env' of --env-file: {problem}"):
        read_env_files([path])

"""CONTRIBUTING.md: the files its recipes name exist, and records have their form."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lambda_deno_spawn"
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = TEXT.partition("\n## Recipes\n")[2].partition("\n## ")[0]
# Where a path of a recipe may begin: names inside the package are often shortened.
PLACES = (ROOT, PACKAGE, PACKAGE / "js", ROOT / "tests" / "js")
IN_A_PROJECT = {"lambda.toml"}  # a file of a user's function
PATH = re.compile(r"[\w./-]+\.(?:py|js|ts|toml|md)|(?:[\w-]+/)+[\w-]*")


def named() -> list[str]:
    """Return every path that the page names in backticks."""
    terms = re.findall(r"`([^`\n]+)`", TEXT)
    paths = {term.rstrip("/") for term in terms if PATH.fullmatch(term)}
    return sorted(path for path in paths if "NNNN" not in path)


def name(path: Path) -> str:
    return path.name


def test_the_recipes_are_there() -> None:
    titles = re.findall(r"^### (.*)$", RECIPES, re.MULTILINE)
    assert titles == [
        "Add a CLI option",
        "Add a setting (`LAMBDA_DENO_*`)",
        "Change the mapping of an HTTP event",
        "Change runtime.js",
        "Add a decision",
        "Add a test as Lambda's user",
    ]


@pytest.mark.parametrize(
    "recipe",
    re.split(r"^### ", RECIPES, flags=re.MULTILINE)[1:],
    ids=lambda recipe: recipe.partition("\n")[0],
)
def test_every_recipe_names_its_steps_and_its_tests(recipe: str) -> None:
    assert re.search(r"^1\. ", recipe, re.MULTILINE)
    (tests,) = re.findall(r"^Tests: .*?(?=\n\n|\Z)", recipe, re.MULTILINE | re.DOTALL)
    assert "`tests/" in tests


@pytest.mark.parametrize("path", named())
def test_every_file_that_the_page_names_exists(path: str) -> None:
    is_made = path in IN_A_PROJECT or path.startswith("dist/")
    assert is_made or any((place / path).exists() for place in PLACES)


def test_every_function_and_constant_that_a_recipe_names_exists() -> None:
    terms = set(re.findall(r"`(_?[a-zA-Z]\w+(?:\.\w+)?)`", RECIPES))
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in (PACKAGE, ROOT / "tests")
        for path in [*folder.rglob("*.py"), *folder.rglob("*.js")]
    )
    markers = "\n".join(pyproject()["tool"]["pytest"]["ini_options"]["markers"])
    missing = {
        term
        for term in terms
        if not re.search(
            rf"\b{re.escape(term.rpartition('.')[2])}\b", sources + markers
        )
        and not any((place / term).exists() for place in PLACES)
    }
    assert not missing


def test_every_make_target_that_the_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:`| {4})make ([a-z-]+)", TEXT)) <= targets


def test_every_marker_is_described_and_no_other() -> None:
    section = TEXT.partition("\n## Markers\n")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    declared = pyproject()["tool"]["pytest"]["ini_options"]["markers"]
    names = re.findall(r"^\w+", "\n".join(declared), re.MULTILINE)
    assert sorted(described) == sorted(names)


def pyproject() -> dict[str, dict[str, dict[str, dict[str, list[str]]]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# Decisions.


@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_a_record_has_its_form(record: Path) -> None:
    title, _, status, *rest = record.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", record.name)
    assert title.startswith(f"# {record.name[:4]} · ")
    assert status.startswith(("Accepted.", "Superseded by ["))
    sections = re.findall(r"^\*\*(\w+)", "\n".join(rest), re.MULTILINE)
    assert sections[:2] == ["Context", "Decision"]


def test_no_two_records_have_one_number() -> None:
    numbers = [record.name[:4] for record in RECORDS]
    assert len({*numbers}) == len(numbers)


@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_a_record_that_is_superseded_is_named_by_its_successor(record: Path) -> None:
    status = record.read_text(encoding="utf-8").splitlines()[2]
    for successor in re.findall(r"Superseded by \[\d+\]\(([^)]+)\)", status):
        text = (record.parent / successor).read_text(encoding="utf-8")
        assert f"Supersedes [{record.name[:4]}]({record.name})" in text

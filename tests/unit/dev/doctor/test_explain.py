"""``explain``: which entry an error text leads to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.dev.doctor.explain import ENTRIES, explain, table

DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize(
    ("text", "shown", "page"),
    [
        (
            '{"errorType":"Runtime.HandlerNotFound","errorMessage":"x"}',
            "HandlerNotFound",
            "project.md",
        ),
        (
            'NotCapable: Requires net access to "a.test:443"',
            "NotCapable",
            "configuration.md",
        ),
        (
            'NotCapable: Requires write access to "/tmp/x"',
            "write access",
            "decisions/0035-files-and-tmp.md",
        ),
        ("Error: Cannot find module 'aws-sdk'", "aws-sdk", "compatibility.md"),
        ("ReferenceError: require is not defined", "require", "compatibility.md"),
        ("2026 x Task timed out after 3.00 seconds", "timed out", "handlers.md"),
        ("REPORT … Status: error Error Type: Runtime.OutOfMemory", "Memory", "metrics"),
    ],
)
def test_a_text_leads_to_its_entry(text: str, shown: str, page: str) -> None:
    [found] = explain(text)
    assert shown in found.entry.shown
    assert found.entry.page.startswith(page)
    assert found.seen == text


def test_each_error_is_explained_once_in_the_order_of_the_text() -> None:
    text = "Runtime.ExitError\nall is well\nNotCapable\nRuntime.ExitError again\n"
    assert [found.seen for found in explain(text)] == [
        "Runtime.ExitError",
        "NotCapable",
    ]


def test_a_text_without_a_known_error_is_not_explained() -> None:
    assert explain("TypeError: x is not a function") == []


def test_a_long_line_is_shown_around_the_error() -> None:
    [found] = explain("a" * 5000 + " NotCapable " + "b" * 5000)
    assert "NotCapable" in found.seen
    assert len(found.seen) < 200


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.shown)
def test_an_entry_finds_what_it_shows_and_names_a_page(entry: object) -> None:
    assert entry in ENTRIES
    [known] = [each for each in ENTRIES if each is entry]
    assert (DOCS / known.page).is_file()
    for text in re.findall(r"`([^`]+)`", known.shown):
        assert explain(text.replace("…", "x")), (
            f"{text!r} is not found by its own entry"
        )


def test_the_page_has_the_same_table() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    assert table() in page, "write the table of explain.table() into the page"


def test_the_command_explains_a_log_from_stdin() -> None:
    done = CliRunner().invoke(app, ["explain"], input="x\nRuntime.OutOfMemory\n")
    assert done.exit_code == 0
    assert done.stdout.startswith("Runtime.OutOfMemory\n  why: ")
    assert "/metrics/" in done.stdout


def test_the_command_fails_if_it_knows_no_error(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("all is well", encoding="utf-8")
    done = CliRunner().invoke(app, ["explain", f"@{file}", "-o", "json"])
    assert (done.exit_code, done.stdout) == (1, '{"ok": false, "explanations": []}\n')

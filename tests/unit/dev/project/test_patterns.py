"""Patterns of files, compared with what ``git check-ignore`` says of them."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.project.patterns import Patterns, pattern_problem


@pytest.mark.parametrize(
    ("patterns", "matched", "unmatched"),
    [
        (["notes"], ["notes", "a/notes", "notes/b"], ["notes2"]),
        (["/notes"], ["notes", "notes/b"], ["a/notes"]),
        (["notes/"], ["notes/b", "a/notes/b"], ["notes"]),
        (["a/b"], ["a/b", "a/b/c"], ["c/a/b"]),
        (["*.log"], ["a.log", "b/c/a.log"], ["a.logs"]),
        (["**/*.log"], ["a.log", "b/c/a.log"], ["a.txt"]),
        (["notes/**"], ["notes/a", "notes/b/c"], ["notes", "a/notes/b"]),
        (["a/**/b"], ["a/b", "a/c/b", "a/c/d/b"], ["a/c"]),
        (["a/*"], ["a/b", "a/b/c"], ["a"]),
        (["*", "!*/", "!*.json"], ["a", "b/a"], ["a.json", "b/a.json"]),
        (["*.txt", "!keep.txt"], ["a.txt"], ["keep.txt", "b/keep.txt"]),
        (["a", "!a/b"], ["a/b", "a/c"], ["b"]),
        (["a/*", "!a/b"], ["a/c"], ["a/b"]),
        (["[ab].txt", "?.md"], ["a.txt", "x.md"], ["c.txt", "xy.md"]),
        (
            ["data[!0-9]*", "b[^]a]"],
            ["data-x/y", "bc"],
            ["data/x", "data1", "b/x", "b]"],
        ),
        (["v[!-a]", "w[!a-]"], ["vb", "wb"], ["v/x", "w/x", "v-", "w-", "wa"]),
        (["[[:digit:]_]x", "\\[!a"], ["1x", "_x", "[!a"], ["ax", ":x"]),
        (["\\!x", "\\#y"], ["!x", "#y"], ["x", "y"]),
        (["a/**/"], ["a/b/c"], ["a/b"]),
        (["*/a"], ["b/a"], ["a", "b/c/a"]),
        (["./notes/**", "./b"], ["notes/a", "b"], ["c/notes/a", "c/b"]),
        (["*.{a,b}", "#x"], ["x.{a,b}"], ["x.a", "x.b", "#x"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_patterns_mean_what_they_mean_to_git(
    patterns: list[str], matched: list[str], unmatched: list[str]
) -> None:
    found = Patterns(patterns)
    assert [name for name in matched if not found.matches(name)] == []
    assert [name for name in unmatched if found.matches(name)] == []


@pytest.mark.parametrize("line", ["", " ", "/", "!", "!/", "a\nb", "[b-a]"])
def test_what_is_no_pattern_is_refused(line: str) -> None:
    assert pattern_problem(line) is not None
    assert pattern_problem("a") is None


def test_a_pattern_leads_into_the_folders_it_names() -> None:
    found = Patterns(["tests/a*/b.json", ".config/app.json", "*.pem", "**/x", "c/**"])
    reached = ["tests", "tests/ab", ".config", "c", "c/d/e"]
    assert [name for name in reached if not found.reach_into(name)] == []
    others = ["tests/b", "node_modules", ".git", "c/.git", "a"]
    assert [name for name in others if found.reach_into(name)] == []


def test_it_is_known_which_patterns_matched_nothing() -> None:
    found = Patterns(["a", "b", "!c"])
    found.matches("a/c")
    assert found.unmatched() == ["b", "!c"]
    found.matches("c")
    assert found.unmatched() == ["b"]
    found.matches("b")
    assert found.unmatched() == []

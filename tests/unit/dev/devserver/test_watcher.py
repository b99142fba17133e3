"""Which saved files matter, and to which functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.dev.devserver.watcher import (
    GitIgnored,
    affected,
    is_noise,
    top_folders,
    watched_folder,
)

FOLDERS = {"a": Path("/p/a"), "b": Path("/p/b")}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/p/a/x.ts", {"a"}),
        ("/p/b/lambda.toml", {"b"}),
        ("/p/lib/x.ts", {"a", "b"}),
        ("/p/c/lambda.toml", None),
        ("/p/c/function.ts", None),
    ],
)
def test_a_file_is_part_of_functions(path: str, expected: set[str] | None) -> None:
    assert affected(Path(path), FOLDERS) == expected


@pytest.mark.parametrize(
    "name",
    ["x.ts~", ".x.ts.swp", "4913", ".#x.ts", "node_modules/a/b.js", ".git/index"],
)
def test_what_editors_and_tools_write_is_noise(name: str) -> None:
    assert is_noise(Path("/p") / name)
    assert not is_noise(Path("/p/x.ts"))


def test_a_folder_of_its_own_is_ignored_as_one(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("out/\n")
    (tmp_path / "out").mkdir()
    ignored = GitIgnored()
    assert ignored.matches(tmp_path / "out")
    (tmp_path / "out").rmdir()
    assert ignored.matches(tmp_path / "out"), "it was one"
    (tmp_path / ".gitignore").write_text("")
    assert ignored.matches(tmp_path / "out") is False, "the file is read again"


def test_what_a_function_may_import_is_watched(tmp_path: Path) -> None:
    function = tmp_path / "repo/functions/a"
    function.mkdir(parents=True)
    assert watched_folder(function) == function
    (tmp_path / "deno.json").write_text("")
    (tmp_path / "repo/.git").mkdir()
    assert watched_folder(function) == function, "not beyond the repository"
    (tmp_path / "repo/deno.json").write_text("")
    assert watched_folder(function) == tmp_path / "repo"
    assert top_folders([function, tmp_path / "repo"]) == [tmp_path / "repo"]

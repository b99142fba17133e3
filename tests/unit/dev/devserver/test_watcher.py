"""Which saved files matter, and to which functions."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.devserver import watcher
from lambda_deno_spawn.dev.devserver.watcher import (
    GitIgnored,
    affected,
    changes,
    is_noise,
    top_folders,
    watched_folder,
)

LIMIT_S = 30
FOLDERS = {"a": Path("/p/a"), "b": Path("/p/b")}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/p/a/x.ts", {"a"}),
        ("/p/a", {"a"}),
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


def test_a_function_that_git_ignores_is_watched(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("scratch/\nout/\n")
    served = tmp_path / "scratch/f"
    (served / "out").mkdir(parents=True)
    ignored = GitIgnored([served])
    assert not ignored.matches(served / "function.ts")
    assert not ignored.matches(served)
    assert ignored.matches(served / "out/x.ts")
    assert ignored.matches(tmp_path / "scratch/other/function.ts")
    assert GitIgnored().matches(served / "function.ts")


async def test_files_are_compared_where_the_system_reports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "COMPARE_S", 0.01)
    monkeypatch.setattr(watcher, "_is_out_of_watches", lambda: True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("out/\n")
    for name in ("a", "out", "node_modules"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/circle").symlink_to(tmp_path)
    told: asyncio.Queue[str] = asyncio.Queue()
    found = changes([tmp_path], told.put_nowait)
    async with asyncio.timeout(LIMIT_S), contextlib.aclosing(found):
        first = asyncio.create_task(anext(found))
        text = await told.get()
        assert "fs.inotify.max_user_watches" in text
        assert "sudo sysctl" in text
        for name in ("out/x.ts", "node_modules/x.js", "a/.x.swp", "a/new.ts"):
            (tmp_path / name).write_text("1")
        assert await first == {tmp_path / "a/new.ts"}
        (tmp_path / "a/new.ts").write_text("12")
        assert await anext(found) == {tmp_path / "a/new.ts"}
        shutil.rmtree(tmp_path / "a")
        assert await anext(found) == {tmp_path / "a/new.ts"}


async def test_a_folder_that_is_back_is_watched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as after a change of the branch, and back."""
    monkeypatch.setattr(watcher, "LOOK_MS", 50)
    root = tmp_path / "f"
    root.mkdir()
    (root / "a.ts").write_text("")
    found = changes([root])
    async with asyncio.timeout(LIMIT_S), contextlib.aclosing(found):
        first = asyncio.create_task(anext(found))
        await asyncio.sleep(0)
        shutil.rmtree(root)
        paths = await first
        while root not in paths:
            paths = await anext(found)
        root.mkdir()
        while root / "b.ts" not in paths:
            (root / "b.ts").write_text("")
            paths = await anext(found)

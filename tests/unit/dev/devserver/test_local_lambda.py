"""Which functions are there, after folders have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.devserver.functions import Overrides
from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, project: str = "") -> None:
    folder.mkdir()
    (folder / "function.ts").write_text("export const handler = () => 1;")
    (folder / "lambda.toml").write_text(project)


def test_a_function_is_found_where_its_folder_went(tmp_path: Path) -> None:
    """Its name is in its project file, so it is the same function."""
    write(tmp_path / "old", 'name = "shop"')
    write(tmp_path / "other")
    local = LocalLambda([tmp_path], Overrides(), environ={})
    (tmp_path / "old").rename(tmp_path / "new")
    local.rescan()
    assert {n: fleet.function.folder.name for n, fleet in local.fleets.items()} == {
        "shop": "new",
        "other": "other",
    }
    told = [(notice.function, notice.text) for notice in local.journal.notices()]
    assert told == [("shop", f"is served now, from {tmp_path / 'new'}")]

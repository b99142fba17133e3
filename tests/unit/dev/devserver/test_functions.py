"""Which functions are found below a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.devserver.functions import Overrides, find_functions
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def found(root: Path, *files: str) -> dict[str, str]:
    """Return the names and folders of the functions among files."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    functions = find_functions([root], Overrides())
    return {
        name: function.folder.relative_to(root.resolve()).as_posix()
        for name, function in functions.items()
    }


def test_a_project_file_makes_a_folder_a_function(tmp_path: Path) -> None:
    files = ["a/lambda.toml", "a/function.ts", "b/c/lambda.toml", "b/c/index.js"]
    assert found(tmp_path, *files, "main.ts", "d/main.ts") == {"a": "a", "c": "b/c"}


def test_without_project_files_names_of_handlers_count(tmp_path: Path) -> None:
    files = ["a/function.ts", "a/lib/index.ts", "b/mod.mjs", "c/other.ts"]
    assert found(tmp_path, *files) == {"a": "a", "b": "b"}


@pytest.mark.parametrize("file", ["main.ts", "lambda.toml", "api.ts"])
def test_the_folder_itself_may_be_one(tmp_path: Path, file: str) -> None:
    root = tmp_path / "orders"
    assert found(root, file, "index.ts", "x/util.ts") == {"orders": "."}


def test_copies_and_hidden_folders_are_not_searched(tmp_path: Path) -> None:
    files = [f"{folder}/x/function.ts" for folder in ("node_modules", "dist", ".git")]
    assert found(tmp_path, "a/function.ts", *files) == {"a": "a"}


def test_nothing_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lambda-deno-spawn new"):
        found(tmp_path, "README.md")
    with pytest.raises(UsageError, match="no such file or folder"):
        find_functions([tmp_path / "none"], Overrides())


def test_two_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"called 'f'.*a/f.*b/f"):
        found(tmp_path, "a/f/function.ts", "b/f/function.ts")


def test_one_that_is_given_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "function.ts").write_text("")
    paths = [tmp_path, tmp_path / "function.ts"]
    assert len(find_functions(paths, Overrides())) == 1


def test_options_of_the_command_win(tmp_path: Path) -> None:
    (tmp_path / "function.ts").write_text("")
    text = 'name = "f"\ntimeout = 7\nmemory = 256\n[env]\nA1 = "file"\nB1 = "file"\n'
    (tmp_path / "lambda.toml").write_text(text)
    plain = find_functions([tmp_path], Overrides())["f"]
    assert (plain.timeout_s, plain.memory_mb) == (7, 256)
    overrides = Overrides(timeout_s=1.5, memory_mb=128, variables={"A1": "option"})
    given = find_functions([tmp_path], overrides)["f"]
    assert (given.timeout_s, given.memory_mb) == (1.5, 128)
    assert given.variables == {"A1": "option", "B1": "file"}


def test_a_stage_names_and_configures_the_function(tmp_path: Path) -> None:
    (tmp_path / "function.ts").write_text("export const handler = () => 1;\n")
    (tmp_path / "lambda.toml").write_text(
        'name = "f"\n[env]\nA1 = "a"\n[stage.prod.env]\nA1 = "b"\n'
    )
    functions = find_functions([tmp_path], Overrides(stage="prod"))
    assert functions["f-prod"].variables["A1"] == "b"
    assert functions["f-prod"].reloaded().name == "f-prod"

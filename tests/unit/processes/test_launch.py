"""The start of a program, and what is said when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.errors import WorkerSpawnError
from lambda_deno_spawn.processes.launch import launch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.as_lambda


def test_an_error_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's lack had been reported as that of the program."""
    monkeypatch.chdir(tmp_path)  # a launch changes it
    gone = str(tmp_path / "gone")
    with pytest.raises(WorkerSpawnError) as no_folder:
        launch(["/bin/true"], {}, gone)
    with pytest.raises(WorkerSpawnError) as no_program:
        launch([gone], {}, str(tmp_path))
    said = [str(each.value) for each in (no_folder, no_program)]
    assert said == [
        f"Cannot enter the function's folder {gone!r}: No such file or directory",
        f"Cannot start {gone!r}: No such file or directory",
    ]

"""Where a local runtime keeps its temporary files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.local.runtime import temp_folder


def test_the_folder_is_the_developer_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    with temp_folder() as folder:
        assert Path(folder).parent == Path("/tmp")


def test_its_path_leaves_room_for_a_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """macOS's has 49 bytes, and the path of a socket at most 103."""
    long_path = tmp_path / ("x" * 49)
    long_path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long_path))
    with temp_folder() as folder:
        assert len(os.fsencode(folder)) <= 44
        assert Path(folder).is_dir()
    assert not Path(folder).exists()

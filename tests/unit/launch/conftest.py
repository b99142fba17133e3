"""Fixtures of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.launch import binary, command
from tests.unit.launch.function import Function


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Function:
    # Places that a machine has or has not, so they belong to its environment.
    function = Function(tmp_path)
    monkeypatch.setattr(command, "LAYERS_ROOT", str(function.layers))
    monkeypatch.setattr(binary, "LAYER_BINARY", str(function.layers / "bin/deno"))
    monkeypatch.setattr(command, "local_addresses", lambda: ["192.0.2.7"])
    return function

"""Deno's executable, searched for in order."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lambda_deno_spawn.errors import ConfigError
from lambda_deno_spawn.launch.binary import find_binary
from tests.unit.launch.function import Function, write_program

pytestmark = pytest.mark.as_lambda


def test_the_binary_of_the_setting_comes_first(function: Function) -> None:
    write_program(function.layers / "bin/deno")
    assert find_binary(function.settings(), "") == str(function.binary)


@pytest.mark.parametrize("kind", ["missing", "folder", "not-executable"])
def test_a_binary_that_cannot_be_executed_is_refused(
    function: Function, kind: str
) -> None:
    path = function.task_root / "deno"
    if kind == "folder":
        path.mkdir()
    elif kind == "not-executable":
        path.touch(mode=0o644)
    write_program(function.layers / "bin/deno")
    with pytest.raises(ConfigError) as caught:
        find_binary(function.settings(LAMBDA_DENO_BIN=str(path)), "")
    assert caught.value.variable == "LAMBDA_DENO_BIN"
    assert caught.value.value == str(path)
    assert caught.value.expected == "an executable file"


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the import of the PyPI package fail, as where it is not installed."""
    monkeypatch.setitem(sys.modules, "deno", None)


def test_layer_then_package_then_path_are_searched(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = function.settings(LAMBDA_DENO_BIN="")
    in_layer = write_program(function.layers / "bin/deno")
    packaged = ModuleType("deno")
    packaged.__dict__["find_deno_bin"] = lambda: "/site/deno"
    monkeypatch.setitem(sys.modules, "deno", packaged)
    path = str(function.binary.parent)
    assert find_binary(settings, path) == str(in_layer)
    in_layer.unlink()
    assert find_binary(settings, path) == "/site/deno"
    without_package(monkeypatch)
    assert find_binary(settings, path) == str(function.binary)


def test_a_package_without_its_binary_is_passed_over(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_deno_bin() -> str:
        raise FileNotFoundError

    packaged = ModuleType("deno")
    packaged.__dict__["find_deno_bin"] = find_deno_bin
    monkeypatch.setitem(sys.modules, "deno", packaged)
    settings = function.settings(LAMBDA_DENO_BIN="")
    path = str(function.binary.parent)
    assert find_binary(settings, path) == str(function.binary)


def test_the_first_executable_on_the_path_is_taken(
    function: Function, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch)
    monkeypatch.chdir(function.binary.parent)
    (tmp_path / "folder/deno").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/deno").touch(mode=0o644)
    folders = ["", str(tmp_path / "none"), str(tmp_path / "folder")]
    folders += [str(tmp_path / "plain"), str(function.binary.parent)]
    settings = function.settings(LAMBDA_DENO_BIN="")
    assert find_binary(settings, os.pathsep.join(folders)) == str(function.binary)


def test_no_binary_anywhere_says_where_it_may_be(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        find_binary(function.settings(LAMBDA_DENO_BIN=""), "")
    assert caught.value.variable == "LAMBDA_DENO_BIN"
    assert caught.value.value is None
    assert "attach the Deno layer" in caught.value.expected

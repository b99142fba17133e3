"""The user's home folder, with and without HOME."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.local.runtime import lambda_environ
from lambda_deno_spawn.dev.project.function import Function, InvokeOptions
from lambda_deno_spawn.dev.project.home import caches_folder, home_folder
from lambda_deno_spawn.errors import BuildError

UNKNOWN_USER = 2**31 - 7


def test_home_is_what_the_variable_names_else_the_list_of_users() -> None:
    own = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert home_folder({"HOME": "/home/ada"}) == Path("/home/ada")
    assert home_folder({}) == home_folder({"HOME": ""}) == own
    assert caches_folder({}) == own / ".cache"
    assert caches_folder({"XDG_CACHE_HOME": "/caches"}) == Path("/caches")


def test_deno_s_cache_is_found_without_the_variable(tmp_path: Path) -> None:
    """Each `invoke` downloaded the modules again, where Deno finds its cache."""
    own = Path(pwd.getpwuid(os.getuid()).pw_dir)
    options = InvokeOptions(Function(tmp_path, "function.handler"))
    found = lambda_environ(options, "127.0.0.1:9", str(tmp_path), {})["DENO_DIR"]
    assert found.startswith(f"{own}/")
    assert (
        found
        == lambda_environ(options, "127.0.0.1:9", str(tmp_path), {"HOME": str(own)})[
            "DENO_DIR"
        ]
    )


def test_an_unknown_user_without_the_variable_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Path.home() raised RuntimeError in the middle of a command."""
    monkeypatch.setattr(os, "getuid", lambda: UNKNOWN_USER)
    assert home_folder({}) is None
    with pytest.raises(BuildError, match="neither HOME nor XDG_CACHE_HOME is set"):
        caches_folder({})

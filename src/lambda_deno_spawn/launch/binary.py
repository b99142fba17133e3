"""Deno's executable: which of the ones on this machine is started."""

from __future__ import annotations

import os

from lambda_deno_spawn.errors import ConfigError
from lambda_deno_spawn.launch.files import is_executable
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from lambda_deno_spawn.config import Settings

LAYER_BINARY = "/opt/bin/deno"


def find_binary(settings: Settings, path: str) -> str:
    """Return Deno's executable: the first that exists of setting, layer, PyPI, PATH.

    Args:
        settings: Parsed settings.
        path: Value of ``PATH``.

    Raises:
        ConfigError: There is none, or the one that was named cannot be executed.
    """
    if settings.deno_bin is not None:
        if is_executable(settings.deno_bin):
            return settings.deno_bin
        raise ConfigError("LAMBDA_DENO_BIN", settings.deno_bin, "an executable file")
    if is_executable(LAYER_BINARY):
        return LAYER_BINARY
    found = pypi_binary() or _on_path(path)
    if found is None:
        raise ConfigError(
            "LAMBDA_DENO_BIN",
            None,
            f"Deno's executable, or one at {LAYER_BINARY} (attach the Deno layer), "
            "in the PyPI package deno, or on PATH",
        )
    return found


def pypi_binary() -> str | None:
    """Return the binary of the PyPI package ``deno``, None if it is not installed."""
    try:
        from deno import find_deno_bin
    except ImportError:
        return None
    try:
        return str(find_deno_bin())
    except FileNotFoundError:
        return None


def _on_path(path: str) -> str | None:
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder, "deno")
        if folder and is_executable(candidate):
            return candidate
    return None

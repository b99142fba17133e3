"""Questions to the file system that the launch of Deno depends on."""

from __future__ import annotations

import os

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    AnyPath = str | os.PathLike[str]


def read_text(path: AnyPath, encoding: str) -> str:
    """Return the text of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not text in this encoding.
    """
    with open(path, encoding=encoding) as file:
        return file.read()


def is_file(path: AnyPath) -> bool:
    """Return whether there is a file that this user can see.

    A package whose folders are closed to Lambda's user is a common mistake: its files
    count as missing.
    """
    return os.path.isfile(path)


def is_executable(path: str) -> bool:
    """Return whether there is a file that this user may execute."""
    return os.access(path, os.X_OK) and is_file(path)


def is_writable(folder: str) -> bool:
    """Return whether files can be made in a folder, which need not exist yet."""
    while not os.path.exists(folder) and folder != (parent := os.path.dirname(folder)):
        folder = parent
    return os.access(folder, os.W_OK)

"""The settings for copies of a loaded process: whether, and with which folders.

A permission flag names folders once and for all. Those of a template name a path that
leads each copy to its own folder (decision 0057), or, where handlers could change that
path, the folders of all copies, and each copy gives up the others'
(``Deno.permissions.revoke``). Decides which flags that needs, and which permissions
cannot be given up. Does not know what a module has loaded. Decision 0033.
"""

from __future__ import annotations

import os

from lambda_deno_spawn.config import Strategy
from lambda_deno_spawn.permissions import PRIVATE_DIR, PRIVATE_DIR_MARK, is_within
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lambda_deno_spawn.config import Settings

# Permissions that name a folder, by their flags, as ``Deno.permissions`` calls them.
REVOCABLE = {"--allow-read": "read", "--allow-write": "write"}


def why_not_fork(
    settings: Settings, flags: Sequence[str], library: str | None
) -> str | None:
    """Return why processes cannot be copied, whatever the module; None if they can.

    Args:
        settings: Those of the function.
        flags: Permission flags that hold ``PRIVATE_DIR_MARK``.
        library: Path of the native library, None if there is none.
    """
    if settings.strategy is Strategy.SERVER:
        return "one process serves all events (LAMBDA_DENO_STRATEGY=server)"
    if settings.invocations != 1:
        return "a process serves several events (LAMBDA_DENO_MAX_INVOCATIONS)"
    if library is None:
        return f"there is no library to fork with for {os.uname().machine}"
    flag = unshared_flag(flags) if settings.concurrency > 1 else None
    if flag is not None:
        return f"several events are served at once, each with its own {flag}"
    return None


def unshared_flag(flags: Sequence[str]) -> str | None:
    """Return a flag that grants what a copy cannot give up, None if there is none.

    Args:
        flags: Those that hold ``PRIVATE_DIR_MARK``.
    """
    for flag in flags:
        name, _, text = flag.partition("=")
        is_fixed = name.startswith("--allow-") and name not in REVOCABLE
        within = (value.removeprefix(PRIVATE_DIR_MARK) for value in text.split(","))
        is_strange = name in REVOCABLE and any(PRIVATE_DIR_MARK in v for v in within)
        if is_fixed or is_strange:
            return flag.replace(PRIVATE_DIR_MARK, PRIVATE_DIR)
    return None


def share_folders(
    flags: Sequence[str], folders: Sequence[str], cwd: str, alias: str | None = None
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the flags for a process whose copies have these folders.

    Args:
        flags: Those that hold ``PRIVATE_DIR_MARK``; see ``unshared_flag``.
        folders: All of them.
        cwd: Where relative paths begin.
        alias: A path that leads each copy to its own folder, if there is one.

    Returns:
        The flags, and what a copy gives up in each folder that is not its own: a
        permission, and what follows the folder in the path. Nothing if there is an
        alias.
    """
    shared: list[str] = []
    revoked: list[list[str]] = []
    for flag in flags:
        name, _, text = flag.partition("=")
        values = text.split(",")
        private = [value for value in values if PRIVATE_DIR_MARK in value]
        public = [value for value in values if PRIVATE_DIR_MARK not in value]
        if name in REVOCABLE:
            # Deno takes a folder away together with those around it. Where one of those
            # is granted, processes of their own start share all folders, too.
            if any(_covers(path, folders[0], cwd) for path in public):
                private = []
            ends = [value.removeprefix(PRIVATE_DIR_MARK) for value in private]
            if alias is None:
                revoked += [[REVOCABLE[name], end] for end in ends]
        paths = folders
        if alias is not None:  # what is denied stays denied by every path
            paths = [alias] if name in REVOCABLE else [*folders, alias]
        expanded = [
            value.replace(PRIVATE_DIR_MARK, path) for value in private for path in paths
        ]
        shared.append(f"{name}={','.join([*public, *expanded])}")
    return tuple(shared), revoked


def _covers(path: str, folder: str, cwd: str) -> bool:
    """Tell whether a path leads to a folder around another one, or to that itself."""
    around = list(_spellings(os.path.join(cwd, path)))
    return any(
        is_within(inner, outer) for inner in _spellings(folder) for outer in around
    )


def _spellings(path: str) -> Iterator[str]:
    yield os.path.normpath(path)
    yield os.path.realpath(path)

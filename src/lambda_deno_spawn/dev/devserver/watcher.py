"""Which functions a saved file belongs to, and which files do not matter.

Knows the folders to watch and what Git ignores there. Does not know what a change leads
to. Specification: gitignore(5); watchfiles waits until several saves in a row are over.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.devserver.functions import HANDLER_NAMES
from lambda_deno_spawn.dev.project.project import PROJECT_FILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from pathspec import GitIgnoreSpec

DEBOUNCE_MS = 400  # longest wait for a series of saves to end
STEP_MS = 30  # a series has ended when there was none for so long
# Never watched, whether or not Git ignores them.
IGNORED_FOLDERS = frozenset(
    {".git", "node_modules", "__pycache__", ".venv", ".idea", ".vscode", ".hg"}
)
# Files that editors write beside a file while they save it.
IGNORED_ENDS = ("~", ".swp", ".swx", ".swo", ".tmp", ".pyc", ".DS_Store", ".log")
IGNORED_STARTS = (".#", "#", "4913", ".goutputstream-")
ROOT_FILES = ("deno.json", "deno.jsonc", "package.json")


class GitIgnored:
    """The files that Git ignores below some folders, by their ``.gitignore`` files."""

    def __init__(self) -> None:
        """Read no file yet."""
        self._specs: dict[Path, tuple[int, GitIgnoreSpec | None]] = {}

    def matches(self, path: Path) -> bool:
        """Return whether Git ignores a file: it or a folder that contains it."""
        top = git_root(path.parent) or path.parent
        folders = [each for each in path.parents if top in each.parents]
        # A file in an ignored folder cannot be taken back.
        if any(self._decides(each, top, is_folder=True) for each in folders):
            return True
        # A path that is gone may have been either.
        is_file, is_folder = path.is_file(), path.is_dir()
        return (not is_folder and self._decides(path, top, is_folder=False)) or (
            not is_file and self._decides(path, top, is_folder=True)
        )

    def _decides(self, path: Path, top: Path, *, is_folder: bool) -> bool:
        is_ignored = False
        folders = [p for p in path.parents if p == top or top in p.parents]
        for folder in reversed(folders):
            spec = self._spec(folder)
            if spec is not None:
                name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
                result = spec.check_file(name)
                if result.include is not None:
                    is_ignored = result.include
        return is_ignored

    def _spec(self, folder: Path) -> GitIgnoreSpec | None:
        file = folder / ".gitignore"
        try:
            stamp = file.stat().st_mtime_ns
        except OSError:
            return None
        known = self._specs.get(folder)
        if known is not None and known[0] == stamp:
            return known[1]
        from pathspec import GitIgnoreSpec
        from pathspec.patterns.gitignore import GitIgnorePatternError

        spec = None
        with contextlib.suppress(OSError, GitIgnorePatternError, UnicodeDecodeError):
            spec = GitIgnoreSpec.from_lines(file.read_text("utf-8").splitlines())
        self._specs[folder] = (stamp, spec)
        return spec


def git_root(folder: Path) -> Path | None:
    """Return the top folder of the repository that a folder is in."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            return place
    return None


def watched_folder(folder: Path) -> Path:
    """Return the folder whose files a function in ``folder`` may import.

    Inside a repository this is the nearest one above that has a ``deno.json`` or a
    ``package.json``; a function without a project watches its own folder.
    """
    root = git_root(folder)
    if root is None:
        return folder
    found = folder
    for place in (folder, *folder.parents):
        if any((place / name).is_file() for name in ROOT_FILES):
            found = place
        if place == root:
            break
    return found


def top_folders(folders: Iterable[Path]) -> list[Path]:
    """Return folders without those that are below another one."""
    unique = sorted(set(folders))
    return [each for each in unique if not any(p in unique for p in each.parents)]


def is_noise(path: Path) -> bool:
    """Return whether a file never matters to a function."""
    name = path.name
    is_written_by_editor = name.endswith(IGNORED_ENDS) or name.startswith(
        IGNORED_STARTS
    )
    return is_written_by_editor or any(part in IGNORED_FOLDERS for part in path.parts)


def affected(path: Path, folders: Mapping[str, Path]) -> set[str] | None:
    """Return the functions that a changed file may be part of.

    Args:
        path: The file.
        folders: The functions' folders, by name.

    Returns:
        None: it may be the project file or the handler of one that is not known.
    """
    inside = {name for name, folder in folders.items() if folder in path.parents}
    if inside:
        return inside
    if path.name == PROJECT_FILE or path.name in HANDLER_NAMES:
        return None
    return set(folders)  # shared code


def _own_output() -> set[Path]:
    """Return the files that this program prints to: each line would be a change."""
    found = set()
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/self/fd/{descriptor}").readlink())
    return found


async def changes(folders: Iterable[Path]) -> AsyncIterator[set[Path]]:
    """Yield the files that were saved, created or removed, without ignored ones."""
    from watchfiles import awatch

    ignored = GitIgnored()
    own = _own_output()
    watched = top_folders(watched_folder(folder) for folder in folders)
    async for found in awatch(
        *watched,
        watch_filter=lambda _, name: not is_noise(Path(name)),
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        ignore_permission_denied=True,
    ):
        paths = {Path(name) for _, name in found}
        kept = {path for path in paths if not ignored.matches(path)} - own
        if kept:
            yield kept

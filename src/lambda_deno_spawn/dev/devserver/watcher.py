"""Which functions a saved file belongs to, and which files do not matter.

Knows the folders to watch, what Git ignores there, and how changes are found where the
system does not report them. Does not know what a change leads to. Specification:
gitignore(5), inotify(7); watchfiles waits until several saves in a row are over.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.devserver.functions import HANDLER_NAMES
from lambda_deno_spawn.dev.project.project import PROJECT_FILE

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Callable,
        Collection,
        Iterable,
        Mapping,
        Sequence,
    )

    from pathspec import GitIgnoreSpec

DEBOUNCE_MS = 400  # longest wait for a series of saves to end
STEP_MS = 30  # a series has ended when there was none for so long
LOOK_MS = 500  # how often the watched folders are looked for: they may be replaced
COMPARE_S = 1.0  # between two comparisons of all files, if the system reports nothing
COMPARE_SHARE = 10  # a comparison may take this part of the time
LIMITS = Path("/proc/sys/fs/inotify")
ENOUGH = {"max_user_watches": 524288, "max_user_instances": 1024}
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

    def __init__(self, served: Iterable[Path] = ()) -> None:
        """Read no file yet.

        Args:
            served: Folders of functions. One that Git ignores is served all the same,
                so only rules about files below it count.
        """
        self._specs: dict[Path, tuple[int, GitIgnoreSpec | None]] = {}
        self._served = frozenset(served)
        self._above = {place for each in self._served for place in each.parents}

    def matches(self, path: Path) -> bool:
        """Return whether Git ignores a file: it or a folder that contains it."""
        if path in self._served or path in self._above:
            return False
        base = next((each for each in path.parents if each in self._served), None)
        if base is not None and not self._ignores(base):
            base = None
        return self._ignores(path, base)

    def _ignores(self, path: Path, base: Path | None = None) -> bool:
        """Apply the rules; with a ``base``, as if it were the top folder."""
        top = base or git_root(path.parent) or path.parent
        folders = [each for each in path.parents if top in each.parents]
        # A file in an ignored folder cannot be taken back.
        if any(self._decides(each, base, is_folder=True) for each in folders):
            return True
        # A path that is gone may have been either.
        is_file, is_folder = path.is_file(), path.is_dir()
        return (not is_folder and self._decides(path, base, is_folder=False)) or (
            not is_file and self._decides(path, base, is_folder=True)
        )

    def _decides(self, path: Path, base: Path | None, *, is_folder: bool) -> bool:
        is_ignored = False
        top = git_root(path.parent) or path.parent
        folders = [p for p in path.parents if p == top or top in p.parents]
        for folder in reversed(folders):
            spec = self._spec(folder)
            if spec is not None:
                start = base if base is not None and folder in base.parents else folder
                name = path.relative_to(start).as_posix() + ("/" if is_folder else "")
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
    places = {path, *path.parents}
    inside = {name for name, folder in folders.items() if folder in places}
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


async def changes(
    folders: Iterable[Path],
    tell: Callable[[str], None] = lambda _: None,
    files: Collection[Path] = (),
) -> AsyncGenerator[set[Path]]:
    """Yield the files that were saved, created or removed, without ignored ones.

    Args:
        folders: The functions' folders, and those that they were found in.
        tell: Told why the files are compared, if the system does not report changes.
        files: Single files, wherever they are; never ignored.
    """
    served = list(folders)
    ignored = GitIgnored(served)
    own = _own_output()
    roots = top_folders(watched_folder(folder) for folder in served)
    known = _stamps(files)
    async for found in _found(roots, served, tell):
        now = _stamps(files)
        saved, known = _differing(known, now), now
        matter = {
            path for path in found if not (is_noise(path) or ignored.matches(path))
        }
        kept = (matter - own) | saved
        if kept:
            yield kept


class _BlindError(Exception):
    """The system does not report all changes; the message says why."""


async def _found(
    roots: Sequence[Path], served: Sequence[Path], tell: Callable[[str], None]
) -> AsyncGenerator[set[Path]]:
    """Yield changed paths, and again and again an empty set."""
    try:
        async for found in _reported(roots):
            yield found
    except _BlindError as error:
        ignored = GitIgnored(served)
        known = await asyncio.to_thread(_scan, roots, ignored)
        tell(f"{error}. Until then, files are compared every {COMPARE_S:g} s")
    interval_s = COMPARE_S
    while True:
        await asyncio.sleep(interval_s)
        begun_s = time.monotonic()
        now = await asyncio.to_thread(_scan, roots, ignored)
        cost_s = time.monotonic() - begun_s
        interval_s = max(COMPARE_S, COMPARE_SHARE * cost_s)
        paths = known.keys() | now.keys()
        changed = {path for path in paths if known.get(path) != now.get(path)}
        known = now
        yield changed


async def _reported(roots: Sequence[Path]) -> AsyncGenerator[set[Path]]:
    """Yield the paths that the system reports; an empty set if there are none.

    Raises:
        _BlindError: It does not report all of them.
    """
    from watchfiles import awatch

    # Reported by nothing: a watched folder itself is another one now, or is back.
    replaced: set[Path] = set()
    while True:
        identities = _identities(roots)
        present = [root for root in roots if identities[root] is not None]
        if not present:
            yield replaced
            await asyncio.sleep(LOOK_MS / 1000)
            replaced = _differing(identities, _identities(roots))
            continue
        stop = asyncio.Event()
        check = _Check(stop)
        # Called once watchfiles watches all folders, or as many as it can.
        asyncio.get_running_loop().call_soon(check)
        try:
            watch = awatch(
                *present,
                watch_filter=lambda _, name: not is_noise(Path(name)),
                debounce=DEBOUNCE_MS,
                step=STEP_MS,
                stop_event=stop,
                rust_timeout=LOOK_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            )
            async with contextlib.aclosing(watch):
                async for found in watch:
                    paths = {Path(name) for _, name in found} | replaced
                    replaced = _differing(identities, _identities(roots))
                    yield paths
                    if replaced:
                        break
                    if any(path.is_dir() for path in paths):
                        check()  # a new folder needs a watch of its own
        except FileNotFoundError:
            continue  # gone since we looked
        except (OSError, RuntimeError) as error:  # watchfiles' own is one of these
            raise _BlindError(_refusal(error)) from error
        if check.problem is not None:
            raise _BlindError(check.problem)


class _Check:
    """Looks whether the system can watch another folder.

    watchfiles leaves out the folders that it could not watch, and does not say so.

    Attributes:
        problem: Why it cannot; None if it can, or did when we looked.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        """Set ``stop`` when it cannot."""
        self.problem: str | None = None
        self._stop = stop

    def __call__(self) -> None:
        """Look."""
        if _is_out_of_watches():
            self.problem = _limit_text("max_user_watches", "watches")
            self._stop.set()


def _is_out_of_watches() -> bool:
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(os.O_CLOEXEC)
    except (OSError, AttributeError):
        return False
    if descriptor < 0:
        return False  # watchfiles had more luck
    try:
        in_delete_self = 0x400
        watch = libc.inotify_add_watch(descriptor, b"/", in_delete_self)
        return watch < 0 and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(descriptor)


def _refusal(error: Exception) -> str:
    text = str(error)
    if f"os error {errno.EMFILE}" in text:
        return _limit_text("max_user_instances", "instances")
    return f"Cannot have the system report saved files: {text.splitlines()[0]}"


def _limit_text(name: str, what: str) -> str:
    value = ""
    with contextlib.suppress(OSError):
        value = f" = {(LIMITS / name).read_text().strip()}"
    return (
        f"Cannot watch all folders: the programs of this user have no inotify {what} "
        f"left (fs.inotify.{name}{value}). Raise the limit, `sudo sysctl "
        f"fs.inotify.{name}={ENOUGH[name]}`, and start dev again"
    )


def _identities(roots: Iterable[Path]) -> dict[Path, tuple[int, int] | None]:
    found: dict[Path, tuple[int, int] | None] = dict.fromkeys(roots)
    for root in found:
        with contextlib.suppress(OSError):
            status = root.stat()
            found[root] = (status.st_dev, status.st_ino)
    return found


def _differing(
    before: Mapping[Path, object], after: Mapping[Path, object]
) -> set[Path]:
    return {root for root, identity in after.items() if identity != before[root]}


class _Stamp(NamedTuple):
    """Facts that are others once a file has been saved."""

    modified_ns: int
    size_bytes: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Stamp:
        return cls(status.st_mtime_ns, status.st_size, status.st_ino)


def _stamps(files: Iterable[Path]) -> dict[Path, _Stamp | None]:
    found: dict[Path, _Stamp | None] = dict.fromkeys(files)
    for path in found:
        with contextlib.suppress(OSError):
            found[path] = _Stamp.of(path.stat())
    return found


def _scan(roots: Iterable[Path], ignored: GitIgnored) -> dict[Path, _Stamp]:
    """Return the files below some folders, without those that do not matter."""
    found: dict[Path, _Stamp] = {}
    visited: set[tuple[int, int]] = set()  # links may lead in a circle
    folders = list(roots)
    while folders:
        folder = folders.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError:
            continue  # gone, or not ours to read
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            continue
        visited.add(identity)
        for entry in entries:
            path = Path(entry.path)
            if is_noise(path):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    if not ignored.matches(path):
                        folders.append(path)
                    continue
                found[path] = _Stamp.of(entry.stat())
    return found

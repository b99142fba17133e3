"""Deno's cache for each process: modules that were loaded before any event, no others.

Deno's module loader writes to its cache without asking for a permission, so a cache
that events share would be a channel between them. Here each process has a ``DENO_DIR``
of its own, which is removed with it. Files that the first processes add while they load
the handler's module, before they have an event, are kept and lent to all later ones,
through links to folders that Deno does not write to. Does not know processes and
events. Decision 0027.
"""

from __future__ import annotations

import errno
import os
from itertools import islice

from lambda_deno_spawn.early import suppress
from lambda_deno_spawn.launch.files import is_writable
from lambda_deno_spawn.processes.state import remove_tree
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_deno_spawn.config import Settings

PACKAGED_DENO_DIR = ".deno_dir"  # in the task root, made by `build`
FOLDER = "deno_dir"  # in the supervisor's folder
# Deno's folder for the data of localStorage, the Cache API and Deno.openKv, shared by
# all processes with the same entry module or configuration. With a file in its place
# nothing is stored.
KEPT_DATA = "location_data"
# Deno's analysis of modules: their imports, CommonJS exports, V8's code.
DATABASES = ("dep_analysis_cache_v2", "node_analysis_cache_v2", "v8_code_cache_v2")
WAL, SHARED_MEMORY = "-wal", "-shm"  # SQLite finds them by themselves
COMPANIONS = (WAL, SHARED_MEMORY)
EMITTED = "gen"  # JavaScript made from TypeScript
LOCAL = f"{EMITTED}/file"  # for modules that are files, by their paths
# Folders of downloads.
PACKAGES, REMOTE = "npm", "remote"
DOWNLOADED = (PACKAGES, REMOTE)
# How deep Deno makes new folders in them: registry and package, protocol and host.
# Files below that depth are written once and not changed.
DEPTH = 2
SCOPE = "@"  # first character of a package's scope, which is one more folder
# The first process finds an empty cache; the files it adds are kept. The second one
# adds SQLite's statistics on them; later ones have nothing to add.
ROUNDS = 2
# A given cache with more entries is linked to as a whole: to link to each of them would
# take longer than the start of a process.
LINKS_LIMIT = 2_000
COPIED_LIMIT_BYTES = 32 * 1024 * 1024
# So many downloaded files are compared after each event at most: 2 µs each.
WATCHED_LIMIT = 5_000
# Folder in a given cache, if that can be written to, which keeps the files of the first
# processes for the next supervisor.
LEARNED = "lambda-deno-spawn"

# Contents of files, by their names in the folder.
Snapshot = dict[str, bytes]
# Identity and state of files and folders, by their paths.
Marks = dict[str, tuple[int, ...]]


class GivenCache(NamedTuple):
    """A cache that exists before the first process.

    Attributes:
        path: Path of the folder, which may not exist yet.
        is_packaged: It came with the function: nothing is added to it.
        is_closed: It cannot be written to, so all processes use it directly.
        task_root: The function's folder. Modules outside, such as other functions' on a
            developer's machine, are left out; empty: no module is.
    """

    path: str
    is_packaged: bool = False
    is_closed: bool = False
    task_root: str = ""


def given_cache(settings: Settings) -> GivenCache | None:
    """Return the cache that a setting names, or that came with the function."""
    packaged = os.path.join(settings.task_root, PACKAGED_DENO_DIR)
    if settings.deno_dir is not None:
        path, is_packaged = os.path.join(settings.task_root, settings.deno_dir), False
    elif os.path.isdir(packaged):
        path, is_packaged = packaged, True
    else:
        return None
    is_closed = not is_writable(path)
    return GivenCache(path, is_packaged, is_closed, settings.task_root)


class ModuleCache:
    """Makes, fills and removes the ``DENO_DIR`` of each process.

    Attributes:
        shared: Parts of the given cache that all processes share: packages, which are
            found in their place only, and remote modules if they are too many.
    """

    def __init__(
        self,
        state_dir: str,
        given: GivenCache | None = None,
        remove: Callable[[str], object] = remove_tree,
        *,
        watches_downloads: bool = True,
    ) -> None:
        """Make nothing yet.

        Args:
            state_dir: The supervisor's folder.
            given: The cache that exists already, if any.
            remove: Removes a folder, whatever its contents, without taking long.
            watches_downloads: Handlers may write outside their folders, so the code of
                packages and remote modules is compared after each event.
        """
        self._remove = remove
        self._root = f"{state_dir}/{FOLDER}"
        # Identity of that folder, once it is made.
        self._root_mark: tuple[int, ...] | None = None
        self._watches_downloads = watches_downloads
        self._given = given
        # How many processes exist that could have changed shared files.
        self._out = 0
        # Caches of the first processes while they load, with the round they began in.
        self._drafts: dict[str, int] = {}
        # Caches of later processes while they load.
        self._loading: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self.shared: list[str] = []
        self._round = 0
        self._snapshot: Snapshot = {}
        self._learned: str | None = None
        self._pristine: str | None = None
        self._pristine_marks: Marks = {}
        self._databases: list[str] = []
        self._marks: Marks = {}
        # How a process gets the downloads: links, and folders of its own (None).
        self._plan: list[tuple[str, str | None]] = []
        self._emitted: list[tuple[str, str | None]] = []
        self._packages: dict[str, str] = {}
        self._package_marks: Marks = {}
        self._download_marks: Marks = {}
        # Marks of the folders that are lent to a process, or wait to be.
        self._lent: dict[str, Marks] = {}
        self._idle: list[str] = []

    def make(self) -> str:
        """Return the ``DENO_DIR`` for a process that is about to start.

        Raises:
            OSError: It cannot be made.
        """
        if self._given is not None and self._given.is_closed:
            return self._given.path
        if self._out:
            self._check()  # otherwise the end of the last process has checked it
        self._out += 1
        if self._idle:
            path = self._idle.pop()
            self._loading.add(path)
            return path
        try:
            path = self._new_folder()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A handler has filled the disk: Deno runs without, and may make it later.
            return self._new_path()
        # Deno cannot make a folder where a link to a file is.
        os.symlink("/dev/null", f"{path}/{KEPT_DATA}")
        if self._round < ROUNDS:
            self._drafts[path] = self._round
            # After a failure the process only starts more slowly.
            with suppress(OSError):
                self._begin_draft(path)
        else:
            for name in self._databases:
                os.symlink(f"{self._learned}/{name}", f"{path}/{name}")
            self._lend(path)
            self._loading.add(path)
            folders = [path]
            lent = (*self._plan, *self._emitted)
            folders += [f"{path}/{name}" for name, to in lent if to is None]
            self._lent[path] = {folder: _mark(folder) for folder in folders}
        return path

    def make_for_copy(self) -> str:
        """Return the ``DENO_DIR`` for a copy of a process that has loaded.

        Raises:
            OSError: It cannot be made.
        """
        if self._round not in range(1, ROUNDS):
            return self.make()
        # It uses no database, so there is nothing to be learned from it.
        path = self._new_folder()
        self._out += 1
        os.symlink("/dev/null", f"{path}/{KEPT_DATA}")
        self._lend(path)
        return path

    def loaded(self, path: str) -> None:
        """Keep the files a process has added, and end its access to shared folders.

        To be called before the process has an event.

        Raises:
            OSError: A shared folder could not be taken away.
        """
        self._loading.discard(path)
        begun = self._drafts.pop(path, None)
        if begun is None:
            return
        if begun == self._round:
            try:
                self._learn(path)
            except OSError:  # the next process may do better
                self._begin_again()
        if begun == 0:
            self._lend(path)

    @property
    def is_own(self) -> bool:
        """True if each process has a folder of its own."""
        return self._given is None or not self._given.is_closed

    @property
    def is_known(self) -> bool:
        """True if a process has loaded: later ones write to nothing that they share."""
        return self._round > 0 or not self.is_own

    def give_back(self, path: str) -> None:
        """Remove the ``DENO_DIR`` of a process that could not be started."""
        self._loading.discard(path)
        self.remove(path)

    def remove(self, path: str) -> None:
        """Remove the ``DENO_DIR`` of an ended process, or keep it for another one."""
        if self._given is not None and path == self._given.path:
            return
        self._out -= 1
        self._drafts.pop(path, None)
        if path in self._loading:
            # The cache may be the cause: let the next ones load without it.
            self._begin_again()
        self._check()
        marks = self._lent.get(path)
        with suppress(OSError):
            if marks is not None and _is_unchanged(marks):
                self._idle.append(path)  # the process has added nothing
                return
        self._lent.pop(path, None)
        self._remove(path)

    # The caches of the first processes, and the files that are kept of them.

    def _begin_draft(self, path: str) -> None:
        given = self._given
        if self._round > 0:
            _write(self._snapshot, path)
            self._lend(path)
            return
        # The process may add to these until it has loaded.
        for name in DOWNLOADED:
            source = self._downloads(name)
            os.makedirs(source, mode=0o700, exist_ok=True)
            os.symlink(source, f"{path}/{name}")
        if given is not None:
            base, task_root = given.path, ""
            if not given.is_packaged:
                base, task_root = f"{given.path}/{LEARNED}", given.task_root
            _write(_read(base, task_root), path)

    def _learn(self, path: str) -> None:
        self._snapshot = _without_logs(_read(path))
        self._round += 1
        self._plan_downloads()
        if self._watches_downloads:
            # Entries that were noted before an event stay as they are.
            self._download_marks = {**self._mark_downloads(), **self._download_marks}
        if self._round == ROUNDS:
            self._finish()

    def _finish(self) -> None:
        """Write the kept files for all later processes, and a copy for repairs."""
        given = self._given
        if given is not None and not given.is_packaged:
            with suppress(OSError):  # the next supervisor starts more slowly
                _publish(self._snapshot, f"{given.path}/{LEARNED}")
        self._pristine = self._new_folder()
        _write(self._snapshot, self._pristine)
        files = [f"{self._pristine}/{name}" for name in self._snapshot]
        self._pristine_marks = {file: _mark(file) for file in files}
        self._close()
        self._snapshot = {}

    def _close(self) -> None:
        """Write a snapshot to a folder that processes can only read."""
        folder = self._learned = self._new_folder()
        _write(self._snapshot, folder)
        self._databases = [name for name in DATABASES if name in self._snapshot]
        for name in self._databases:
            # SQLite opens a read-only database only if these files exist.
            for end in COMPANIONS:
                file = f"{folder}/{name}{end}"
                os.close(os.open(file, os.O_CREAT | os.O_RDONLY, 0o600))
        for inner, _, names in os.walk(folder):
            for name in names:
                file = f"{inner}/{name}"
                os.chmod(file, 0o400)
                if not name.endswith(SHARED_MEMORY):  # root's SQLite writes there
                    self._marks[file] = _mark(file)
        # A process adds to folders of its own.
        self._emitted = list(_mirrored(f"{folder}/{EMITTED}", EMITTED, depth=-1))

    def _check(self) -> None:
        """Repair files that a process changed, as root or with all permissions."""
        if not self._is_root_unchanged():
            self._begin_again()
            self._remove(self._root)
            self._root_mark = None
        try:
            if not _is_unchanged(self._download_marks):
                raise FileNotFoundError  # as if they were not there
            if not _is_unchanged(self._package_marks):
                self._drop_packages()
            if _is_unchanged(self._marks):
                return
            if not _is_unchanged(self._pristine_marks):
                self._begin_again()
                return
            self._snapshot = _read(str(self._pristine))
            self._drop(self._learned)
            self._marks = {}
            self._close()
            self._snapshot = {}
        except OSError:
            # Downloads are fetched again as well.
            self._begin_again()
            for name in DOWNLOADED:
                self._remove(f"{self._root}/{name}")

    def _begin_again(self) -> None:
        """Discard the kept files; the next processes are the first again."""
        self._drop(self._learned, self._pristine)
        self._forget()

    def _drop(self, *folders: str | None) -> None:
        """Remove folders of kept files, and idle caches, which link to them."""
        for path in (*folders, *self._idle):
            if path is not None:
                self._remove(path)
        self._idle, self._lent = [], {}

    def _is_root_unchanged(self) -> bool:
        """Return whether the folder is the one that was made, and no link to it."""
        if self._root_mark is None:
            return True
        try:
            return _identity(self._root) == self._root_mark
        except OSError:
            return False

    def _new_folder(self) -> str:
        path = self._new_path()
        try:
            os.makedirs(path, 0o700)
        except (FileExistsError, NotADirectoryError, PermissionError):
            # A handler that may write everywhere has closed or replaced its parent.
            self._remove(self._root)
            self._root_mark = None
            os.makedirs(path, 0o700)
        if self._root_mark is None:
            self._root_mark = _identity(self._root)
        return path

    def _new_path(self) -> str:
        return f"{self._root}/{os.urandom(8).hex()}"

    # Packages and remote modules.

    def _downloads(self, name: str) -> str:
        """Return the folder of downloads, the same for the supervisor's whole life.

        Deno finds V8's code for a package by its path.
        """
        given = self._given
        if given is not None:
            path = f"{given.path}/{name}"
            if not given.is_packaged or os.path.isdir(path):
                return path
        return f"{self._root}/{name}"

    def _mark_downloads(self) -> Marks:
        """Return the marks of downloaded files in the supervisor's folder."""
        files = islice(
            (
                f"{inner}/{file}"
                for name in DOWNLOADED
                if self._downloads(name).startswith(self._root)
                for inner, _, names in os.walk(self._downloads(name))
                for file in names
            ),
            WATCHED_LIMIT,
        )
        return {file: _mark(file) for file in files}

    def _plan_downloads(self) -> None:
        """Decide how later processes get the downloads, and close them."""
        given, self.shared, self._plan = self._given, [], []
        packages = self._downloads(PACKAGES)
        if not os.listdir(packages):
            self._plan.append((PACKAGES, None))
        else:
            # V8's code for a package is found only if the package stays in its place.
            self._plan.append((PACKAGES, packages))
            if packages.startswith(self._root):
                self._close_packages()
            else:
                self.shared.append(PACKAGES)
        remote = self._downloads(REMOTE)
        limit = None if given is None else LINKS_LIMIT
        plan = list(islice(_mirrored(remote, REMOTE), limit))
        if len(plan) == limit:
            plan = [(REMOTE, remote)]
            self.shared.append(REMOTE)
        self._plan += plan

    def _close_packages(self) -> None:
        """Close the folders of packages, and note which packages there are."""
        packages = self._downloads(PACKAGES)
        found = dict(_mirrored(packages, ""))
        folders = [packages + inner for inner, target in found.items() if not target]
        for folder in reversed(folders):
            os.chmod(folder, 0o500)
        self._packages = {inner: target or "" for inner, target in found.items()}
        self._package_marks = {folder: _mark(folder) for folder in folders}

    def _drop_packages(self) -> None:
        """Remove packages that were added by a process with all permissions.

        Raises:
            OSError: A package is missing.
        """
        packages = self._downloads(PACKAGES)
        found = [inner for inner, _ in _mirrored(packages, "")]
        if set(self._packages) - set(found):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), packages)
        for folder in self._package_marks:
            os.chmod(folder, 0o700)
        for inner in found:
            parent = inner.rpartition("/")[0]
            if inner not in self._packages and parent in self._packages:
                self._remove(packages + inner)
        self._close_packages()

    def _lend(self, path: str) -> None:
        """Give a process read-only links to all kept files, and folders of its own."""
        own: list[str] = []
        for name in (*DOWNLOADED, EMITTED):
            if os.path.islink(f"{path}/{name}"):
                os.unlink(f"{path}/{name}")
            elif os.path.exists(f"{path}/{name}"):
                own.append(name)
        for inner, target in (*self._plan, *self._emitted):
            if inner.partition("/")[0] in own:
                continue
            if target is None:
                os.mkdir(f"{path}/{inner}", 0o700)
            else:
                os.symlink(target, f"{path}/{inner}")


def _mirrored(
    source: str, name: str, depth: int = DEPTH
) -> Iterator[tuple[str, str | None]]:
    """Yield the folders (no target) and links that imitate a folder to a depth."""
    try:
        entries = list(os.scandir(source))
    except OSError:
        return
    yield name, None
    for entry in entries:
        inner = f"{name}/{entry.name}"
        if depth and entry.is_dir(follow_symlinks=False):
            is_scope = entry.name.startswith(SCOPE)
            yield from _mirrored(entry.path, inner, depth if is_scope else depth - 1)
        else:
            yield inner, entry.path


def _mark(path: str) -> tuple[int, ...]:
    """Return values that change when a file or folder is changed or replaced.

    Raises:
        OSError: It does not exist.
    """
    status = os.lstat(path)
    # Only the kernel can set ctime, but root's SQLite sets the owner of each file that
    # it opens, which changes it.
    changed_ns = status.st_ctime_ns if os.geteuid() else status.st_mtime_ns
    return (status.st_ino, changed_ns, status.st_size, status.st_mode)


def _identity(path: str) -> tuple[int, ...]:
    """Return values that change when a folder is replaced, closed or opened.

    Raises:
        OSError: It does not exist, or is out of reach.
    """
    status = os.lstat(path)
    return (status.st_dev, status.st_ino, status.st_mode)


def _is_unchanged(marks: Marks) -> bool:
    """Return whether none of these files and folders has changed.

    Raises:
        OSError: One does not exist.
    """
    return all(_mark(path) == mark for path, mark in marks.items())


def _read(folder: str, task_root: str = "") -> Snapshot:
    """Return the databases and the files in ``EMITTED``.

    A database is read as it was at one moment, or left out.

    Args:
        folder: A ``DENO_DIR``.
        task_root: Local modules outside this folder are left out; empty: none is.

    Raises:
        OSError: They are too large, or cannot be read.
    """
    found: Snapshot = {}
    left = COPIED_LIMIT_BYTES
    for name in DATABASES:
        files = [f"{folder}/{name}{end}" for end in ("", WAL)]
        try:
            files = [file for file in files if os.path.isfile(file)]
            before = {file: _mark(file) for file in files}
            if sum(mark[2] for mark in before.values()) > left:
                continue
            contents = {file[len(folder) + 1 :]: _content(file) for file in files}
            if files and _is_unchanged(before):
                found |= contents
                left -= sum(map(len, contents.values()))
        except FileNotFoundError:  # Deno replaces a database that it cannot read
            continue
    for file in _emitted_files(folder, task_root):
        found[file[len(folder) + 1 :]] = content = _content(file)
        left -= len(content)
        if left < 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), folder)
    return found


def _without_logs(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot whose databases need no recovery when they are opened."""
    # Not needed for the first process, which waits for no import.
    from lambda_deno_spawn.launch.database import merged

    for name in DATABASES:
        database, log = snapshot.get(name), snapshot.get(name + WAL)
        if not database or not log:
            continue
        whole = merged(database, log, COPIED_LIMIT_BYTES)
        if whole is not None:
            snapshot = {**snapshot, name: whole, name + WAL: b""}
    return snapshot


def _emitted_files(folder: str, task_root: str) -> Iterator[str]:
    """Yield the paths of the files in ``EMITTED``; see ``_read``."""
    roots = [f"{folder}/{EMITTED}"]
    if task_root:
        roots.append(f"{folder}/{LOCAL}{task_root}")
    for root in roots:
        for inner, folders, names in os.walk(root):
            if task_root and inner == f"{folder}/{LOCAL}":
                folders.clear()  # the task root is walked on its own
            yield from (f"{inner}/{name}" for name in names)


def _content(path: str) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(COPIED_LIMIT_BYTES + 1)


def _write(snapshot: Snapshot, folder: str) -> None:
    """Write files that do not exist yet, and their folders.

    Raises:
        OSError: They cannot be written.
    """
    made = {folder}
    for name, content in snapshot.items():
        path = f"{folder}/{name}"
        parent = os.path.dirname(path)
        if parent not in made:
            os.makedirs(parent, mode=0o700, exist_ok=True)
            made.add(parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            file.write(content)


def _publish(snapshot: Snapshot, target: str) -> None:
    """Write kept files into a given cache, completely or not at all.

    Raises:
        OSError: It cannot be written.
    """
    new = f"{target}-{os.urandom(8).hex()}"
    os.makedirs(new, mode=0o700)
    try:
        _write(snapshot, new)
        old = f"{target}-{os.urandom(8).hex()}"
        with suppress(FileNotFoundError):
            os.rename(target, old)
        os.rename(new, target)
        remove_tree(old)
    except OSError:
        remove_tree(new)
        raise

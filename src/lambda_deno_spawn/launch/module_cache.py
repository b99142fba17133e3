"""Deno's cache as each process gets it: what was loaded before any event, no more.

Deno's module loader writes to its cache without asking for a permission, so a cache
that events share is a way from one to the next. Here each process has a ``DENO_DIR`` of
its own, and what it adds ends with it. What the first processes put there while they
loaded the handler's module, before they had an event, is kept and lent to all later
ones, through links to what Deno does not write to. Refuses to know processes and
events. Decision 0027.
"""

from __future__ import annotations

import contextlib
import errno
import os
from itertools import islice

from lambda_deno_spawn.launch.files import is_writable
from lambda_deno_spawn.processes.state import remove_tree
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_deno_spawn.config import Settings

PACKAGED_DENO_DIR = ".deno_dir"  # in the task root, made by `build`
FOLDER = "deno_dir"  # in the supervisor's
# Where Deno keeps what localStorage, the Cache API and Deno.openKv hold: for all
# processes with the same entry module or configuration. Where a file is it can make no
# folder, so nothing is kept.
KEPT_DATA = "location_data"
# What Deno finds out about modules: their imports, CommonJS exports, V8's code.
DATABASES = ("dep_analysis_cache_v2", "node_analysis_cache_v2", "v8_code_cache_v2")
WAL, SHARED_MEMORY = "-wal", "-shm"  # SQLite finds them by themselves
COMPANIONS = (WAL, SHARED_MEMORY)
EMITTED = "gen"  # JavaScript made from TypeScript
LOCAL = f"{EMITTED}/file"  # of modules that are files, by their paths
# What is downloaded, with how deep Deno makes new folders in it: registry and package,
# protocol and host. What lies below is made once and not changed.
PACKAGES, REMOTE = "npm", "remote"
DOWNLOADED = (PACKAGES, REMOTE)
DEPTH = 2
SCOPE = "@"  # of packages: one more folder
# The first process finds nothing, and what it has loaded is kept. The second one makes
# statistics of that, as SQLite does of what it opens; later ones have nothing to add.
ROUNDS = 2
# A larger cache of somebody else's is linked to as it is: to take it apart would take
# longer than a process takes to start.
LINKS_LIMIT = 2_000
COPIED_LIMIT_BYTES = 32 * 1024 * 1024
# In a cache that is given and can be written to: what was learned, for the next
# supervisor.
LEARNED = "lambda-deno-spawn"

# Contents of files, by their names in the folder.
Snapshot = dict[str, bytes]
# What files and folders look like, by their paths.
Marks = dict[str, tuple[int, ...]]


class GivenCache(NamedTuple):
    """A cache that there is to begin with.

    Attributes:
        path: Where it is, or will be.
        is_packaged: It came with the function: nothing is added to it.
        is_closed: It cannot be written to, so all processes can have it as it is.
        task_root: The function's folder. Of other functions' modules, which a cache on
            a developer's machine is full of, nothing is taken; empty: of all modules.
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
        shared: Which parts of the cache that was given are shared as they are:
            packages, as they are only found in their place, and too many modules.
    """

    def __init__(
        self,
        state_dir: str,
        given: GivenCache | None = None,
        remove: Callable[[str], object] = remove_tree,
    ) -> None:
        """Take the supervisor's folder and a cache to begin with; touches neither.

        Args:
            state_dir: The supervisor's folder.
            given: What there is to begin with.
            remove: Removes a folder, whatever is in it, without taking long.
        """
        self._remove = remove
        self._root = f"{state_dir}/{FOLDER}"
        self._given = given
        # How many processes there are that could have changed something.
        self._out = 0
        # Of processes that have not loaded yet, with the round in which they began.
        self._drafts: dict[str, int] = {}
        # Of processes that have what was learned, and have not loaded.
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
        # What gives a process the downloads: links, and folders of its own (None).
        self._plan: list[tuple[str, str | None]] = []
        self._emitted: list[tuple[str, str | None]] = []
        self._packages: dict[str, str] = {}
        self._package_marks: Marks = {}
        # What folders looked like that were lent to a process, or wait to be.
        self._lent: dict[str, Marks] = {}
        self._idle: list[str] = []

    def make(self) -> str:
        """Return the ``DENO_DIR`` of a process to be.

        Raises:
            OSError: It cannot be made.
        """
        if self._given is not None and self._given.is_closed:
            return self._given.path
        if self._out:
            self._check()  # else it was looked at when the last one had ended
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
            # A handler has filled the disk: Deno can do without, and may make it later.
            return self._new_path()
        # Where something is that is no folder, Deno can make none.
        os.symlink("/dev/null", f"{path}/{KEPT_DATA}")
        if self._round < ROUNDS:
            self._drafts[path] = self._round
            # Without it a process only starts more slowly.
            with contextlib.suppress(OSError):
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

    def loaded(self, path: str) -> None:
        """Keep what a process has added to its ``DENO_DIR``, and close its ways out.

        To be called before the process has an event.

        Raises:
            OSError: What it shares could not be taken from it.
        """
        self._loading.discard(path)
        begun = self._drafts.pop(path, None)
        if begun is None:
            return
        if begun == self._round:
            try:
                self._learn(path)
            except OSError:  # what cannot be learned from this one may be from the next
                self._begin_again()
        if begun == 0:
            self._lend(path)

    def remove(self, path: str) -> None:
        """Take back the ``DENO_DIR`` of a process that has ended."""
        if self._given is not None and path == self._given.path:
            return
        self._out -= 1
        self._drafts.pop(path, None)
        if path in self._loading:
            # It may not be the module's fault: let the next ones load it anew.
            self._begin_again()
        self._check()
        marks = self._lent.get(path)
        with contextlib.suppress(OSError):
            if marks is not None and _is_as(marks):
                self._idle.append(path)  # it has left nothing
                return
        self._lent.pop(path, None)
        self._remove(path)

    # What the first processes get, and what is kept of it.

    def _begin_draft(self, path: str) -> None:
        given = self._given
        if self._round > 0:
            _write(self._snapshot, path)
            self._lend(path)
            return
        # It may add to these until it has loaded.
        for name in DOWNLOADED:
            source = self._downloads(name)
            os.makedirs(source, mode=0o700, exist_ok=True)
            os.symlink(source, f"{path}/{name}")
        if given is not None:
            if given.is_packaged:
                _write(_read(given.path), path)
            else:
                learned = _read(f"{given.path}/{LEARNED}", given.task_root)
                _write(learned, path)

    def _learn(self, path: str) -> None:
        self._snapshot = _read(path)
        self._round += 1
        self._plan_downloads()
        if self._round == ROUNDS:
            self._finish()

    def _finish(self) -> None:
        """Write down what was learned, for all processes to come, and once more."""
        given = self._given
        if given is not None and not given.is_packaged:
            with contextlib.suppress(OSError):  # the next supervisor starts more slowly
                _publish(self._snapshot, f"{given.path}/{LEARNED}")
        self._pristine = self._new_folder()
        _write(self._snapshot, self._pristine)
        files = [f"{self._pristine}/{name}" for name in self._snapshot]
        self._pristine_marks = {file: _mark(file) for file in files}
        self._close()
        self._snapshot = {}

    def _close(self) -> None:
        """Write a snapshot to where it can be read and not written to."""
        folder = self._learned = self._new_folder()
        _write(self._snapshot, folder)
        self._databases = [name for name in DATABASES if name in self._snapshot]
        for name in self._databases:
            # SQLite takes a database that nobody may write to if these are there.
            for end in COMPANIONS:
                file = f"{folder}/{name}{end}"
                os.close(os.open(file, os.O_CREAT | os.O_RDONLY, 0o600))
        for inner, _, names in os.walk(folder):
            for name in names:
                file = f"{inner}/{name}"
                os.chmod(file, 0o400)
                if not name.endswith(SHARED_MEMORY):  # root writes there to read
                    self._marks[file] = _mark(file)
        # It adds to folders of its own.
        self._emitted = list(_mirrored(f"{folder}/{EMITTED}", EMITTED, depth=-1))

    def _check(self) -> None:
        """Put right what was changed, by root or by who may write everywhere."""
        try:
            if not _is_as(self._package_marks):
                self._drop_packages()
            if _is_as(self._marks):
                return
            if not _is_as(self._pristine_marks):
                self._begin_again()
                return
            self._snapshot = _read(str(self._pristine))
            self._drop(self._learned)
            self._marks = {}
            self._close()
            self._snapshot = {}
        except OSError:
            # What was downloaded is loaded again as well.
            self._begin_again()
            for name in DOWNLOADED:
                self._remove(f"{self._root}/{name}")

    def _begin_again(self) -> None:
        """Forget what was learned; the next processes teach it again."""
        self._drop(self._learned, self._pristine)
        self._forget()

    def _drop(self, *folders: str | None) -> None:
        """Remove what was learned, and what leads there."""
        for path in (*folders, *self._idle):
            if path is not None:
                self._remove(path)
        self._idle, self._lent = [], {}

    def _new_folder(self) -> str:
        path = self._new_path()
        try:
            os.makedirs(path, 0o700)
        except (FileExistsError, NotADirectoryError, PermissionError):
            # Somebody who may write everywhere has closed or replaced what it is in.
            self._remove(self._root)
            os.makedirs(path, 0o700)
        return path

    def _new_path(self) -> str:
        return f"{self._root}/{os.urandom(8).hex()}"

    # Packages and remote modules.

    def _downloads(self, name: str) -> str:
        """Return where downloads are, the same place for as long as the supervisor is.

        Deno finds V8's code by the path of a package.
        """
        given = self._given
        if given is not None:
            path = f"{given.path}/{name}"
            if not given.is_packaged or os.path.isdir(path):
                return path
        return f"{self._root}/{name}"

    def _plan_downloads(self) -> None:
        """Decide how the processes to come get what was downloaded, and close it."""
        given, self.shared, self._plan = self._given, [], []
        packages = self._downloads(PACKAGES)
        if not os.listdir(packages):
            self._plan.append((PACKAGES, None))
        else:
            # A package is only found where it was when V8's code was made of it.
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
        """Let nobody add a package, and note which there are."""
        packages = self._downloads(PACKAGES)
        found = dict(_mirrored(packages, ""))
        folders = [packages + inner for inner, target in found.items() if not target]
        for folder in reversed(folders):
            os.chmod(folder, 0o500)
        self._packages = {inner: target or "" for inner, target in found.items()}
        self._package_marks = {folder: _mark(folder) for folder in folders}

    def _drop_packages(self) -> None:
        """Remove what was added by somebody who is not kept from it.

        Raises:
            OSError: Something that was there is not.
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
        """Give a process what there is, to be read, and room for what it adds."""
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
    """Yield folders (no target) and links that look like a folder, down to a depth."""
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
    """Return what tells whether a file or folder is as it was.

    Raises:
        OSError: It is not there.
    """
    status = os.lstat(path)
    # Not the time of the last change of any kind: as root, SQLite gives a file that it
    # opens to its owner again.
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)


def _is_as(marks: Marks) -> bool:
    """Tell whether all of these are as they were.

    Raises:
        OSError: One is not there.
    """
    return all(_mark(path) == mark for path, mark in marks.items())


def _read(folder: str, task_root: str = "") -> Snapshot:
    """Return what there is of the databases and in ``EMITTED``.

    A database is there as it was at one moment, or not at all.

    Args:
        folder: A ``DENO_DIR``.
        task_root: Local modules are those in this folder; empty: all of them.

    Raises:
        OSError: There is too much, or it cannot be read.
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
            if files and _is_as(before):
                found |= contents
                left -= sum(map(len, contents.values()))
        except FileNotFoundError:  # Deno replaces what it cannot read
            continue
    for file in _emitted_files(folder, task_root):
        found[file[len(folder) + 1 :]] = content = _content(file)
        left -= len(content)
        if left < 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), folder)
    return found


def _emitted_files(folder: str, task_root: str) -> Iterator[str]:
    roots = [f"{folder}/{EMITTED}"]
    if task_root:
        roots.append(f"{folder}/{LOCAL}{task_root}")
    for root in roots:
        for inner, folders, names in os.walk(root):
            if task_root and inner == f"{folder}/{LOCAL}":
                folders.clear()  # a root of its own
            yield from (f"{inner}/{name}" for name in names)


def _content(path: str) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(COPIED_LIMIT_BYTES + 1)


def _write(snapshot: Snapshot, folder: str) -> None:
    """Write files that are not there yet, and the folders that they are in.

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
    """Put what was learned beside a cache, as a whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    new = f"{target}-{os.urandom(8).hex()}"
    os.makedirs(new, mode=0o700)
    try:
        _write(snapshot, new)
        old = f"{target}-{os.urandom(8).hex()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, old)
        os.rename(new, target)
        remove_tree(old)
    except OSError:
        remove_tree(new)
        raise

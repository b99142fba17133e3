"""Run a command as Lambda runs a function: ``python -m tests.as_lambda COMMAND...``.

The command runs in a mount namespace of its own, whose file system is read-only except
for a fresh ``/tmp`` and for ``/proc``, where a process may write what concerns itself.
It has the user, the limits and the lack of privileges that it would have on Lambda.
Folders that it needs and that this user may not enter (Python below a home folder, for
example) are mounted where they were. Nothing outside the namespace is changed, and the
namespace ends with the command. Needs root and Linux 5.12.

Facts: AWS Lambda Developer Guide, "Lambda quotas" (descriptors, processes, ``/tmp``);
mount_setattr(2), prctl(2), capabilities(7). User and group are those of a function on
Amazon Linux 2023.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

UID = 993
GID = 990
HOME = "/home/sbx_user1051"  # does not exist on Lambda either
LIMIT = 1024  # descriptors, and processes
TMP = Path("/tmp")
TMP_SIZE = "512m"
PROC = Path("/proc")
# sysexits.h; no test runner exits with it.
EX_UNAVAILABLE = 69

MS_RDONLY, MS_NOSUID, MS_NODEV = 1, 2, 4
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
CLONE_NEWNS = 0x20000
SYS_MOUNT_SETATTR = 442  # the same on every architecture
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Turn this process into one that Lambda would start, and run the command."""
    command = sys.argv[1:]
    if not command:
        sys.exit("Usage: python -m tests.as_lambda COMMAND...")
    if sys.platform != "linux" or os.geteuid() != 0:
        refuse("it takes root on Linux to make a file system read-only")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    here = Path.cwd()
    interpreter = [Path(sys.prefix), Path(sys.base_prefix)]
    # Tests look for other versions of Python there.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    needed = [here, *interpreter, cache / "lambda-deno-spawn", pyenv]
    try:
        enclose(outermost(path.resolve() for path in needed if path.exists()))
        os.chdir(here)  # into the new mount of the same folder
    except OSError as error:
        refuse(str(error))
    drop_privileges()
    environ = {
        **os.environ,
        "HOME": HOME,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(TMP / "hypothesis"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(cache.resolve()),
    }
    environ.pop("TMPDIR", None)
    os.execvpe(command[0], command, environ)


def refuse(reason: str) -> NoReturn:
    """Exit without running the command."""
    sys.stderr.write(f"Cannot run as Lambda would: {reason}\n")
    sys.exit(EX_UNAVAILABLE)


def enclose(needed: Iterable[Path]) -> None:
    """Give this process a read-only file system with an empty ``/tmp``.

    Args:
        needed: Folders that the unprivileged user must be able to read.
    """
    call("unshare", CLONE_NEWNS)
    mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
    was_writable = not os.statvfs(PROC).f_flag & os.ST_RDONLY
    make_read_only(Path("/"))
    if was_writable:
        # Lambda's is writable too; there it is privileges that a process lacks.
        set_mount(PROC, 0, clear=MOUNT_ATTR_RDONLY)
    # Keep them open: the mounts below may cover them.
    held = {path: os.open(path, os.O_PATH) for path in needed}
    for cover in outermost([TMP, *filter(None, map(closed_part, held))]):
        is_tmp = cover == TMP
        options = f"mode=1777,size={TMP_SIZE}" if is_tmp else "mode=755"
        mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV, options)
        for path, descriptor in held.items():
            if path.is_relative_to(cover):
                path.parent.mkdir(parents=True, exist_ok=True)
                show(Path(f"/proc/self/fd/{descriptor}"), path)
        if not is_tmp:
            mount(None, cover, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    for descriptor in held.values():
        os.close(descriptor)


def closed_part(path: Path) -> Path | None:
    """Return the outermost folder of a path that other users may not enter."""
    for folder in (*reversed(path.parents), path):
        if not is_open(folder):
            return folder
    return None


def is_open(path: Path) -> bool:
    """Tell whether other users may enter a folder (or read a file)."""
    mode = path.stat().st_mode
    return bool(mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH))


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that are not inside another one of them."""
    found: list[Path] = []
    for folder in sorted(folders):
        if not any(folder.is_relative_to(other) for other in found):
            found.append(folder)
    return found


def show(source: Path, target: Path) -> None:
    """Bind-mount a file or folder; if the folder is closed, each entry in it."""
    if not source.is_dir():
        target.touch()
    else:
        target.mkdir(exist_ok=True)
        if not is_open(source):
            for entry in source.iterdir():
                if entry.is_symlink():
                    (target / entry.name).symlink_to(entry.readlink())
                else:
                    show(entry, target / entry.name)
            return
    mount(str(source), target, None, MS_BIND | MS_REC)


def drop_privileges() -> None:
    """Become Lambda's user, with its limits, irrevocably."""
    for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        resource.setrlimit(which, (LIMIT, LIMIT))
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(GID, GID, GID)
    os.setresuid(UID, UID, UID)


def make_read_only(path: Path) -> None:
    """Make the mount at a path read-only, and every mount below it."""
    set_mount(path, AT_RECURSIVE, add=MOUNT_ATTR_RDONLY)


def set_mount(path: Path, flags: int, *, add: int = 0, clear: int = 0) -> None:
    """Call mount_setattr(2)."""
    attributes = struct.pack("=4Q", add, clear, 0, 0)
    arguments = (AT_FDCWD, bytes(path), flags, attributes, len(attributes))
    call("syscall", SYS_MOUNT_SETATTR, *arguments)


def mount(
    source: str | None, target: Path, kind: str | None, flags: int, options: str = ""
) -> None:
    """Call mount(2)."""
    texts = [text and text.encode() for text in (source, str(target), kind)]
    call("mount", *texts, ctypes.c_ulong(flags), options.encode() or None)


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 on success.

    Raises:
        OSError: It returned something else.
    """
    if LIBC[name](*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


if __name__ == "__main__":
    main()

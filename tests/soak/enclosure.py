"""Run a command as Lambda's user: ``python -m tests.soak.enclosure TMP SHOWN -- CMD``.

Like ``tests.as_lambda``, but with ``/tmp`` on a disk: the kernel charges the content of
a tmpfs to the memory of the command's control group, unlike on Lambda. ``TMP`` is a
folder with the image of a file system, ``SHOWN`` another path that must be readable.
Neither may be in ``/tmp``. All mounts end with the command. Needs root and Linux 5.12.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from tests.as_lambda import (
    CLONE_NEWNS,
    HOME,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_REMOUNT,
    TMP,
    call,
    drop_privileges,
    enclose,
    mount,
    outermost,
    refuse,
)

IMAGE = "image"
DISK = "disk"
SIZE_BYTES = 512 * 1024 * 1024


def unavailable() -> str:
    """Return why this machine cannot create the disk; empty if it can."""
    if shutil.which("mkfs.ext4") is None:
        return "a /tmp of its own needs mkfs.ext4"
    if not Path("/dev/loop-control").exists():
        return "a /tmp of its own needs loop devices"
    if Path(sys.prefix).resolve().is_relative_to(TMP):
        return f"a /tmp of its own would hide {sys.prefix}"
    return ""


def prepare(folder: Path) -> None:
    """Create the image of an empty ``/tmp``, and its mount point.

    Raises:
        OSError: mkfs.ext4 is missing, or failed.
    """
    (folder / DISK).mkdir()
    image = folder / IMAGE
    image.touch()
    os.truncate(image, SIZE_BYTES)
    # Without a journal: nothing has to be recovered.
    flags = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-N", "262144"]
    done = subprocess.run(
        ["mkfs.ext4", *flags, str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"mkfs.ext4: {done.stderr.strip()}")


def main() -> NoReturn:
    """Mount the needed paths and the disk, drop privileges, and exec the command."""
    at = sys.argv.index("--")
    folder, *shown = map(Path, sys.argv[1:at])
    command = sys.argv[at + 1 :]
    disk = folder / DISK
    try:
        call("unshare", CLONE_NEWNS)
        mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
        # Before the other mounts become read-only: the image must stay writable.
        options = "loop,nosuid,nodev,noatime"
        subprocess.run(
            ["mount", "-n", "-t", "ext4", "-o", options, folder / IMAGE, disk],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (disk / "lost+found").rmdir()
        disk.chmod(0o1777)
        enclose(outermost([*shown, folder, Path(sys.prefix), Path(sys.base_prefix)]))
        mount(str(disk), TMP, None, MS_BIND)
        mount(None, TMP, None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)
        # The same folder, through the new mount.
        os.chdir(os.environ["LAMBDA_TASK_ROOT"])
    except (OSError, subprocess.CalledProcessError) as error:
        refuse(str(error))
    drop_privileges()
    os.execvpe(command[0], command, {**os.environ, "HOME": HOME})


if __name__ == "__main__":
    main()

"""Run a command in the root of an image: ``python -m tests.image_root ROOT FOLDER...``.

As Lambda runs a container: its own file system, read-only but for a fresh ``/tmp``, the
user, the limits and the lack of privileges of ``tests.as_lambda``. After ``--`` comes
the command. Needs root and Linux 5.12.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from tests.as_lambda import (
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    TMP_SIZE,
    call,
    drop_privileges,
    mount,
    refuse,
)

PLACES = ("proc", "dev", "tmp")


def main() -> NoReturn:
    """Enter the root and become the command."""
    at = sys.argv.index("--")
    root, folder = Path(sys.argv[1]), sys.argv[2]
    command = sys.argv[at + 1 :]
    if sys.platform != "linux" or os.geteuid() != 0:
        refuse("it takes root on Linux to mount")
    try:
        for name in PLACES:
            (root / name).mkdir(exist_ok=True)
        call("unshare", CLONE_NEWNS)
        mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
        mount(str(root), root, None, MS_BIND | MS_REC)
        mount(None, root, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
        for name in ("proc", "dev"):
            mount(f"/{name}", root / name, None, MS_BIND | MS_REC)
        options = f"mode=1777,size={TMP_SIZE}"
        mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, options)
        os.chroot(root)
        os.chdir(folder)
    except OSError as error:
        refuse(str(error))
    # The number of capabilities is in /proc, which is there inside, too.
    drop_privileges()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()

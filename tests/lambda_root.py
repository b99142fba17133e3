"""Run a command where files are as in Lambda: ``python -m tests.lambda_root PLACE...``.

``PLACE`` is ``/opt=FOLDER``, ``/var/task=FOLDER`` and so on: what is shown there,
read-only, in a mount namespace of its own. After ``--`` comes the command. The rest of
the file system is read-only but for a fresh ``/tmp``; the user, the limits and the lack
of privileges are those of ``tests.as_lambda``, unless the first argument is
``--as-root``: for who drops them for others. Needs root and Linux 5.12.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tests.as_lambda import (
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    TMP,
    TMP_SIZE,
    call,
    drop_privileges,
    make_read_only,
    mount,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VAR = Path("/var")  # nothing of this machine's is left in it
# Variable with the number of a descriptor: it gets the time when the command starts, in
# nanoseconds of ``time.perf_counter``, which on Linux is one clock for all processes.
STARTED_FD = "LAMBDA_ROOT_STARTED_FD"
ROOT = Path(__file__).parents[1]
AS_ROOT = "--as-root"


@dataclass(frozen=True, slots=True)
class LambdaRoot:
    """What is shown where.

    Attributes:
        places: Folder or file of this machine by its path inside.
        as_root: Keep the privileges.
    """

    places: Mapping[str, Path] = field(default_factory=dict)
    as_root: bool = False

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs another one inside; to be run in ``ROOT``."""
        shown = [f"{place}={source}" for place, source in self.places.items()]
        flags = [AS_ROOT] if self.as_root else []
        return [sys.executable, "-m", "tests.lambda_root", *flags, *shown, "--", *argv]


def main() -> NoReturn:
    """Show the places and become the command."""
    at = sys.argv.index("--")
    as_root = sys.argv[1] == AS_ROOT
    places = dict(one.split("=", 1) for one in sys.argv[1 + as_root : at])
    command = sys.argv[at + 1 :]
    if sys.platform != "linux" or os.geteuid() != 0:
        refuse("it takes root on Linux to mount")
    try:
        enclose({Path(place): Path(source) for place, source in places.items()})
        os.chdir("/var/task")
    except OSError as error:
        refuse(str(error))
    if not as_root:
        drop_privileges()
    # Whoever measures does not want to measure the above.
    if descriptor := os.environ.pop(STARTED_FD, None):
        os.write(int(descriptor), str(time.perf_counter_ns()).encode())
        os.close(int(descriptor))
    os.execvp(command[0], command)


def enclose(places: Mapping[Path, Path]) -> None:
    """Leave this process a read-only file system with the places in it."""
    call("unshare", CLONE_NEWNS)
    mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
    # Held open, as what is mounted next may cover them.
    held = {place: os.open(source, os.O_PATH) for place, source in places.items()}
    make_read_only(Path("/"))
    mount("tmpfs", TMP, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={TMP_SIZE}")
    mount("tmpfs", VAR, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for place, descriptor in held.items():
        source = Path(f"/proc/self/fd/{descriptor}")
        if place.is_relative_to(VAR):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir() if source.is_dir() else place.touch()
        mount(str(source), place, None, MS_BIND | MS_REC)
        mount(None, place, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
        os.close(descriptor)
    mount(None, VAR, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


if __name__ == "__main__":
    main()

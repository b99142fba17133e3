"""The user's home folder, and the folder in it for caches.

Knows where they are looked for: containers, services and continuous integration may run
a command without HOME, or as a user whom the system does not know. Does not know what
is stored there. Specification: XDG Base Directory Specification.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping


def home_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the home folder, as HOME or the system's list of users names it.

    None: neither does.
    """
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def caches_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for caches; it need not exist.

    Raises:
        BuildError: The user has no home folder.
    """
    if caches := environ.get("XDG_CACHE_HOME"):
        return Path(caches)
    home = home_folder(environ)
    if home is None:
        raise BuildError(
            "Cannot find the folder for caches: neither HOME nor XDG_CACHE_HOME is "
            "set, and this user is unknown to the system; set one of them to a folder"
        )
    return home / ".cache"

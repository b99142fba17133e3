"""Writes the locks: exact versions, with digests of every file that PyPI has of them.

``python -m tests.release.lock [--upgrade]``, or ``make lock``. A lock holds for every
Python and system that the project supports, because uv resolves for all at once.
Without ``--upgrade`` the versions that are there stay as long as pyproject.toml allows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "locks"
UV = Path(sys.executable).with_name("uv")
OLDEST_PYTHON = "3.11"
# The largest one comes first: the others take their versions from it.
GROUPS: dict[str, tuple[str, ...]] = {
    "release": ("dev", "release"),
    "dev": ("dev",),
    "cli": (),
}
# For these, nothing of a lock may have to be compiled.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LINUX = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
SYSTEMS = {
    "dev": (*LINUX, "aarch64-apple-darwin"),
    "cli": ("x86_64-apple-darwin",),
}


def main() -> int:
    """Write all locks, and check that there are wheels for each Python and system."""
    options = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    for name, groups in GROUPS.items():
        first = name == "release"
        run(
            *("pip", "compile", "pyproject.toml", "--universal", "--generate-hashes"),
            *("--python-version", OLDEST_PYTHON, "--no-annotate"),
            *("--custom-compile-command", "make lock"),
            *(part for group in groups for part in ("--group", group)),
            *(options if first else ("--constraints", "locks/release.txt")),
            *("--output-file", f"locks/{name}.txt"),
        )
    for name, systems in SYSTEMS.items():
        for system in systems:
            for python in PYTHONS:
                check_wheels(name, system, python)
    return 0


def check_wheels(name: str, system: str, python: str) -> None:
    """Let uv choose a wheel for each pin of a lock; nothing is downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        run(
            *("pip", "install", "--dry-run", "--no-deps", "--target", folder),
            *("--require-hashes", "--only-binary", ":all:"),
            *("--python-platform", system, "--python-version", python),
            *("--requirements", f"locks/{name}.txt"),
        )


def run(*arguments: str) -> None:
    """Run uv in the project's folder; its own messages are shown if it fails."""
    subprocess.run([str(UV), *arguments, "--quiet"], cwd=ROOT, check=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"Cannot write the locks: uv ended with {error.returncode}; see above")

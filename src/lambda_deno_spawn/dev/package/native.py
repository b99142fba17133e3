"""Builds the library that forks Deno, for both of Lambda's architectures.

Knows the compiler and its arguments. Does not know what the library does
(docs/native.md) or where it is packaged. The compiler is a package on PyPI
(``ziglang``) with the headers and symbols of all versions of glibc for all processors,
so every machine builds the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from lambda_deno_spawn.dev.project.home import caches_folder
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.native.control import LIBRARY

SOURCES = Path(__file__).parents[2] / "native"
BUILT = SOURCES / "lib"  # where ``library_path`` looks
# The oldest glibc that Deno 2.9 supports.
GLIBC = (2, 27)
MACHINES = ("x86_64", "aarch64")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")
FLAGS = (
    "-std=c11", *WARNINGS, "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden",
    "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--build-id=none", "-s",
)  # fmt: skip
LIMIT_S = 300.0  # the first run of the compiler also builds its own libraries


def target(machine: str) -> str:
    """Return the compiler's name of a machine with the oldest glibc."""
    return f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"


def sources() -> list[str]:
    """Return the names of the files to compile, sorted."""
    return sorted(path.name for path in SOURCES.glob("*.c"))


def compile_library(machine: str) -> bytes:
    """Return the library for one architecture; the build is reproducible.

    Args:
        machine: One of ``MACHINES``.

    Raises:
        BuildError: The compiler is not installed, or failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, LIBRARY)
        compile_c([*FLAGS, "-o", str(output), *sources(), "-ldl"], machine)
        return output.read_bytes()


def compile_c(arguments: list[str], machine: str) -> None:
    """Run the compiler beside the sources.

    Raises:
        BuildError: The compiler is not installed, or failed.
    """
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target(machine)]
    with tempfile.TemporaryDirectory() as scratch:
        shared = Path(scratch)
        with contextlib.suppress(BuildError):  # no home folder
            shared = caches_folder(os.environ) / "lambda-deno-spawn" / "zig"
        environ = {
            **os.environ,
            # A new cache: earlier builds from other paths must not affect this one.
            "ZIG_LOCAL_CACHE_DIR": scratch,
            "ZIG_GLOBAL_CACHE_DIR": str(shared) if _is_usable(shared) else scratch,
        }
        try:
            done = subprocess.run(
                [*command, *arguments],
                cwd=SOURCES,
                env=environ,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"Cannot run the compiler: {error}") from error
    if "No module named ziglang" in done.stderr:
        raise BuildError(
            "Cannot compile the library that forks Deno: the compiler is not "
            "installed; run `pip install ziglang`"
        )
    if done.returncode:
        raise BuildError(f"Cannot compile for {machine}: {done.stderr.strip()}")


def _is_usable(folder: Path) -> bool:
    """Create a folder if needed; return whether it is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def built_library(machine: str) -> bytes:
    """Return the library of this installation; compile it if it is missing.

    Raises:
        BuildError: It is missing and cannot be compiled.
    """
    path = BUILT / machine / LIBRARY
    return path.read_bytes() if path.is_file() else compile_library(machine)


def build_library(machine: str, folder: Path = BUILT) -> Path:
    """Write the library for one architecture into its folder; return its path.

    Raises:
        BuildError: It cannot be compiled.
        OSError: It cannot be written.
    """
    content = compile_library(machine)
    path = folder / machine / LIBRARY
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replace the file instead of writing to it: a running process may have mapped it.
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(path)
    return path


def main() -> None:
    """Build the library for the architectures on the command line."""
    parser = argparse.ArgumentParser(description="Build the library that forks Deno")
    choices = ["both", "here", *MACHINES]
    parser.add_argument("--arch", choices=choices, default="both")
    parser.add_argument("--folder", type=Path, default=BUILT)
    wanted = parser.parse_args()
    names = {"both": MACHINES, "here": (platform.machine(),)}
    try:
        for machine in names.get(wanted.arch, (wanted.arch,)):
            path = build_library(machine, wanted.folder)
            sys.stdout.write(f"{path} ({path.stat().st_size:,} bytes)\n")
    except (BuildError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

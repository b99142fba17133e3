"""Building the library that forks Deno, for both of Lambda's architectures.

Knows the compiler and its arguments. Refuses to know what the library does
(docs/native.md) and where it is packaged. The compiler comes from PyPI (``ziglang``),
with the headers and symbols of any glibc for any processor, so the same bytes are made
on every machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.native.control import LIBRARY

SOURCES = Path(__file__).parents[2] / "native"
BUILT = SOURCES / "lib"  # where ``library_path`` looks
# The oldest that Deno 2.9 starts with.
GLIBC = (2, 27)
MACHINES = ("x86_64", "aarch64")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")
FLAGS = (
    "-std=c11", *WARNINGS, "-O2", "-g0", "-fPIC", "-shared", "-fvisibility=hidden",
    "-Wl,-z,now", "-Wl,-z,relro", "-Wl,--build-id=none", "-s",
)  # fmt: skip
LIMIT_S = 300.0  # the compiler's first run makes its own parts


def target(machine: str) -> str:
    """Return what the compiler calls a machine with the oldest glibc."""
    return f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"


def sources() -> list[str]:
    """Return the names of the files to be compiled, in an order that stays."""
    return sorted(path.name for path in SOURCES.glob("*.c"))


def compile_library(machine: str) -> bytes:
    """Return the library for one architecture: the same bytes each time.

    Args:
        machine: One of ``MACHINES``.

    Raises:
        BuildError: The compiler is not installed, or it refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, LIBRARY)
        compile_c([*FLAGS, "-o", str(output), *sources(), "-ldl"], machine)
        return output.read_bytes()


def compile_c(arguments: list[str], machine: str) -> None:
    """Run the compiler beside the sources.

    Raises:
        BuildError: The compiler is not installed, or it refuses.
    """
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target(machine)]
    with tempfile.TemporaryDirectory() as scratch:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        shared = caches / "lambda-deno-spawn" / "zig"
        environ = {
            **os.environ,
            # What was compiled before from other paths has no part in it.
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
            "installed; run pip install ziglang"
        )
    if done.returncode:
        raise BuildError(f"Cannot compile for {machine}: {done.stderr.strip()}")


def _is_usable(folder: Path) -> bool:
    """Make a folder if need be, and tell whether it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def built_library(machine: str) -> bytes:
    """Return the library that came with this installation, else compile it.

    Raises:
        BuildError: It did not, and cannot be compiled.
    """
    path = BUILT / machine / LIBRARY
    return path.read_bytes() if path.is_file() else compile_library(machine)


def build_library(machine: str, folder: Path = BUILT) -> Path:
    """Write the library for one architecture to its place. Returns the file.

    Raises:
        BuildError: It cannot be compiled.
        OSError: It cannot be written.
    """
    content = compile_library(machine)
    path = folder / machine / LIBRARY
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process that runs may have mapped the old one: it keeps it.
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(path)
    return path


def main() -> None:
    """Build what the command line names."""
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

"""Wheels for the machines of AWS Lambda, whatever machine this is.

Knows how pip is asked for a platform that is not its own, where wheels are kept so that
a second build needs no network, and what is in a wheel. Refuses to know what is built
of them. Specification: PyPA specifications, "Binary distribution format", "Platform
compatibility tags" and "Core metadata".
"""

from __future__ import annotations

import contextlib
import email
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CACHE_FOLDER = "lambda-deno-spawn/wheels"
# pip does not expand tags for a platform that is not its own. Amazon Linux 2023 has
# glibc 2.34; the others are what wheels of our packages have been built for.
MANYLINUX = (
    "manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27",
    "manylinux_2_24", "manylinux_2_17", "manylinux2014",
)  # fmt: skip
MACHINES = {Arch.X86_64: "x86_64", Arch.ARM64: "aarch64"}
ERROR_MARK = "ERROR: "  # pip's, before the lines that say why it gave up


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package in an exact version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Target:
    """What wheels have to fit.

    Attributes:
        python: Version of CPython, such as ``3.13``.
    """

    arch: Arch
    python: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel, and everything in it but what only an installer needs.

    Attributes:
        modules: What would be imported, by path.
        scripts: Executables, by name.
        licenses: Licence texts, by path below a folder of the package's own.
        license_expression: In SPDX's terms, or in the package's own.
    """

    requirement: Requirement
    modules: Mapping[str, bytes]
    scripts: Mapping[str, bytes]
    licenses: Mapping[str, bytes]
    license_expression: str


def installed(name: str) -> Requirement:
    """Return a package as it is installed here: what runs locally is what is shipped.

    Raises:
        BuildError: It is not installed.
    """
    try:
        return Requirement(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildError(
            f"Cannot tell which version of {name} to ship: it is not installed; "
            "install lambda-deno-spawn[cli]"
        ) from error


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where wheels are kept from one build to the next."""
    home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / CACHE_FOLDER


def fetch_wheels(
    requirements: Sequence[Requirement],
    target: Target,
    environ: Mapping[str, str],
    scratch: Path,
) -> list[Wheel]:
    """Return wheels, in the order asked for; what the cache lacks is downloaded.

    Args:
        requirements: What is wanted; nothing that these require is added.
        target: What the wheels have to fit.
        environ: The caller's environment: where the cache is, what pip reads. A cache
            that can only be read is used as it is.
        scratch: An existing folder for what cannot be kept.

    Raises:
        BuildError: A wheel cannot be had, or is broken.
    """
    cache = cache_folder(environ) / f"{target.arch}-{target.python}"
    missing = [r for r in requirements if _find(r, cache) is None]
    if missing:
        folder = cache if _is_writable(cache) else scratch
        _download(missing, target, folder, environ)
    wheels = []
    for requirement in requirements:
        found = _find(requirement, cache) or _find(requirement, scratch)
        if found is None:
            raise BuildError(f"Cannot fetch {requirement}: pip has put it elsewhere")
        wheels.append(_read(found, requirement))
    return wheels


def _find(requirement: Requirement, folder: Path) -> Path | None:
    name = requirement.name.replace("-", "_")
    found = sorted(folder.glob(f"{name}-{requirement.version}-*.whl"))
    return found[0] if found else None


def _is_writable(folder: Path) -> bool:
    """Make a folder if need be; tell whether files can be put into it."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


def _download(
    requirements: Sequence[Requirement],
    target: Target,
    folder: Path,
    environ: Mapping[str, str],
) -> None:
    """Let pip put wheels into a folder; each appears whole or not at all."""
    names = ", ".join(map(str, requirements))
    where = f"{target.arch} and Python {target.python}"
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"Cannot fetch {names}: {sys.executable} has no pip, which downloads it; "
            f"install it with `{sys.executable} -m ensurepip`"
        )
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        done = subprocess.run(
            [*_pip(target), "--dest", partial, *map(str, requirements)],
            check=False,
            capture_output=True,
            text=True,
            env=environ,
        )
        if done.returncode != 0:
            raise BuildError(
                f"Cannot fetch {names} for {where}: {_reason(done.stderr)}; check the "
                "version, and that pip reaches its package index"
            )
        for wheel in Path(partial).glob("*.whl"):
            wheel.replace(folder / wheel.name)


def _pip(target: Target) -> Iterator[str]:
    # It waits as long as its own settings say: index, proxy and time are the user's.
    yield from (sys.executable, "-m", "pip", "download", "--quiet", "--no-input")
    yield from ("--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
    yield from ("--implementation", "cp", "--python-version", target.python)
    for tag in MANYLINUX:
        yield from ("--platform", f"{tag}_{MACHINES[target.arch]}")


def _reason(stderr: str) -> str:
    """Return why pip gave up, without its warnings."""
    lines = stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith(ERROR_MARK)] or lines[-1:]
    # The first says why, further ones repeat it.
    return "".join(errors[:1]).removeprefix(ERROR_MARK)


def _read(path: Path, requirement: Requirement) -> Wheel:
    modules: dict[str, bytes] = {}
    scripts: dict[str, bytes] = {}
    licenses: dict[str, bytes] = {}
    metadata = b""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                first, _, rest = name.partition("/")
                if name.endswith("/"):
                    continue
                if first.endswith(".dist-info"):
                    base = rest.rpartition("/")[2].upper()
                    if rest == "METADATA":
                        metadata = archive.read(name)
                    elif base.startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE")):
                        licenses[rest.removeprefix("licenses/")] = archive.read(name)
                elif first.endswith(".data"):
                    kind, _, inside = rest.partition("/")
                    if kind == "scripts":
                        scripts[inside] = archive.read(name)
                else:
                    modules[name] = archive.read(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise BuildError(
            f"Cannot read {str(path)!r}: {error}; delete it, so that it is fetched anew"
        ) from error
    return Wheel(requirement, modules, scripts, licenses, _expression(metadata))


def _expression(metadata: bytes) -> str:
    fields = email.message_from_bytes(metadata)
    # Older packages have a free text; those that we ship name a licence in it.
    return fields.get("License-Expression") or fields.get("License") or "NOASSERTION"

"""Wheels for AWS Lambda's platforms, fetched on any platform.

Knows how to ask pip for another platform, where wheels are cached so that a second
build works without network, and the content of a wheel. Does not know what is built
from them. Specification: PyPA specifications, "Binary distribution format", "Platform
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
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.package.scratch import scratch_folder
from lambda_deno_spawn.dev.project.home import caches_folder
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CACHE_FOLDER = "lambda-deno-spawn/wheels"
# List all tags: pip adds older ones only for its own platform. Amazon Linux 2023 has
# glibc 2.34; the others are the tags of our packages' wheels.
MANYLINUX = (
    "manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27",
    "manylinux_2_24", "manylinux_2_17", "manylinux2014",
)  # fmt: skip
MACHINES = {Arch.X86_64: "x86_64", Arch.ARM64: "aarch64"}
ERROR_MARK = "ERROR: "  # pip's prefix of the lines with the reason


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package with an exact version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Target:
    """The platform that wheels have to support.

    Attributes:
        python: Version of CPython, such as ``3.13``.
    """

    arch: Arch
    python: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel and its content, without the files that only installers use.

    Attributes:
        modules: Importable files, by path.
        scripts: Executables, by name.
        licenses: Licence texts, by path below a folder for this package.
        license_expression: SPDX expression, or the package's own words.
    """

    requirement: Requirement
    modules: Mapping[str, bytes]
    scripts: Mapping[str, bytes]
    licenses: Mapping[str, bytes]
    license_expression: str


def installed(name: str) -> Requirement:
    """Return a package in its installed version, so that layers match local runs.

    Raises:
        BuildError: The package is not installed.
    """
    try:
        return Requirement(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildError(
            f"Cannot tell which version of {name} to ship: it is not installed; "
            "install it with `pip install lambda-deno-spawn`"
        ) from error


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder that caches wheels between builds."""
    return caches_folder(environ) / CACHE_FOLDER


def fetch_wheels(
    requirements: Sequence[Requirement],
    target: Target,
    environ: Mapping[str, str],
    scratch: Path,
) -> list[Wheel]:
    """Return wheels in the order of the requirements; download the missing ones.

    Args:
        requirements: The packages; their dependencies are not added.
        target: The platform.
        environ: The caller's environment, with the settings of the cache and of pip. A
            read-only cache is used without changing it.
        scratch: An existing folder for downloads, if the cache is read-only.

    Raises:
        BuildError: A wheel cannot be fetched, or is broken.
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
            raise BuildError(
                f"Cannot fetch {requirement}: pip gave the wheel another name"
            )
        wheels.append(_read(found, requirement))
    return wheels


def _find(requirement: Requirement, folder: Path) -> Path | None:
    name = requirement.name.replace("-", "_")
    with contextlib.suppress(OSError):  # a home that this user may not enter
        found = sorted(folder.glob(f"{name}-{requirement.version}-*.whl"))
        return found[0] if found else None
    return None


def _is_writable(folder: Path) -> bool:
    """Create a folder if needed; return whether it is writable."""
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
    """Download wheels into a folder with pip; each appears complete or not at all."""
    names = ", ".join(map(str, requirements))
    where = f"{target.arch} and Python {target.python}"
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"Cannot fetch {names}: {sys.executable} has no pip to download it; "
            f"install pip with `{sys.executable} -m ensurepip`"
        )
    with scratch_folder(folder) as partial:
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
                "version, and that pip can reach its package index"
            )
        for wheel in Path(partial).glob("*.whl"):
            wheel.replace(folder / wheel.name)


def _pip(target: Target) -> Iterator[str]:
    # No time limit here: index, proxy and timeouts are in the user's pip settings.
    yield from (sys.executable, "-m", "pip", "download", "--quiet", "--no-input")
    yield from ("--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
    yield from ("--implementation", "cp", "--python-version", target.python)
    for tag in MANYLINUX:
        yield from ("--platform", f"{tag}_{MACHINES[target.arch]}")


def _reason(stderr: str) -> str:
    """Return the reason of pip's failure, without its warnings."""
    lines = stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith(ERROR_MARK)] or lines[-1:]
    # The first error has the reason, further ones repeat it.
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
            f"Cannot read {str(path)!r}: {error}; delete it to have it fetched again"
        ) from error
    return Wheel(requirement, modules, scripts, licenses, _expression(metadata))


def _expression(metadata: bytes) -> str:
    fields = email.message_from_bytes(metadata)
    # Older packages have free text; in those that we ship it is the licence's name.
    return fields.get("License-Expression") or fields.get("License") or "NOASSERTION"

"""The request to a build, and its result.

Knows the names of a build's folders. Does not know how a package is built.
Specification: docs/build.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lambda_deno_spawn.dev.project.project import Arch, Project

PATH_LENGTH = 128  # of folders whose paths must have equal lengths, if possible
# Variables of the caller that Deno may need on this machine, compared in capitals.
HANDED_ON = frozenset(
    {
        "ALL_PROXY", "AWS_DEFAULT_REGION", "AWS_REGION", "DENO_CERT",
        "DENO_TLS_CA_STORE", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LC_ALL",
        "LD_LIBRARY_PATH", "NODE_EXTRA_CA_CERTS", "NO_PROXY", "PATH", "SSL_CERT_DIR",
        "SSL_CERT_FILE", "TZ",
    }
)  # fmt: skip
# Variables that a package may depend on, beside the project's.
ASKED_FOR = HANDED_ON | {"HOME", "XDG_CACHE_HOME"}
ALL = "all"  # folder of the form of a package that bundles everything


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The package to build.

    Attributes:
        arch: Instruction set of the target.
        out: Folder for the package.
        is_bundled: Package one bundled module, or the files unchanged; None: as set in
            the project, else whatever can be bundled.
        is_checked: Type-check first.
        is_minified: Minify the bundle.
        has_map: Include the source map.
        is_seeded: Include a cache.
        target_deno: Deno binary for the target, if this machine can run it.
        variables: Variables for loading the module, in addition to the project's.
    """

    project: Project
    arch: Arch
    out: Path
    is_bundled: bool | None = None
    is_checked: bool = False
    is_minified: bool = False
    has_map: bool = True
    is_seeded: bool = True
    target_deno: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def wants_bundle(self) -> bool | None:
        """Whether a bundle is wanted by option or project; None: as far as it works."""
        return self.project.bundle if self.is_bundled is None else self.is_bundled


@dataclass(frozen=True, slots=True)
class Package:
    """A built package.

    Attributes:
        path: The zip.
        sha256: Digest of the zip, in hexadecimal.
        handler: Value of ``_HANDLER``.
        form: What is bundled: one of ``FORMS``.
        deno: Version of Deno that its cache is for; None: it has no cache.
        members: Size in bytes of each file, by name.
        notes: Sentences that the user should read.
    """

    path: Path
    sha256: str
    zipped_bytes: int
    unzipped_bytes: int
    handler: str
    arch: Arch
    form: str
    deno: str | None
    members: Mapping[str, int]
    notes: tuple[str, ...]


def archive_path(options: BuildOptions) -> Path:
    """Return the path of the zip."""
    return options.out / f"{options.project.name}.zip"


def staging_folder(scratch: Path, form: str) -> Path:
    """Return the folder for the files of a package in one of its forms.

    Args:
        scratch: Folder for temporary files.
        form: Name of the form.
    """
    return folder_of_fixed_length(scratch / form, "t")


def bundle_path(staged: Path, task_root: Path, source: Path) -> Path:
    """Return the path of a bundle, which is found as the handler's file would be."""
    stem = source.name.removesuffix(source.suffix).removesuffix(".bundle")
    return staged / source.parent.relative_to(task_root) / f"{stem}.bundle.js"


def folder_of_fixed_length(parent: Path, letter: str) -> Path:
    """Return the path of a folder, padded to the same length for each parent.

    V8's compiled code contains the URL of its module, so its size depends on the path.
    """
    return parent / (letter * max(1, PATH_LENGTH - len(str(parent)) - 1))

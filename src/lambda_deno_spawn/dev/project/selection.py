"""Which files of a project belong to its package.

Knows the files that serve developers and their tools, the files that often contain
secrets, the commands' own output, and the patterns in ``lambda.toml``. Looks at names
and links, and at the marks in its own output; reads no other file. Does not know what
else a package contains. Specification: docs/build.md, docs/project.md.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.project.patterns import Patterns, advice_on
from lambda_deno_spawn.dev.project.project import PROJECT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lambda_deno_spawn.dev.project.project import Project

# Left out at the top of the project only: these serve developers and their tools. In
# folders below, files with such names are data.
ONLY_AT_THE_TOP = (
    PROJECT_FILE, "README*", "*.md", "tests", "events", "event.json", "dist",
    "coverage", "template.yaml", "samconfig.toml", "cdk.out", "deno.json",
    "deno.jsonc", "deno.lock", "package.json", "package-lock.json", "tsconfig.json",
    "Makefile", "*.zip",
)  # fmt: skip
# Left out everywhere: tests, type declarations, and files that often contain secrets.
# Names that begin with a dot are left out too.
NOWHERE = (
    "*.d.ts", "*.d.mts", "*.d.cts", "*[._]test.*", "node_modules", "*.env", "*.pem",
    "*.key", "*.p12", "id_rsa*", "id_ed25519*", "id_ecdsa*", "*.tfstate", "*.tfstate.*",
)  # fmt: skip
# Files that only make Git keep an empty folder.
PLACEHOLDERS = frozenset({".gitkeep", ".keep", ".gitignore"})
# The comment of the zips that this program writes, so that it knows them again.
OWN_ARCHIVE = b"lambda-deno-spawn"
# In the index of the images that it writes.
OWN_IMAGE = ("created-by", "lambda-deno-spawn")
IMAGE_SUFFIX = ".oci"
LAYERS = "layers.json"  # describes the layers beside it
LAYERS_LIMIT_BYTES = 100_000
OWN_LAYER = "lambda-deno-spawn-"  # begins the names in it
# Scratch folders of commands that were killed, if TMPDIR is in the project.
SCRATCH_PREFIX = "lambda-deno-spawn-"
SCRATCH = re.compile(rf"{SCRATCH_PREFIX}[a-z0-9_-]{{8}}")


class Selected(NamedTuple):
    """A file that belongs to a package, or an empty folder.

    Attributes:
        name: Path below the project's folder, with slashes; a folder's ends with one.
        path: The file to read.
        target: The file outside the project that ``path`` is a link to; None: it is
            inside.
    """

    name: str
    path: Path
    target: Path | None = None


class Selection:
    """The files of one project that belong to its package.

    Remembers which patterns have matched a file.
    """

    def __init__(
        self, project: Project, apart: Iterable[str] = (), out: str | None = None
    ) -> None:
        """Parse the project's patterns.

        Args:
            project: The project.
            apart: Real paths of files and folders that are never part of it, such as
                the package itself.
            out: Real path of the folder for packages, which is not data while it is
                empty: else the first package would have it, and the second one not.

        Raises:
            UsageError: A pattern is none.
        """
        self._root = project.function.task_root
        self._include = Patterns(project.include)
        self._exclude = Patterns(project.exclude)
        self._apart = frozenset(apart)
        self._out = out
        self._files: list[Selected] | None = None
        self._folders: set[Path] = set()
        self._outputs: set[Path] = set()
        self._special: set[str] = set()

    def files(self) -> Sequence[Selected]:
        """Return the files of the project that belong to its package, sorted by name.

        Links are followed, except those to a folder that contains the link.
        """
        if self._files is None:
            root = os.path.realpath(self._root)
            self._files = list(self._walk(self._root, "", (root,), is_wanted=True))
        return self._files

    def _walk(
        self, folder: Path, inner: str, above: Sequence[str], *, is_wanted: bool
    ) -> Iterator[Selected]:
        """Yield the files in a folder; of one that is left out, the included ones."""
        self._folders.add(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = f"{inner}{entry.name}"
            is_folder = entry.is_dir()
            if self.is_excluded(name, is_folder=is_folder):
                continue
            is_data = is_wanted and not _is_left_out(name)
            if not self.is_included(name, is_folder=is_folder) and not is_data:
                continue
            path = folder / entry.name
            real = f"{above[-1]}/{entry.name}"
            if entry.is_symlink():
                real = os.path.realpath(path)
            if real in self._apart:
                continue
            if not is_folder:
                if not entry.is_file() and path.exists():
                    # A pipe, a socket or a device, or a link to one, has no end.
                    self._special.add(name)
                elif is_own_output(path):
                    self._outputs.add(path)
                else:
                    is_inside = real.startswith(above[0] + os.sep)
                    yield Selected(name, path, None if is_inside else path.resolve())
            elif is_own_image(path):
                continue
            elif real not in above and not SCRATCH.fullmatch(entry.name):
                inside = (*above, real)
                found = self._walk(path, f"{name}/", inside, is_wanted=is_data)
                first = next(found, None)
                if first is not None:
                    yield first
                    yield from found
                elif is_data and real != self._out and _is_empty(path):
                    yield Selected(f"{name}/", path)

    def looked_at(self) -> frozenset[Path]:
        """Return the folders that were searched, and output that was left out."""
        return frozenset(self._folders | self._outputs)

    def is_excluded(self, name: str, *, is_folder: bool = False) -> bool:
        """Return whether ``exclude`` in ``lambda.toml`` matches a file or a folder."""
        return self._exclude.matches(name, is_folder=is_folder)

    def is_included(self, name: str, *, is_folder: bool = False) -> bool:
        """Return whether ``include`` in ``lambda.toml`` matches, or may in a folder.

        A hidden file may be a secret: it is matched only by a pattern with a leading
        dot.
        """
        is_hidden = name.rpartition("/")[2].startswith(".")
        if is_folder and self._include.reach_into(name):
            return True
        return self._include.matches(name, is_folder=is_folder, only_hidden=is_hidden)

    def notes(self) -> list[str]:
        """Return notes on special files, and on patterns that match no file."""
        self.files()
        notes = [
            f"{name!r} is left out: it is a pipe, a socket or a device, not a file"
            for name in sorted(self._special)
        ]
        lists = {"include": self._include, "exclude": self._exclude}
        if not any(patterns.unmatched() for patterns in lists.values()):
            return notes
        # A pattern may be about files that are left out without it.
        for folder, folders, files in os.walk(self._root):
            self._folders.add(Path(folder))
            inner = os.path.relpath(folder, self._root)
            place = "" if inner == "." else f"{inner.replace(os.sep, '/')}/"
            for patterns in lists.values():
                for one in folders:
                    patterns.try_unmatched(f"{place}{one}/")
                for one in files:
                    patterns.try_unmatched(f"{place}{one}")
        return notes + [
            f"the pattern {pattern!r} in {key!r} of {PROJECT_FILE} matches no file; "
            f"{advice_on(pattern)}"
            for key, patterns in lists.items()
            for pattern in patterns.unmatched()
        ]


def is_own_output(path: Path) -> bool:
    """Return whether a file was written by a command of this program.

    That is a package or a layer, the list of layers, or an image in one file. A file
    that cannot be read is reported when it is packaged.
    """
    try:
        if path.suffix == ".zip":
            return _is_own_archive(path)
        if path.name == LAYERS:
            return _lists_own_layers(path)
        if path.suffix == ".tar":
            return _is_own_tar(path)
    except (OSError, ValueError, LookupError, TypeError):
        pass  # it is too short, or has another form
    return False


def _is_own_archive(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-len(OWN_ARCHIVE), os.SEEK_END)
        return file.read() == OWN_ARCHIVE


def _lists_own_layers(path: Path) -> bool:
    if path.stat().st_size > LAYERS_LIMIT_BYTES:
        return False
    layers = json.loads(path.read_bytes())
    return bool(layers) and all(
        layer["name"].startswith(OWN_LAYER) and "compatibleRuntimes" in layer
        for layer in layers
    )


def _is_own_tar(path: Path) -> bool:
    import tarfile  # no other file needs it

    try:
        with tarfile.open(path, "r:") as tar:
            first = tar.next()
            if first is None or first.name != "blobs":
                return False
            index = tar.extractfile("index.json")
            return index is not None and _is_own_index(index.read())
    except tarfile.TarError:
        return False


def is_own_image(path: Path) -> bool:
    """Return whether a folder is an image that a command has written."""
    if path.suffix != IMAGE_SUFFIX:
        return False
    try:
        return _is_own_index((path / "index.json").read_bytes())
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _is_own_index(content: bytes) -> bool:
    found: object = json.loads(content)["annotations"][OWN_IMAGE[0]]
    return found == OWN_IMAGE[1]


def _is_empty(folder: Path) -> bool:
    return all(path.name in PLACEHOLDERS for path in folder.iterdir())


def _is_left_out(name: str) -> bool:
    """Return whether a file or folder is left out unless a pattern includes it."""
    last = name.rpartition("/")[2]
    if last.startswith(".") or _matches(last, NOWHERE):
        return True
    return "/" not in name and _matches(name, ONLY_AT_THE_TOP)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

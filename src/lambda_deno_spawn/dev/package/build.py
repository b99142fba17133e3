"""A function's package: the zip that Lambda extracts to ``/var/task``.

Knows the files that belong to it, its size limits, and the order of the build: check,
bundle, load once for the cache, zip. Does not know how each step is done. If any step
fails, the previous package stays unchanged. Specification: docs/build.md; AWS Lambda
Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.local.runtime import deno_binary
from lambda_deno_spawn.dev.package.archive import Member, write_archive
from lambda_deno_spawn.dev.package.bundle import Deno, bundle
from lambda_deno_spawn.dev.package.elf import read_binary
from lambda_deno_spawn.dev.package.layer import LAYER_RUNTIME_JS, MACHINES
from lambda_deno_spawn.dev.package.project_files import (
    is_hoisted,
    stage_hoisted,
    stage_project_files,
)
from lambda_deno_spawn.dev.package.seed import Seed, folder_of_fixed_length, seed_cache
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.quotas import (
    MB,
    UNZIPPED_LIMIT_BYTES,
    UPLOAD_LIMIT_BYTES,
)
from lambda_deno_spawn.dev.project.selection import (
    Selected,
    is_excluded,
    is_included,
    select,
)
from lambda_deno_spawn.errors import BuildError, HandlerError, UsageError
from lambda_deno_spawn.launch.deno_json import config_content, find_config
from lambda_deno_spawn.launch.handler import find_handler
from lambda_deno_spawn.launch.module_cache import PACKAGED_DENO_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_deno_spawn.dev.project.project import Project

SOURCE_SUFFIXES = (".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs")
# Keys of deno.json that a bundle needs at run time; the build uses the others.
BUNDLED_CONFIG_KEYS = ("permissions", "unstable")
# Files that Deno reads to resolve the imports of unbundled modules.
RESOLUTION_FILES = ("deno.json", "deno.jsonc", "deno.lock", "package.json")
NPMRC = ".npmrc"
# Lines of .npmrc that Deno needs to find packages; the others may contain tokens.
NPMRC_LINE = re.compile(r"(?:@[\w.-]+:)?registry\s*=\s*(?!.*@).*")
SEED_FILE = "lambda-deno-spawn.json"  # in the cache: versions it was made for


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The package to build.

    Attributes:
        arch: Instruction set of the target.
        out: Folder for the package.
        is_bundled: Package one bundled module, or the files unchanged; None: as set in
            the project.
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


@dataclass(frozen=True, slots=True)
class Package:
    """A built package.

    Attributes:
        path: The zip.
        sha256: Digest of the zip, in hexadecimal.
        handler: Value of ``_HANDLER``.
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
    deno: str | None
    members: Mapping[str, int]
    notes: tuple[str, ...]


def build(options: BuildOptions, environ: Mapping[str, str]) -> Package:
    """Build a function's package.

    Args:
        options: The package to build.
        environ: The caller's environment.

    Raises:
        BuildError: The build failed; an earlier package is unchanged.
        ConfigError: Deno is not installed.
    """
    try:
        return _build(options, environ)
    except OSError as error:
        where = f" at {error.filename!r}" if error.filename else ""
        raise BuildError(
            f"Cannot build {options.project.name!r}: {error.strerror or error}{where}"
        ) from error
    except ValueError as error:  # for example a name that a zip cannot contain
        raise BuildError(f"Cannot build {options.project.name!r}: {error}") from error


def _build(options: BuildOptions, environ: Mapping[str, str]) -> Package:
    project = options.project
    deno = Deno(deno_binary(environ), project.function.task_root, environ)
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as name:
        scratch = Path(name).resolve()
        staged = scratch / "task"
        staged.mkdir()
        source = _handler_file(project)
        if options.is_checked:
            deno.check(source)
        notes: list[str] = []
        if options.is_bundled or (options.is_bundled is None and project.bundle):
            notes += _stage_bundle(options, deno, source, staged)
        else:
            notes += _stage_files(options, deno, source, staged)
        seed = Seed({})
        version = None
        if options.is_seeded:
            # A copy, because the module may change its files when it is loaded.
            loaded = folder_of_fixed_length(scratch, "t")
            shutil.copytree(staged, loaded, symlinks=True)
            seed, version = _seed(options, deno, loaded)
            notes += seed.notes
        members = [*_members(staged), *_seed_members(seed, version, options.arch)]
        sizes = {member.name: _size(member) for member in members}
        _refuse_too_large(sizes)
        written = write_archive(options.out / f"{project.name}.zip", members)
    if written.zipped_bytes > UPLOAD_LIMIT_BYTES:
        notes.append(
            f"the package has {written.zipped_bytes / MB:.0f} MB zipped, and Lambda "
            "accepts 50 MB directly: `deploy` uploads it through S3"
        )
    return Package(
        path=written.path,
        sha256=written.sha256,
        zipped_bytes=written.zipped_bytes,
        unzipped_bytes=written.unzipped_bytes,
        handler=project.function.handler,
        arch=options.arch,
        deno=version,
        members=sizes,
        notes=tuple(notes),
    )


def _handler_file(project: Project) -> Path:
    """Return the file of the handler's module."""
    try:
        function = project.function
        return Path(find_handler(function.task_root, function.handler).path)
    except HandlerError as error:
        raise UsageError(str(error)) from error


def _stage_bundle(
    options: BuildOptions, deno: Deno, source: Path, staged: Path
) -> list[str]:
    """Write the bundle, a reduced deno.json, and the other files; return notes."""
    task_root = deno.task_root
    data = [
        file
        for file in select(options.project)
        if not file.name.endswith(SOURCE_SUFFIXES)
        or is_included(options.project, file.name)
    ]
    notes = _copy_all(data, staged)
    config = find_config(task_root)
    content = {} if config is None else config_content(config)
    kept = {key: content[key] for key in BUNDLED_CONFIG_KEYS if key in content}
    if kept:
        (staged / "deno.json").write_text(json.dumps(kept, indent=2) + "\n", "utf-8")
    folder = source.parent.relative_to(task_root)
    stem = source.name.removesuffix(source.suffix).removesuffix(".bundle")
    return notes + bundle(
        deno,
        source,
        staged / folder / f"{stem}.bundle.js",
        export=_export(options.project),
        minify=options.is_minified,
        has_map=options.has_map,
    )


def _stage_files(
    options: BuildOptions, deno: Deno, source: Path, staged: Path
) -> list[str]:
    """Copy the files unchanged, with the npm packages that they import.

    Returns:
        Notes, as sentences.

    Raises:
        BuildError: A module is outside the project or on a server.
    """
    task_root, project = deno.task_root, options.project
    files = {file.name: file for file in select(project)}
    for name in RESOLUTION_FILES:
        if (task_root / name).is_file() and not is_excluded(project, name):
            files[name] = Selected(name, task_root / name, None)
    graph = deno.info(source)
    for module in graph["modules"]:
        specifier = str(module.get("specifier", ""))
        local = module.get("local")
        if specifier.startswith("file:") and local:
            path = Path(local)
            if is_hoisted(path, task_root):
                continue
            if not path.is_relative_to(task_root):
                raise BuildError(
                    f"Cannot package {str(path)!r}: it is outside the project's folder "
                    f"{str(task_root)!r}; move it there, or bundle it"
                )
            name = path.relative_to(task_root).as_posix()
            if not name.startswith("node_modules/"):  # copied below, with its links
                files[name] = Selected(name, path, None)
        elif specifier.startswith(("http:", "https:", "jsr:")):
            raise BuildError(
                f"Cannot package {specifier!r} unbundled: it is on a server; set "
                '"vendor": true in deno.json and run `deno install`, or bundle it'
            )
    notes = _copy_all(list(files.values()), staged)
    npmrc = task_root / NPMRC
    if npmrc.is_file() and not is_excluded(project, NPMRC):
        lines = npmrc.read_text("utf-8").splitlines()
        kept = [line for line in lines if NPMRC_LINE.fullmatch(line.strip())]
        if kept:
            (staged / NPMRC).write_text("\n".join([*kept, ""]), "utf-8")
    if (task_root / "node_modules").is_dir():
        _stage_node_modules(project, staged)
    else:
        _stage_npm(graph, staged / PACKAGED_DENO_DIR / "npm")
    stage_hoisted(task_root, staged)
    stage_project_files(deno, source, staged)
    return notes


def _stage_node_modules(project: Project, staged: Path) -> None:
    """Copy the packages in node_modules, and the links between them.

    Raises:
        BuildError: A link leads out of the project, so it would be broken on Lambda.
    """
    root = project.function.task_root

    def left_out(folder: str, names: list[str]) -> set[str]:
        inner = Path(folder).relative_to(root)
        found = set()
        for name in names:
            path = inner / name
            if is_excluded(project, path.as_posix()) or name.startswith(".env"):
                found.add(name)
            elif (root / path).is_symlink():
                _refuse_foreign_link(root, path)
        return found

    shutil.copytree(
        root / "node_modules", staged / "node_modules", symlinks=True, ignore=left_out
    )


def _refuse_foreign_link(root: Path, path: Path) -> None:
    target = (root / path).readlink()
    is_inside = (root / path).resolve().is_relative_to(root.resolve())
    if target.is_absolute() or not is_inside:
        raise BuildError(
            f"Cannot package {path.as_posix()!r}: it is a link to {str(target)!r}, "
            "which is missing on Lambda; install the package into node_modules, "
            "exclude the link in lambda.toml, or bundle the function"
        )


def _stage_npm(graph: Mapping[str, Any], target: Path) -> None:
    """Copy npm packages from Deno's cache, in the same layout."""
    for package in graph.get("npmPackages", {}).values():
        local = Path(package["localPath"])
        inner = Path(package["name"]) / local.name  # version, and number of a copy
        if not local.is_dir():
            continue  # an optional package for another platform
        registry = local.parents[len(inner.parts) - 1]
        place = target / registry.name / inner
        shutil.copytree(local, place, symlinks=True, dirs_exist_ok=True)
        listing = local.parent / "registry.json"
        if listing.is_file():
            shutil.copyfile(listing, place.parent / "registry.json")


def _export(project: Project) -> str:
    """Return the first part of the handler's export."""
    function = project.function
    return find_handler(function.task_root, function.handler).export.split(".")[0]


def _copy_all(files: Sequence[Selected], staged: Path) -> list[str]:
    """Copy files, after checking their total size.

    Returns:
        Notes about links out of the project, as sentences.
    """
    _refuse_too_large({file.name: _file_size(file.path) for file in files})
    for file in files:
        target = staged / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file.path, target)
            target.chmod(file.path.stat().st_mode)
        except OSError as error:
            raise BuildError(
                f"Cannot package {str(file.path)!r}: {error.strerror or error}"
            ) from error
    return [
        f"{file.name!r} is a link to {str(file.target)!r}, outside the project; the "
        "content is packaged"
        for file in files
        if file.target is not None
    ]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # copying the file reports the error


def _seed(options: BuildOptions, deno: Deno, loaded: Path) -> tuple[Seed, str]:
    """Make the cache with a Deno for the target, or a part of it with another."""
    binary, note = deno.binary, None
    has_code = options.arch is Arch.here()
    if options.target_deno is not None:
        binary, has_code = str(options.target_deno), True
        _check_machine(options.target_deno, options.arch)
    elif not has_code:
        note = (
            "V8's code is not in the cache: it depends on the instruction set, and "
            f"this machine cannot run {options.arch.value}; for a faster first start "
            "build on such a machine, or give a Deno for it that runs here in "
            "--target-deno"
        )
    version = _version(binary)
    project = options.project

    def with_original_paths(text: str) -> str:
        return text.replace(str(loaded), str(deno.task_root))

    try:
        seed = seed_cache(
            replace(project, env={**project.env, **options.variables}),
            loaded,
            LAYER_RUNTIME_JS,
            binary=binary,
            has_code=has_code,
            environ=deno.environ,
        )
    except BuildError as error:
        raise BuildError(with_original_paths(str(error))) from error
    notes = [*map(with_original_paths, seed.notes), *([note] if note else [])]
    return Seed(seed.files, tuple(notes)), version


def _check_machine(binary: Path, arch: Arch) -> None:
    """Reject a Deno for another instruction set; accept scripts, which run a Deno."""
    with contextlib.suppress(OSError), binary.open("rb") as file:
        found = read_binary(file)
        if found is not None and found.machine != MACHINES[arch]:
            raise BuildError(
                f"Cannot use {str(binary)!r} for {arch.value}: it is for "
                f"{found.machine}; give a Deno for {arch.value}"
            )


def _version(binary: str) -> str:
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(
            f"Cannot start {binary!r}: {error.strerror}; give a Deno that this machine "
            "can run"
        ) from error
    words = done.stdout.split()
    if words[:1] != ["deno"]:
        raise BuildError(
            f"Cannot use {binary!r}: it does not print a version of Deno; give a "
            "Deno binary"
        )
    return words[1]


def _members(staged: Path) -> Iterator[Member]:
    for folder, folders, files in os.walk(staged):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(folder) / name
            inner = path.relative_to(staged).as_posix()
            if path.is_symlink():
                target = os.fsencode(path.readlink())
                yield Member(inner, target, stat.S_IFLNK | 0o777)
            else:
                is_program = path.stat().st_mode & stat.S_IXUSR
                yield Member(inner, path, 0o755 if is_program else 0o644)


def _seed_members(seed: Seed, version: str | None, arch: Arch) -> Iterator[Member]:
    if not seed.files:
        return
    for name, content in seed.files.items():
        yield Member(f"{PACKAGED_DENO_DIR}/{name}", content)
    made_for = {"deno": version, "arch": arch.value, "runtime": __version__}
    text = json.dumps(made_for, indent=2) + "\n"
    yield Member(f"{PACKAGED_DENO_DIR}/{SEED_FILE}", text.encode())


def _size(member: Member) -> int:
    content = member.content
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _refuse_too_large(sizes: Mapping[str, int]) -> None:
    unzipped = sum(sizes.values())
    if unzipped <= UNZIPPED_LIMIT_BYTES:
        return
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    listed = ", ".join(f"{name} ({size / MB:.0f} MB)" for name, size in largest)
    raise BuildError(
        f"Cannot build a package of {unzipped / MB:.0f} MB: Lambda unzips at most "
        f"250 MB, layers included; the largest files are {listed}; leave out files "
        "with `exclude` in lambda.toml"
    )

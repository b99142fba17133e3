"""A function's package: the zip that Lambda extracts to ``/var/task``.

Knows when the package of the last build is still right, and which programs can run
before more is known. Does not know what a package contains. If a build fails, the
previous package stays unchanged. Specification: docs/build.md.

Most of the build is imported while Deno bundles: that takes longer.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.local.runtime import deno_binary
from lambda_deno_spawn.dev.package.deno import Deno, read_version, start_version
from lambda_deno_spawn.dev.package.record import (
    forget_record,
    key_of,
    now_ns,
    read_record,
    write_record,
)
from lambda_deno_spawn.dev.package.request import (
    ALL,
    ASKED_FOR,
    BuildOptions,
    Package,
    archive_path,
    bundle_path,
    staging_folder,
)
from lambda_deno_spawn.dev.package.scratch import scratch_folder
from lambda_deno_spawn.errors import BuildError, HandlerError, UsageError
from lambda_deno_spawn.launch.handler import find_handler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_deno_spawn.dev.project.project import Project

__all__ = ["BuildOptions", "Package", "build"]

ROOT = Path(__file__).parents[2]
OWN_FOLDERS = (
    ".",
    "dev/local",
    "dev/package",
    "dev/project",
    "js",
    "launch",
    "protocol",
)
# Beginnings of variables that Deno and tools of npm read.
TOOLS = ("DENO_", "LAMBDA_DENO_", "NODE_", "NPM_")
# Facts of a package that a second build of the same files returns.
RECORDED = (
    "sha256", "zipped_bytes", "unzipped_bytes", "handler", "form", "deno", "members",
    "notes",
)  # fmt: skip


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
    started_ns = now_ns()
    project = options.project
    deno = Deno(deno_binary(environ), project.function.task_root, environ)
    source = _handler_file(project)
    out = archive_path(options)
    if options.is_checked:
        deno.check(source)
    key = _key(options, environ, deno.binary)
    if package := _built_before(out, key, options):
        return package
    with (
        scratch_folder() as name,
        contextlib.ExitStack() as running,
    ):
        scratch = Path(name).resolve()
        if options.is_seeded:
            _refuse_scratch(scratch)
        bundling = None
        if options.wants_bundle is not False:
            target = bundle_path(staging_folder(scratch, ALL), deno.task_root, source)
            bundling = running.enter_context(deno.start_bundle(source, target))
        from lambda_deno_spawn.dev.package.forms import make_package

        built = make_package(options, deno, source, scratch, bundling=bundling)
    if built.observed is None:
        forget_record(out)
    else:
        facts = {name: getattr(built.package, name) for name in RECORDED}
        write_record(
            out, key, built.observed, started_ns, facts, sha256=built.package.sha256
        )
    return built.package


def _key(options: BuildOptions, environ: Mapping[str, str], binary: str) -> str:
    """Return the digest of all that a package depends on beside files."""
    programs = [Path(binary), *_own_files()]
    if options.target_deno is not None:
        programs.append(options.target_deno)
    return key_of(
        version=__version__,
        options=repr(options),
        environ={name: environ[name] for name in sorted(environ) if _matters(name)},
        programs=[[str(file), *_stamp(file)] for file in sorted(programs)],
        deno=[_version_of_script(file) for file in (binary, options.target_deno)],
    )


def _matters(name: str) -> bool:
    """Return whether a package may depend on a variable of the caller."""
    return name.upper() in ASKED_FOR or name.upper().startswith(TOOLS)


def _own_files() -> Iterator[Path]:
    """Yield our files that make a package, or that it contains compiled."""
    for folder in OWN_FOLDERS:
        for path in (ROOT / folder).iterdir():
            if path.suffix in (".py", ".js"):
                yield path


def _version_of_script(file: str | Path | None) -> str | None:
    """Return the version of a Deno that is a script: it may start another one."""
    if file is None:
        return None
    with Path(file).open("rb") as program:
        if program.read(2) != b"#!":
            return None
    with start_version(str(file)) as running:
        return read_version(running, str(file))


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _built_before(out: Path, key: str, options: BuildOptions) -> Package | None:
    """Return the package of the last build if nothing has changed since."""
    facts = read_record(out, key)
    if facts is None:
        return None
    return Package(
        path=out,
        arch=options.arch,
        **{**facts, "notes": tuple(facts["notes"])},
    )


def _refuse_scratch(scratch: Path) -> None:
    """Refuse a temporary folder whose path Deno's permission flags cannot contain."""
    try:
        is_utf8 = bool(str(scratch).encode())
    except UnicodeEncodeError:
        is_utf8 = False
    if "," in str(scratch) or not is_utf8:
        raise BuildError(
            f"Cannot load the module in {str(scratch.parent)!r}: the path of temporary "
            "files has a comma or is not UTF-8, and Deno's permissions cannot name it; "
            "set TMPDIR to another folder, or use --no-cache"
        )


def _handler_file(project: Project) -> Path:
    """Return the file of the handler's module."""
    try:
        function = project.function
        path = Path(find_handler(function.task_root, function.handler).path)
    except HandlerError as error:
        raise UsageError(str(error)) from error
    if not path.is_relative_to(function.task_root):
        raise UsageError(
            f"Cannot build with the handler {function.handler!r}: its file is outside "
            f"{str(function.task_root)!r}; give the function's own handler, which one "
            "in a layer wraps"
        )
    return path

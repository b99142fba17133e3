"""Checks for what the runtime needs of a machine and of a function.

Knows what the runtime needs, what Lambda allows, and what to do about a problem. Reads
files, and runs Deno and Python where necessary; changes and downloads nothing. Does not
know how Deno is started: ``launch.command`` does, with the settings of ``invoke``.
Specification: docs/doctor.md; AWS Lambda Developer Guide,
"Lambda quotas".
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Settings, Start
from lambda_deno_spawn.dev.doctor.migration import findings
from lambda_deno_spawn.dev.local.runtime import (
    deno_binary,
    isolated_python,
    lambda_environ,
)
from lambda_deno_spawn.dev.project.dotenv import ADVICE, unpackaged_env_file
from lambda_deno_spawn.dev.project.existing_app import other_exports
from lambda_deno_spawn.dev.project.quotas import (
    LAYERS_LIMIT,
    MB,
    UNZIPPED_LIMIT_BYTES,
    UPLOAD_LIMIT_BYTES,
)
from lambda_deno_spawn.dev.project.requirements import (
    DENO_MINIMUM,
    DISTRIBUTION,
    RUNTIME_PACKAGES,
)
from lambda_deno_spawn.errors import ConfigError, HandlerError, UsageError
from lambda_deno_spawn.launch.binary import LAYER_BINARY, pypi_binary
from lambda_deno_spawn.launch.command import CONFIG, deno_command, shown_command
from lambda_deno_spawn.launch.deno_json import (
    find_config,
    find_project,
    hoisted_packages,
    permission_sets,
)
from lambda_deno_spawn.launch.handler import find_handler
from lambda_deno_spawn.launch.module_cache import PACKAGED_DENO_DIR, ModuleCache
from lambda_deno_spawn.launch.places import why_not_fork
from lambda_deno_spawn.launch.variables import CREDENTIALS
from lambda_deno_spawn.native.control import library_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lambda_deno_spawn.dev.project.function import InvokeOptions
    from lambda_deno_spawn.dev.project.project import Project
    from lambda_deno_spawn.launch.command import DenoCommand

GLIBC_MINIMUM = (2, 27)  # needed by Deno's binaries since 2.9
PYTHON_MINIMUM = (3, 11)  # TaskGroup, asyncio.timeout
PYTHON_ON_LAMBDA = (3, 12)  # the oldest managed runtime that is supported
# AWS "Lambda quotas".
DESCRIPTORS_LIMIT = 1024
PROCESSES_LIMIT = 1024
TEMP_BYTES = 512 * MB  # default size of /tmp
NEARLY_FULL = 0.8  # share of a limit from which on a check warns
RUN_LIMIT_S = 20.0  # for a program that takes tens of milliseconds
ZIP_SAMPLES = 8  # pieces of a large file to compress as a sample
ZIP_SAMPLE_BYTES = 128 * 1024
# Permissions that allow a handler to circumvent all other restrictions.
UNDOING = ("all", "run", "ffi")

NOT_CACHED = ", --cached-only is specified."  # ends Deno's error for a missing module

# Prints whether an orphan outside the process group is adopted, and can be found.
ORPHAN_TEST = """
import json, os, signal
from lambda_deno_spawn.processes.descendants import become_subreaper, children
is_subreaper = become_subreaper()
reader, writer = os.pipe()
parent = os.fork()
if parent == 0:
    os.setsid()
    orphan = os.fork()
    if orphan == 0:
        signal.pause()
    os.write(writer, b"%d" % orphan)
    os._exit(0)
orphan = int(os.read(reader, 32))
os.waitpid(parent, 0)
is_group = os.getpgid(orphan) == parent
is_found = orphan in children()
os.killpg(parent, signal.SIGKILL)
if is_subreaper:
    os.waitpid(orphan, 0)
print(json.dumps({"subreaper": is_subreaper, "group": is_group, "found": is_found}))
"""


class Status(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its result.

    Attributes:
        group: Heading above the check.
        found: The value found.
        advice: What to do; empty if the status is ok.
    """

    group: str
    id: str
    status: Status
    found: str
    advice: str = ""


def examine(
    environ: Mapping[str, str],
    options: InvokeOptions | None = None,
    project: Project | None = None,
) -> list[Check]:
    """Check this machine and, if one is given, a function.

    Args:
        environ: The caller's environment.
        options: The function, and how it would be invoked.
        project: The function's project, which `build` would package.
    """
    checks = [
        *_deno_checks(environ),
        *_python_checks(),
        *_system_checks(),
    ]
    task_root = None
    if options is not None:
        checks += _function_checks(options, environ, project)
        task_root = options.function.task_root
        for each in findings(task_root, options.variables):
            status = Status.WARNING if each.advice else Status.OK
            group = "Written for another platform"
            checks.append(Check(group, each.id, status, each.found, each.advice))
    return [*checks, *_size_checks(environ, task_root)]


# --- Deno ------------------------------------------------------------------------


def _deno_checks(environ: Mapping[str, str]) -> Iterator[Check]:
    group = "Deno"
    yield from _glibc_checks()
    try:
        binary = deno_binary(environ)
    except ConfigError as error:
        advice = (
            "install it with `pip install deno`, or give the path of a binary in "
            "LAMBDA_DENO_BIN"
        )
        yield Check(group, "deno-binary", Status.PROBLEM, str(error), advice)
        return
    rule = _rule(binary, environ)
    yield Check(group, "deno-binary", Status.OK, f"{binary}, found by {rule}")
    run = _run([binary, "--version"])
    yield _version_check(run, rule)
    if run.is_ok:
        yield _start_check(binary)


def _rule(binary: str, environ: Mapping[str, str]) -> str:
    if environ.get("LAMBDA_DENO_BIN"):
        return "LAMBDA_DENO_BIN"
    if binary == LAYER_BINARY:
        return "the layer's path"
    return "the PyPI package deno" if binary == pypi_binary() else "PATH"


def _version_check(run: _Run, rule: str) -> Check:
    wanted = ".".join(map(str, DENO_MINIMUM))
    advice = f"install Deno {wanted} or newer where {rule} finds it"
    parsed = re.search(r"deno (\d+)\.(\d+)\.\d+\S*", run.stdout)
    if parsed is None:
        found = f"no version: {run.problem or 'it printed something else'}"
        return Check("Deno", "deno-version", Status.PROBLEM, found, advice)
    version = (int(parsed[1]), int(parsed[2]))
    if version < DENO_MINIMUM:
        found = f"{parsed[0]}, and {wanted} is needed"
        return Check("Deno", "deno-version", Status.PROBLEM, found, advice)
    return Check("Deno", "deno-version", Status.OK, parsed[0])


def _start_check(binary: str) -> Check:
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as folder:
        program = Path(folder) / "program.js"
        program.write_text("console.log(6 * 7);\n", "utf-8")
        run = _run(
            [binary, "run", "--quiet", "--no-config", "--no-lock", str(program)],
            {**os.environ, "DENO_DIR": folder, "DENO_NO_UPDATE_CHECK": "1"},
        )
    if run.is_ok and run.stdout.strip() == "42":
        found = f"runs a program in {run.duration_s * 1000:.0f} ms"
        return Check("Deno", "deno-start", Status.OK, found)
    return Check(
        "Deno",
        "deno-start",
        Status.PROBLEM,
        f"cannot run a program: {run.problem or 'it printed something else'}",
        "install the binary for this machine's system and architecture",
    )


def _glibc_checks() -> Iterator[Check]:
    if sys.platform != "linux":
        return
    library, text = platform.libc_ver()
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    wanted = ".".join(map(str, GLIBC_MINIMUM))
    if library == "glibc" and version >= GLIBC_MINIMUM:
        yield Check("Deno", "glibc", Status.OK, text)
        return
    yield Check(
        "Deno",
        "glibc",
        Status.PROBLEM,
        f"{library or 'another C library'} {text}".strip() + f", not glibc {wanted}",
        f"use a system with glibc {wanted} or newer; Amazon Linux 2 has 2.26, "
        "Amazon Linux 2023 has 2.34",
    )


# --- Python ----------------------------------------------------------------------


def _python_checks() -> Iterator[Check]:
    group = "Python"
    found = platform.python_version()
    wanted = ".".join(map(str, PYTHON_MINIMUM))
    on_lambda = ".".join(map(str, PYTHON_ON_LAMBDA))
    if sys.version_info < PYTHON_MINIMUM:
        advice = f"use Python {wanted} or newer"
        yield Check(group, "python-version", Status.PROBLEM, found, advice)
    else:
        note = f"{found} (on Lambda: the managed runtime python{on_lambda} or newer)"
        yield Check(group, "python-version", Status.OK, note)
    yield _packages_check()
    run = _run(isolated_python("import lambda_deno_spawn.bootstrap, h11"))
    if run.is_ok:
        found = f"imports in {run.duration_s * 1000:.0f} ms, isolated (-I -S)"
        yield Check(group, "bootstrap", Status.OK, found)
    else:
        found = f"cannot be imported in isolation (-I -S): {run.problem}"
        advice = f"install {DISTRIBUTION} and its packages again, for this Python"
        yield Check(group, "bootstrap", Status.PROBLEM, found, advice)


def _packages_check() -> Check:
    found, missing = [], []
    for name in RUNTIME_PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "Python",
            "packages",
            Status.PROBLEM,
            f"not installed: {', '.join(missing)}",
            f"install them: pip install {' '.join(missing)}",
        )
    return Check("Python", "packages", Status.OK, ", ".join(found))


# --- system ----------------------------------------------------------------------


def _system_checks() -> Iterator[Check]:
    yield _orphan_check()
    yield _temp_check(Path(tempfile.gettempdir()))
    for name, number, limit in (
        ("descriptors", resource.RLIMIT_NOFILE, DESCRIPTORS_LIMIT),
        ("processes", resource.RLIMIT_NPROC, PROCESSES_LIMIT),
    ):
        yield limit_check(name, resource.getrlimit(number)[0], limit)


def _orphan_check() -> Check:
    run = _run(isolated_python(ORPHAN_TEST))
    advice = (
        "run on Linux with /proc: there the runtime finds processes that a handler "
        "hides in other sessions; here it ends the process group only"
    )
    try:
        result = json.loads(run.stdout)
    except ValueError:
        found = f"cannot be tested: {run.problem}"
        return Check("System", "orphans", Status.PROBLEM, found, advice)
    words = {
        "subreaper": "orphans are adopted by their subreaper",
        "group": "process groups work",
        "found": "children are listed in /proc",
    }
    if all(result.values()):
        return Check("System", "orphans", Status.OK, ", ".join(words.values()))
    lacking = ", ".join(
        f"not so: {words[n]}" for n, works in result.items() if not works
    )
    # macOS has neither; on Linux it is a problem.
    status = Status.PROBLEM if sys.platform == "linux" else Status.WARNING
    return Check("System", "orphans", status, lacking, advice)


def _temp_check(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(
            "System",
            "temporary-folder",
            Status.PROBLEM,
            f"{folder}: {error.strerror or error}",
            "make it writable, free space in it, or name another one in TMPDIR",
        )
    found = f"{folder}, {_size(free_bytes)} free"
    if free_bytes < TEMP_BYTES:
        advice = f"free space in it: /tmp on Lambda has {_size(TEMP_BYTES)}"
        return Check("System", "temporary-folder", Status.WARNING, found, advice)
    return Check("System", "temporary-folder", Status.OK, found)


def limit_check(name: str, value: int, on_lambda: int) -> Check:
    """Compare a limit of this process with Lambda's.

    Args:
        name: Name of the limited resource.
        value: The soft limit; ``resource.RLIM_INFINITY``: unlimited.
        on_lambda: The limit on Lambda.
    """
    is_unlimited = value == resource.RLIM_INFINITY
    shown = "unlimited" if is_unlimited else f"{value:,}"
    found = f"{shown} (Lambda has {on_lambda:,})"
    if is_unlimited or value >= on_lambda:
        return Check("System", name, Status.OK, found)
    advice = "raise it with ulimit: a handler that works on Lambda may fail here"
    return Check("System", name, Status.WARNING, found, advice)


# --- function --------------------------------------------------------------------


def _function_checks(
    options: InvokeOptions, environ: Mapping[str, str], project: Project | None
) -> list[Check]:
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as folder:
        return _checks_of(options, environ, project, Path(folder))


def _checks_of(
    options: InvokeOptions,
    environ: Mapping[str, str],
    project: Project | None,
    state_dir: Path,
) -> list[Check]:
    group = "Function"
    function = options.function
    try:
        handler = find_handler(function.task_root, function.handler)
        # Add credentials, as Lambda sets these variables too.
        with_credentials = {**environ, **dict.fromkeys(CREDENTIALS, "secret")}
        variables = lambda_environ(
            options, "127.0.0.1:9001", str(state_dir.parent), with_credentials
        )
        settings = Settings.from_environ(variables, str(function.task_root))
        command = deno_command(settings, variables, str(state_dir))
    except HandlerError as error:
        advice = "name the file, or give --handler file.export"
        return [Check(group, "handler", Status.PROBLEM, str(error), advice)]
    except ConfigError as error:
        advice = f"set {error.variable} to {error.expected}"
        return [Check(group, "settings", Status.PROBLEM, str(error), advice)]
    path = Path(handler.path)
    found = f"{function.handler}: {path}"  # in a layer
    if path.is_relative_to(function.task_root):
        file = path.relative_to(function.task_root)
        found = f"{function.handler}: {file} in {function.task_root}"
    checks = [_handler_check(path, handler.export, found)]
    if settings.unknown:
        found = f"unknown: {', '.join(settings.unknown)}"
        advice = "correct their names, or remove them; see docs/configuration.md"
        checks.append(Check(group, "settings", Status.WARNING, found, advice))
    return [
        *checks,
        *_permission_checks(function.task_root, settings, command),
        start_check(settings, command.private_permissions, library_path()),
        *_env_file_checks(project, options.variables),
        *_cache_checks(function.task_root, path, command, project),
    ]


def _handler_check(path: Path, export: str, found: str) -> Check:
    others = other_exports(path, export)
    if not others:
        return Check("Function", "handler", Status.OK, found)
    return Check(
        "Function",
        "handler",
        Status.WARNING,
        f"{found}; it exports {', '.join(others)}, and not {export}",
        "export it under this name, or set another one: handler in lambda.toml, or "
        "--handler file.export",
    )


def _env_file_checks(
    project: Project | None, variables: Mapping[str, str]
) -> Iterator[Check]:
    missed = None
    # `build` reports a malformed pattern.
    with contextlib.suppress(UsageError):
        missed = project and unpackaged_env_file(project, variables)
    if missed is not None:
        yield Check("Function", "env-file", Status.WARNING, str(missed), ADVICE)


def _permission_checks(
    root: Path, settings: Settings, command: DenoCommand
) -> Iterator[Check]:
    group = "Function"
    config = find_config(root)
    sets = {} if config is None else permission_sets(config)
    used = command.permission_set
    if config is None:
        found = "no deno.json"
    elif not sets:
        found = f"{Path(config).name} has no permission sets"
    else:
        use = f"the set `{used}` is used" if used else "none is used"
        found = f"{Path(config).name} has {', '.join(sets)}; {use}"
    yield Check(group, "permission-sets", Status.OK, found)
    flags = [*command.permissions, *command.private_permissions]
    granted = granted_permissions(flags, sets.get(used or ""))
    yield undoing_check(granted)
    rule = "all but the runtime's own"
    if settings.env_names is not None:
        rule = f"only {' '.join(settings.env_names) or 'those that all programs need'}"
    has_credentials = any(name in command.environ for name in CREDENTIALS)
    if has_credentials and granted & {"all", "env"}:
        yield Check(
            group,
            "environment",
            Status.WARNING,
            f"{rule}; the handler and all its imports can read AWS credentials",
            "list the variables it needs in LAMBDA_DENO_ENV, if it does not call AWS",
        )
    else:
        yield Check(group, "environment", Status.OK, rule)
    yield Check(group, "command-line", Status.OK, shown_command(command))


def start_check(
    settings: Settings, private_flags: Sequence[str], library: str | None
) -> Check:
    """Tell how the process of each event begins, and why not as a copy.

    Args:
        settings: Those of the function.
        private_flags: Permission flags that hold the private folder's mark.
        library: Path of the native library, None if there is none.
    """
    group, name = "Function", "start"
    reason = why_not_fork(settings, private_flags, library)
    if settings.start is Start.EXEC and reason is None:
        each = "each event's process loads the module, though copies may be possible"
        found = f"exec: {each} (LAMBDA_DENO_START={settings.start.value})"
        return Check(group, name, Status.OK, found)
    if reason is None:
        found = (
            "fork: each event's process is a copy of one that has loaded the module, "
            "unless the module holds something that two processes cannot share; then "
            "the log says so"
        )
        return Check(group, name, Status.OK, found)
    if settings.start is Start.FORK:
        advice = "set LAMBDA_DENO_START=auto, or change what prevents copies"
        return Check(group, name, Status.PROBLEM, f"no copies: {reason}", advice)
    return Check(group, name, Status.OK, f"exec, no copies: {reason}")


def granted_permissions(flags: Sequence[str], used_set: object) -> set[str]:
    """Return the granted kinds among ``all``, ``run``, ``ffi`` and ``env``.

    ``env`` counts only if it is granted for all names.

    Args:
        flags: Deno's flags.
        used_set: The permission set named by ``-P``, as in ``deno.json``.
    """
    kinds = {"all"} if {"--allow-all", "-A"} & set(flags) else set[str]()
    kinds |= {
        kind
        for kind in ("run", "ffi")
        if any(re.fullmatch(rf"--allow-{kind}(=.*)?", flag) for flag in flags)
    }
    kinds |= {"env"} if "--allow-env" in flags else set()
    members = used_set if isinstance(used_set, dict) else {}
    for kind in ("all", "run", "ffi", "env"):
        member = members.get(kind)
        value = member.get("allow") if isinstance(member, dict) else member
        if value is True or (value and kind in ("run", "ffi")):
            kinds.add(kind)
    return kinds


def undoing_check(granted: set[str]) -> Check:
    """Check for granted permissions that make all others ineffective."""
    undoing = [kind for kind in UNDOING if kind in granted]
    if not undoing:
        found = "no programs, no native libraries"
        return Check("Function", "sandbox", Status.OK, found)
    return Check(
        "Function",
        "sandbox",
        Status.WARNING,
        f"disabled by {', '.join(f'--allow-{kind}' for kind in undoing)}: programs and "
        "libraries of the handler are not restricted by Deno's permissions",
        "grant it only if the handler starts programs or loads native libraries; "
        "see docs/configuration.md, Permissions",
    )


def _cache_checks(
    root: Path, module: Path, command: DenoCommand, project: Project | None
) -> Iterator[Check]:
    group = "Caches"
    is_packaged = (root / PACKAGED_DENO_DIR).is_dir()
    packaged = "packaged" if is_packaged else f"no {PACKAGED_DENO_DIR} is packaged"
    given = command.given_cache
    used = "each process has its own" if given is None else given.path
    yield Check(group, "deno-dir", Status.OK, f"{used}; {packaged}")
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as folder:
        missing = _missing_modules(command, module, folder)
    yield _lock_check(root, module, command, is_needed=bool(missing))
    has_modules = (root / "node_modules").is_dir()
    above = hoisted_packages(find_project(root), root)
    found = "present" if has_modules else ", ".join(above) or "none"
    yield Check(group, "node_modules", Status.OK, found)
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as folder:
        deno_dir = ModuleCache(folder, given).make()
        here = _missing_modules(command, module, deno_dir)
    if here:
        advice = "fix it: Deno cannot load the function's modules"
        if NOT_CACHED in here:
            advice = (
                "download the missing modules: lambda-deno-spawn deno cache "
                f"{shlex.quote(str(module))}"
            )
            here = here.replace(NOT_CACHED, "")
        yield Check(group, "modules", Status.PROBLEM, here, advice)
        return
    yield Check(group, "modules", Status.OK, "complete, nothing has to be downloaded")
    if not is_packaged:
        yield lambda_modules_check(missing, project)


def lambda_modules_check(missing: str, project: Project | None) -> Check:
    """Tell whether each cold start would download modules.

    Args:
        missing: Why the module cannot be loaded from the function's folder alone.
        project: The function's project, which `build` would package.
    """
    group, name = "Caches", "modules-on-lambda"
    if not missing:
        return Check(group, name, Status.OK, "all in the function's folder")
    if project is not None and project.bundle is not False:
        found = "not all in the function's folder: `build` and `deploy` bundle them"
        return Check(group, name, Status.OK, found)
    return Check(
        group,
        name,
        Status.WARNING,
        f"not in the function's folder: {missing.replace(NOT_CACHED, '')}",
        "bundle the function, or package its modules: each cold start would download "
        "them",
    )


def _lock_check(
    root: Path, module: Path, command: DenoCommand, *, is_needed: bool
) -> Check:
    """Tell whether versions are pinned.

    Args:
        root: The function's folder.
        module: The handler's module.
        command: How Deno is started.
        is_needed: Whether the module imports anything from a registry or a server.
    """
    group = "Caches"
    if "--frozen" in command.arguments:
        lock = find_project(root).lock or "deno.lock"
        found = f"{os.path.relpath(lock, root)}, frozen"
        return Check(group, "lock-file", Status.OK, found)
    if find_config(root) is None:
        return Check(group, "lock-file", Status.OK, "none, as there is no deno.json")
    if not is_needed:
        found = "none, as nothing is imported from a registry or a server"
        return Check(group, "lock-file", Status.OK, found)
    shown = shlex.quote(os.path.relpath(module, root))
    return Check(
        group,
        "lock-file",
        Status.WARNING,
        "no deno.lock: without a cache, Deno resolves the versions again",
        "create one, in the function's folder: "
        f"lambda-deno-spawn deno install --entrypoint {shown}",
    )


def _missing_modules(command: DenoCommand, module: Path, deno_dir: str) -> str:
    """Return why a module cannot be loaded without network; empty if it can.

    ``deno test --no-run`` builds the same module graph as ``deno run``, and runs
    nothing.
    """
    arguments = list(command.arguments[1:])
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as folder:
        if command.config_text is not None:
            generated = Path(folder) / CONFIG
            generated.write_text(command.config_text, "utf-8")
            arguments[arguments.index("--config") + 1] = str(generated)
        run = _run(
            [
                command.binary, "test", "--no-run", "--no-check", "--cached-only",
                *arguments, str(module),
            ],
            {**command.environ, "DENO_DIR": deno_dir, "HOME": deno_dir},
            cwd=command.cwd,
        )  # fmt: skip
    return "" if run.is_ok else run.problem


# --- sizes -----------------------------------------------------------------------


def _size_checks(environ: Mapping[str, str], task_root: Path | None) -> Iterator[Check]:
    parts: dict[str, list[Path]] = {}
    with contextlib.suppress(ConfigError):
        parts["deno"] = [Path(deno_binary(environ))]
    parts["runtime"] = runtime_files()
    if task_root is not None:
        packages = task_root / "dist"  # output of earlier builds
        parts["function"] = [
            file for file in _files(task_root) if packages not in file.parents
        ]
    total_bytes = 0
    for name, files in parts.items():
        size_bytes = sum(file.stat().st_size for file in files)
        total_bytes += size_bytes
        yield upload_check(name, size_bytes, zip_estimate_bytes(files))
    yield total_check(total_bytes, list(parts))


def upload_check(name: str, size_bytes: int, zip_bytes: int) -> Check:
    """Compare the estimated size of a zip with the limit for direct uploads."""
    found = f"{_size(size_bytes)}, zipped about {_size(zip_bytes)}"
    if zip_bytes <= NEARLY_FULL * UPLOAD_LIMIT_BYTES:
        return Check("Sizes", name, Status.OK, found)
    limit = _size(UPLOAD_LIMIT_BYTES)
    advice = f"upload it through S3: the API accepts zips of up to {limit}"
    return Check("Sizes", name, Status.WARNING, found, advice)


def total_check(size_bytes: int, parts: Iterable[str]) -> Check:
    """Compare the total unzipped size with Lambda's limit."""
    share = size_bytes / UNZIPPED_LIMIT_BYTES
    found = (
        f"{' + '.join(parts)}: {_size(size_bytes)}, {share:.0%} of the "
        f"{_size(UNZIPPED_LIMIT_BYTES)} that a function and its {LAYERS_LIMIT} layers "
        "may have"
    )
    advice = "bundle the function, and leave out files that it does not load"
    if share > 1:
        return Check("Sizes", "total", Status.PROBLEM, found, advice)
    if share > NEARLY_FULL:
        return Check("Sizes", "total", Status.WARNING, found, advice)
    return Check("Sizes", "total", Status.OK, found)


def runtime_files() -> list[Path]:
    """Return the files of the runtime layer: our package and what it imports."""
    package = Path(__file__).parents[2]
    files = [file for file in _files(package) if "dev" not in _parts(file, package)]
    waiting = list(RUNTIME_PACKAGES)
    for name in waiting:
        # A dependency may be for other systems or versions of Python only.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            distribution = importlib.metadata.distribution(name)
            listed = (Path(str(file.locate())) for file in distribution.files or ())
            # Scripts are in other folders, reached by `..`, and are not shipped.
            files += [
                file for file in listed if ".." not in file.parts and file.is_file()
            ]
            waiting += [n for n in _requirements(name) if n not in waiting]
    return files


def _parts(file: Path, folder: Path) -> tuple[str, ...]:
    return file.relative_to(folder).parts


def _requirements(distribution: str) -> list[str]:
    lines = importlib.metadata.requires(distribution) or []
    names = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
    return [name[0].lower() for name in names if name is not None]


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder; links to folders are not followed."""
    return [
        Path(base, name)
        for base, _, names in os.walk(folder)
        for name in names
        if Path(base, name).is_file()
    ]


def zip_estimate_bytes(files: Iterable[Path]) -> int:
    """Estimate the zipped size of files; samples stand for large ones."""
    total_bytes = 0
    for file in files:
        size_bytes = file.stat().st_size
        total_bytes += 2 * (
            len(file.name) + 64
        )  # headers before it and in the directory
        with contextlib.suppress(OSError), file.open("rb") as content:
            if size_bytes <= ZIP_SAMPLES * ZIP_SAMPLE_BYTES:
                total_bytes += len(zlib.compress(content.read()))
                continue
            zipped_bytes = 0
            for number in range(ZIP_SAMPLES):
                content.seek(number * (size_bytes // ZIP_SAMPLES))
                zipped_bytes += len(zlib.compress(content.read(ZIP_SAMPLE_BYTES)))
            ratio = zipped_bytes / (ZIP_SAMPLES * ZIP_SAMPLE_BYTES)
            total_bytes += round(size_bytes * ratio)
    return total_bytes


def _size(size_bytes: int) -> str:
    if size_bytes < MB:
        return f"{size_bytes / 1024:.1f} KB"
    return f"{size_bytes / MB:,.{1 if size_bytes < 10 * MB else 0}f} MB"


# --- programs --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    """Result of running a program.

    Attributes:
        problem: Why it failed, in one line; empty if it succeeded.
    """

    stdout: str
    problem: str
    duration_s: float

    @property
    def is_ok(self) -> bool:
        return not self.problem


def _run(
    command: Sequence[str],
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> _Run:
    started_s = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=cwd,
            process_group=0,
        )
    except OSError as error:
        return _Run("", f"{command[0]!r}: {error.strerror or error}", 0.0)
    with process:
        try:
            out, err = process.communicate(timeout=RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            return _Run("", f"not finished in {RUN_LIMIT_S:.0f} seconds", RUN_LIMIT_S)
        except BaseException:  # the program is in another process group, without SIGINT
            _kill_group(process)
            raise
    duration_s = time.monotonic() - started_s
    stdout = out.decode(errors="replace")
    if process.returncode == 0:
        return _Run(stdout, "", duration_s)
    problem = error_line(err.decode(errors="replace"))
    return _Run(stdout, problem or f"exit code {process.returncode}", duration_s)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def error_line(text: str) -> str:
    """Return the error in a program's stderr as one line: Deno's, or the last line.

    Deno writes the cause of an error into the line after it, after ``0:``.
    """
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    for number, line in enumerate(lines):
        if line.startswith("error: "):
            cause = lines[number + 1] if number + 1 < len(lines) else ""
            more = cause.removeprefix("0: ") if cause.startswith("0: ") else ""
            return f"{line.removeprefix('error: ')}: {more}".removesuffix(": ")
    return next((line for line in reversed(lines) if line), "")

"""A cache for Deno, filled at build time.

Loads a handler's module once, as the runtime would, and keeps Deno's cache entries: the
imports of each module, and its compiled code from V8. The key of an entry is the URL of
the module, so the URLs are rewritten to those in Lambda. Does not know packages and
archives. Specification: decision 0019; docs/build.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.dev.local.runtime import lambda_environ
from lambda_deno_spawn.dev.package.interruption import held_back
from lambda_deno_spawn.dev.package.request import HANDED_ON, folder_of_fixed_length
from lambda_deno_spawn.dev.package.scratch import scratch_folder
from lambda_deno_spawn.dev.project.function import Function, InvokeOptions
from lambda_deno_spawn.errors import BuildError, ConfigError, HandlerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.launch.command import deno_command
from lambda_deno_spawn.launch.entry import (
    RUNTIME_JS,
    builtins_of,
    entry_source,
    file_url,
)
from lambda_deno_spawn.launch.module_cache import (
    COMPANIONS,
    DATABASES,
    PACKAGED_DENO_DIR,
    ModuleCache,
)
from lambda_deno_spawn.protocol.frames import (
    Answered,
    Ready,
    WorkerConnection,
)
from lambda_deno_spawn.protocol.hello import MARKER_BYTES, hello

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_deno_spawn.dev.project.project import Project
    from lambda_deno_spawn.launch.command import DenoCommand

# Parts of V8's compiled code: its checksum, zeros if there is none; and the hash field
# of a string that has no hash yet (kEmptyHashField in name.h).
CHECKSUM = slice(24, 28)
UNKNOWN_HASH = b"\x03\0\0\0"
TASK_ROOT = Path("/var/task")  # in Lambda; AWS "Lambda environment variables"
LOAD_LIMIT_S = 30.0  # for loading the module; Lambda limits init to 10 s
READ_BYTES = 65_536
# URLs of Deno's own modules. All other entries are kept only if the package has the
# module: a data: URL, for example, may contain a program with secrets.
OWN_MODULES = ("ext:", "node:")
CODE_DATABASE = "v8_code_cache_v2"
UNKNOWN_FORM = (
    "the format of this Deno's cache is unknown: the package contains no cache, and "
    "each environment starts without it"
)
# Errors caused by the package; all others come from the module, and may be due to this
# machine.
PACKAGE_ERRORS = (
    "Runtime.ImportModuleError",
    "Runtime.UserCodeSyntaxError",
    "Runtime.HandlerNotFound",
)


@dataclass(frozen=True, slots=True)
class Seed:
    """The result of loading a module.

    Attributes:
        files: Files of the cache, by name; empty if there is nothing to keep.
        notes: Sentences that the user should read.
        failure: Why the module could not be loaded; None: it was, or may be in time.
        has_exited: Deno exited while it loaded the module, as it would on Lambda.
    """

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()
    failure: str | None = None
    has_exited: bool = False


def seed_cache(
    project: Project,
    staged: Path,
    runtime_js: str,
    *,
    binary: str,
    has_code: bool,
    environ: Mapping[str, str],
) -> Seed:
    """Load the module of a package and return the cache that Deno has written.

    The top level of the module runs, with the variables of the project and few of the
    caller's.

    Args:
        project: The project of the package.
        staged: Folder with a copy of the package's files, which may be changed.
        runtime_js: Path of ``runtime.js`` in Lambda.
        binary: Path of Deno.
        has_code: Keep V8's compiled code, which is for one instruction set.
        environ: The caller's environment.

    Raises:
        BuildError: The module cannot be found or read, or does not export the handler.
    """
    with scratch_folder() as name:
        state = Path(name).resolve()
        command = _command(project, staged, state, binary, environ)
        scripts = folder_of_fixed_length(state, "j")
        shutil.copytree(Path(RUNTIME_JS).parent, scripts)
        module = str(command.facts["module"])
        entry = entry_source(
            module, scripts / "runtime.js", builtins=builtins_of(module)
        )
        deno_dir = Path(ModuleCache(str(state), command.given_cache).make())
        loaded = _load(command._replace(entry_text=entry), state, deno_dir)
        packaged = TASK_ROOT / PACKAGED_DENO_DIR
        moves = {
            deno_dir: packaged,
            staged: TASK_ROOT,
            scripts: Path(runtime_js).parent,
        }
        files: dict[str, bytes] = {}
        moved = 0
        for database in DATABASES:
            source = deno_dir / database
            if source.exists() and (has_code or database != CODE_DATABASE):
                try:
                    files[database], count = _moved(source, state, moves)
                except sqlite3.Error as error:
                    raise BuildError(
                        f"Cannot read Deno's cache {database!r}: {error}; remove it "
                        f"from {PACKAGED_DENO_DIR!r} in the project, or use --no-cache"
                    ) from error
                # A read-only database in WAL mode needs these files, which may be
                # empty: sqlite.org/wal.html, "Read-Only Databases".
                files |= {database + end: b"" for end in COMPANIONS}
                moved += count
    if not moved and loaded.failure is None:
        return replace(loaded, notes=(*loaded.notes, UNKNOWN_FORM))
    return replace(loaded, files=files if moved else {})


def _command(
    project: Project,
    staged: Path,
    state: Path,
    binary: str,
    environ: Mapping[str, str],
) -> DenoCommand:
    # The package must not depend on the environment of the build machine.
    kept = {name: value for name, value in environ.items() if name.upper() in HANDED_ON}
    options = InvokeOptions(
        Function(staged, project.function.handler), variables=project.variables
    )
    variables = lambda_environ(options, "127.0.0.1:9", str(state), kept)
    variables |= {"LAMBDA_DENO_BIN": binary, "AWS_EC2_METADATA_DISABLED": "true"}
    variables.pop("DENO_DIR", None)
    try:
        settings = Settings.from_environ(variables, str(staged))
        return deno_command(settings, variables, str(state))
    except (ConfigError, HandlerError) as error:
        raise BuildError(f"Cannot load the package: {error}") from error


def _load(command: DenoCommand, state: Path, deno_dir: Path) -> Seed:
    """Start a process like the runtime, and close its input once it is ready.

    Returns:
        How it ended, without files.

    Raises:
        BuildError: The package has an error.
    """
    private = state / "private"
    private.mkdir()
    for name, text in command.files.items():
        (Path(command.entry).parent / name).write_text(text, "utf-8")
    marker = os.urandom(MARKER_BYTES // 2).hex()
    with tempfile.TemporaryFile() as stderr, contextlib.ExitStack() as ending:
        with held_back():
            try:
                process = subprocess.Popen(
                    command.argv(str(private)),
                    cwd=command.cwd,
                    env=command.process_environ(str(private), str(deno_dir)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                raise BuildError(
                    f"Cannot start {command.binary!r}: {error.strerror}"
                ) from error
            # Kill the group once the process has exited: others in it may keep the
            # pipes open.
            watch = threading.Thread(target=_end_in_time, args=(process,), daemon=True)
            watch.start()
            ending.callback(watch.join)
            ending.callback(_end_group, process)
        deadline_s = time.monotonic() + LOAD_LIMIT_S
        event = _first_event(process, marker, command, deadline_s)
        ending.close()
        stderr.seek(0)
        words = stderr.read().decode(errors="replace").strip().splitlines()
    if event is None and time.monotonic() > deadline_s:
        note = (
            f"the module was not loaded after {LOAD_LIMIT_S:g} s, so its cache is "
            "incomplete; Lambda allows 10 s"
        )
        return Seed({}, (note,))
    return _judge(event, process.returncode, words)


def _end_in_time(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LOAD_LIMIT_S)
    _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _first_event(
    process: subprocess.Popen[bytes],
    marker: str,
    command: DenoCommand,
    deadline_s: float,
) -> Ready | Failure | None:
    """Send the hello line and return the first event; None: none came in time.

    After READY, wait for the exit: Deno writes its cache when its input has ended.
    """
    connection = WorkerConnection(marker)
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("Cannot talk to a process without pipes")
    with stdout:
        with contextlib.suppress(BrokenPipeError), stdin:  # reported by its output
            stdin.write(hello(marker, command.facts))
        while select.select([stdout], [], [], max(0, deadline_s - time.monotonic()))[0]:
            data = os.read(stdout.fileno(), READ_BYTES)
            if not data:
                return None
            for event in connection.receive_data(data):
                if isinstance(event, Ready):
                    process.wait()
                    return event
                if isinstance(event, Answered) and isinstance(event.outcome, Failure):
                    return event.outcome
    return None


def _judge(
    event: Ready | Failure | None, returncode: int, words: Sequence[str]
) -> Seed:
    """Return how a process has ended, as a cache without files.

    Raises:
        BuildError: The package has an error.
    """
    if isinstance(event, Ready):
        return Seed({})
    if event is None:
        last = f": {words[-1]}" if words else ""
        failure = f"Deno exited with code {returncode} while it loaded the module{last}"
        return Seed({}, failure=failure, has_exited=True)
    error = json.loads(event.body)
    kind, message = error["errorType"], error["errorMessage"]
    if kind in PACKAGE_ERRORS:
        raise BuildError(f"Cannot load the package: {kind}: {message}")
    failure = f"the module threw while it was loaded here: {kind}: {message}"
    return Seed({}, failure=failure)


def _moved(source: Path, state: Path, moves: Mapping[Path, Path]) -> tuple[bytes, int]:
    """Copy a database with rewritten URLs; equal rows give equal bytes.

    Returns:
        The copy, and the number of rewritten rows.
    """
    target = state / "moved"
    target.unlink(missing_ok=True)
    moved = 0
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        for database in (old, new):
            database.execute("PRAGMA synchronous=OFF")  # both are temporary
        new.execute("PRAGMA journal_mode=WAL")
        for table, sql in old.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        ).fetchall():
            new.execute(sql)
            rows = old.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in rows.description]
            at = columns.index("specifier") if "specifier" in columns else None
            kept = []
            for row in rows:
                fields = list(row)
                if at is not None and not str(row[at]).startswith(OWN_MODULES):
                    address = new_address(row[at], moves)
                    if address is None:
                        continue
                    fields = [anonymous(one, row[at], address) for one in row]
                    fields[at] = address
                    moved += 1
                kept.append(fields)
            marks = ", ".join("?" * len(columns))
            new.executemany(f"INSERT INTO {table} VALUES ({marks})", sorted(kept))
        # Deno runs an optimization on opening, which fails on a read-only file system.
        new.execute("ANALYZE")
        new.commit()
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return target.read_bytes(), moved


def new_address(address: str, moves: Mapping[Path, Path]) -> str | None:
    """Return the URL of a module in Lambda; None if the package does not contain it.

    Args:
        address: URL of the module on this machine; Deno's escaping varies.
        moves: Folders on this machine, and their paths in Lambda.
    """
    parts = address.split("/")
    for old, new in moves.items():
        own = f"file://{old}".split("/")
        if list(map(unquote, parts[: len(own)])) == own and len(parts) > len(own):
            return "/".join([file_url(new), *parts[len(own) :]])
    return None


def anonymous(field: object, address: str, new_address: str) -> object:
    """Remove the local URL from V8's compiled code, so that it is reproducible.

    The code contains the URL that the module had, as a string preceded by hash and
    length. When V8 loads the code it replaces the URL with the current one
    (``SetScriptFieldsFromDetails`` in code-serializer.cc). So any text of the same
    length can take its place, marked as not hashed yet. Code with a checksum is not
    changed.
    """
    if not isinstance(field, bytes) or field[CHECKSUM] != bytes(4):
        return field
    old = address.encode()
    length = len(old).to_bytes(4, "little")
    new = new_address.encode()[: len(old)].ljust(len(old), b"#")
    code = bytearray(field)
    at = field.find(length + old)
    while at >= len(UNKNOWN_HASH):
        end = at + len(length + old)
        code[at - len(UNKNOWN_HASH) : end] = UNKNOWN_HASH + length + new
        at = field.find(length + old, end)
    return bytes(code)

"""A cache for Deno that is full before the first process starts.

Loads a handler's module once, as the runtime would, and keeps what Deno found out on
the way: the imports of each module and V8's code for it. Deno finds such an entry by
the module's address, so the addresses become those that the modules have in Lambda.
Refuses to know packages and archives. Specification: decision 0019; docs/build.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.dev.local.runtime import lambda_environ
from lambda_deno_spawn.dev.project.function import Function, InvokeOptions
from lambda_deno_spawn.errors import BuildError, ConfigError, HandlerError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.launch.command import deno_command
from lambda_deno_spawn.launch.entry import RUNTIME_JS, entry_source, file_url
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

# In V8's code: where its checksum is, zeros if there is none, and a string's hash field
# before there is a hash (kEmptyHashField in name.h).
CHECKSUM = slice(24, 28)
UNKNOWN_HASH = b"\x03\0\0\0"
PATH_LENGTH = 128  # of folders whose length must not matter; longer ones it does
TASK_ROOT = Path("/var/task")  # in Lambda; AWS "Lambda environment variables"
LOAD_LIMIT_S = 30.0  # for a module; Lambda gives init 10
READ_BYTES = 65_536
# Of the caller's variables, in capitals: what it takes to run here at all.
HANDED_ON = frozenset(
    {
        "ALL_PROXY", "AWS_DEFAULT_REGION", "AWS_REGION", "DENO_CERT",
        "DENO_TLS_CA_STORE", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LC_ALL",
        "LD_LIBRARY_PATH", "NODE_EXTRA_CA_CERTS", "NO_PROXY", "PATH", "SSL_CERT_DIR",
        "SSL_CERT_FILE", "TZ",
    }
)  # fmt: skip
# Deno's own modules; all others have an address in the package, or are not packaged: an
# address can hold a whole program, with whatever was put into it (data:).
OWN_MODULES = ("ext:", "node:")
LOST_IN_A_BUNDLE = re.compile(r"\b(__dirname|__filename|require|module|exports) is not")
CODE_DATABASE = "v8_code_cache_v2"
# WAL needs its companions beside a database that nobody may write; empty ones will do
# (sqlite.org/wal.html, "Read-Only Databases").
UNKNOWN_FORM = (
    "this Deno keeps its cache in a form that is not known here: the package carries "
    "none, and each environment starts without it"
)
# Errors of the package; others are the module's own, and may be this machine's.
PACKAGE_ERRORS = (
    "Runtime.ImportModuleError",
    "Runtime.UserCodeSyntaxError",
    "Runtime.HandlerNotFound",
)


@dataclass(frozen=True, slots=True)
class Seed:
    """What came of loading a module.

    Attributes:
        files: Of the cache, by name; empty if there is nothing to keep.
        notes: What people should know, as sentences.
    """

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def seed_cache(
    project: Project,
    staged: Path,
    runtime_js: str,
    *,
    binary: str,
    has_code: bool,
    environ: Mapping[str, str],
) -> Seed:
    """Load the module of a package and return the cache that this leaves.

    The module's top level runs, with the project's variables and hardly any of the
    caller's.

    Args:
        project: What the package is made from.
        staged: Folder with a copy of the package's files, which may be changed.
        runtime_js: Where ``runtime.js`` is in Lambda.
        binary: Deno.
        has_code: Keep V8's code: that is for one instruction set.
        environ: The caller's variables.

    Raises:
        BuildError: The module cannot be found or read, or does not export the handler.
    """
    with tempfile.TemporaryDirectory(prefix="lambda-deno-spawn-") as name:
        state = Path(name).resolve()
        command = _command(project, staged, state, binary, environ)
        scripts = folder_of_fixed_length(state, "j")
        shutil.copytree(Path(RUNTIME_JS).parent, scripts)
        entry = entry_source(str(command.facts["module"]), scripts / "runtime.js")
        deno_dir = Path(ModuleCache(str(state), command.given_cache).make())
        notes = _load(command._replace(entry_text=entry), state, deno_dir)
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
                        f"from the project's {PACKAGED_DENO_DIR!r}, or use --no-cache"
                    ) from error
                files |= {database + end: b"" for end in COMPANIONS}
                moved += count
    if not moved:
        return Seed({}, (*notes, UNKNOWN_FORM))
    return Seed(files, tuple(notes))


def folder_of_fixed_length(parent: Path, letter: str) -> Path:
    """Return a folder's path that is equally long wherever the parent is.

    V8's code holds the address of its module, so its length would show.
    """
    return parent / (letter * max(1, PATH_LENGTH - len(str(parent)) - 1))


def _command(
    project: Project,
    staged: Path,
    state: Path,
    binary: str,
    environ: Mapping[str, str],
) -> DenoCommand:
    # What a build machine has in its environment is none of a package's business.
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


def _load(command: DenoCommand, state: Path, deno_dir: Path) -> list[str]:
    """Start a process as the runtime does and end its input once it is ready.

    Returns:
        Why the cache may be incomplete, as sentences.

    Raises:
        BuildError: The package is at fault.
    """
    private = state / "private"
    private.mkdir()
    Path(command.entry).write_text(command.entry_text, "utf-8")
    marker = os.urandom(MARKER_BYTES // 2).hex()
    with tempfile.TemporaryFile() as stderr:
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
        deadline_s = time.monotonic() + LOAD_LIMIT_S
        # When it has ended, so has what it started: that may hold its pipes open.
        watch = threading.Thread(target=_end_in_time, args=(process,), daemon=True)
        watch.start()
        try:
            event = _first_event(process, marker, command, deadline_s)
        finally:
            _end_group(process)
            watch.join()
        stderr.seek(0)
        words = stderr.read().decode(errors="replace").strip().splitlines()
    if event is None and time.monotonic() > deadline_s:
        return [
            f"the module was not loaded after {LOAD_LIMIT_S:g} s, so its cache is "
            "incomplete; Lambda gives it 10 s"
        ]
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
    """Say hello and return whether the module was loaded; None: it was not in time.

    One that is ready is given its end of input, at which it writes its cache and exits.
    """
    connection = WorkerConnection(marker)
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("Cannot talk to a process without pipes")
    with stdout:
        with contextlib.suppress(BrokenPipeError), stdin:  # its output says why
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
) -> list[str]:
    """Return why the cache may be incomplete, as sentences.

    Raises:
        BuildError: The package is at fault.
    """
    if isinstance(event, Ready):
        return []
    if event is None:
        last = f": {words[-1]}" if words else ""
        return [
            f"Deno ended with exit code {returncode} while the module was loaded here"
            f"{last}; its cache is incomplete"
        ]
    error = json.loads(event.body)
    kind, message = error["errorType"], error["errorMessage"]
    if kind in PACKAGE_ERRORS:
        raise BuildError(f"Cannot load the package: {kind}: {message}")
    if kind == "ReferenceError" and LOST_IN_A_BUNDLE.search(message):
        raise BuildError(
            f"Cannot load the package: {message}, which CommonJS has and a bundle has "
            "not; keep the files with --no-bundle (bundle = false in lambda.toml)"
        )
    return [
        f"the module threw while it was loaded here: {kind}: "
        f"{message}; its cache is incomplete; what it needs can be given with --env"
    ]


def _moved(source: Path, state: Path, moves: Mapping[Path, Path]) -> tuple[bytes, int]:
    """Copy a database with other addresses in it; the same bytes for the same rows.

    Returns:
        The copy, and how many rows were moved.
    """
    target = state / "moved"
    target.unlink(missing_ok=True)
    moved = 0
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
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
        # Deno optimizes what it opens; where nobody may write, that would fail.
        new.execute("ANALYZE")
        new.commit()
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return target.read_bytes(), moved


def new_address(address: str, moves: Mapping[Path, Path]) -> str | None:
    """Return what a module's address is in Lambda; None if it is not there.

    Args:
        address: As Deno spells it, which is not always the same way.
        moves: Folders here and in Lambda.
    """
    parts = address.split("/")
    for old, new in moves.items():
        own = f"file://{old}".split("/")
        if list(map(unquote, parts[: len(own)])) == own and len(parts) > len(own):
            return "/".join([file_url(new), *parts[len(own) :]])
    return None


def anonymous(field: object, address: str, new_address: str) -> object:
    """Make V8's code the same wherever it was made.

    It holds the address that its module had, as a string with hash and length in front.
    V8 puts the address that the module has in its place (``SetScriptFieldsFromDetails``
    in code-serializer.cc), so any other of that length will do, with the mark of a hash
    that is not known yet. Code with a checksum is left as it is.
    """
    if not isinstance(field, bytes) or field[CHECKSUM] != bytes(4):
        return field
    old = address.encode()
    length = len(old).to_bytes(4, "little")
    new = new_address.encode()[: len(old)].ljust(len(old), b"#")
    pattern = re.compile(b".{4}" + re.escape(length + old), re.DOTALL)
    return pattern.sub(lambda _: UNKNOWN_HASH + length + new, field)

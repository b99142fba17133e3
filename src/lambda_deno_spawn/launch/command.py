"""The command line that starts Deno: arguments, permissions, memory, first facts.

Decides how a process is started and starts none; the parts of the decision are in the
modules beside it. Needed before anything slow is imported (decision 0020). Defaults
and reasons: docs/configuration.md.
"""

from __future__ import annotations

import os

from lambda_deno_spawn.config import Strategy
from lambda_deno_spawn.errors import ConfigError, HandlerError
from lambda_deno_spawn.launch.addresses import local_addresses, runtime_api_spellings
from lambda_deno_spawn.launch.binary import find_binary
from lambda_deno_spawn.launch.deno_json import (
    SLOPPY,
    config_flags,
    emit_options,
    find_project,
    hoisted_packages,
    permission_sets,
    searched_above,
)
from lambda_deno_spawn.launch.entry import builtins_of, entry_source, needed_parts
from lambda_deno_spawn.launch.handler import BUNDLE, find_handler, find_in_packages
from lambda_deno_spawn.launch.module_cache import given_cache
from lambda_deno_spawn.launch.variables import (
    CREDENTIALS,
    FETCHED_FROM,
    console_records,
    process_variables,
    withheld_credentials,
)
from lambda_deno_spawn.limits import RESPONSE_LIMIT_BYTES
from lambda_deno_spawn.permissions import (
    PRIVATE_DIR,
    PRIVATE_DIR_MARK,
    SOCKET,
    grant,
)
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.launch.handler import Handler
    from lambda_deno_spawn.launch.module_cache import GivenCache
    from lambda_deno_spawn.launch.node_options import NodeOptions
    from lambda_deno_spawn.permissions import Grant

ENTRY = "entry.mjs"
CONFIG = "deno.json"  # beside it, where the project's own files are not enough
LAYERS_ROOT = "/opt"
NODE_FOLDER = "nodejs"  # of a layer
NODE_VARIABLES = frozenset({"NODE_OPTIONS", "NODE_PATH"})
# Memory that V8's old space cannot use: the supervisor's, that of Deno's own code and
# buffers, and a part that grows with the heap. Measured in a control group; see
# decision 0016.
MEMORY_OUTSIDE_HEAP_MB = 120
MEMORY_OUTSIDE_HEAP_PERCENT = 5
MINIMUM_HEAP_MB = 32
# V8 puts new objects into a semi-space of 1 MB at first; when it is full, live objects
# are copied and it grows, up to this size. Here it begins with a share of the memory
# instead: decision 0026.
MAXIMUM_SEMI_SPACE_MB = 16
SEMI_SPACE_SHARE = 64
# unix(7): ``sun_path`` without its last byte.
SOCKET_PATH_LIMIT_BYTES = 107
PRIVATE_NAME_LENGTH = 16  # of the folder that StateDir makes for each process
# Fraction of close_grace_s, and of last_words_s, after which the worker exits on its
# own.
CLOSE_SHARE = 0.7
# A Linux pipe takes this much in one piece; a larger write can be torn apart by
# another writer (pipe(7), PIPE_BUF).
ATOMIC_WRITE_BYTES = 4096


class DenoCommand(NamedTuple):
    """One way to start Deno, the same for every process of an environment.

    Attributes:
        binary: Deno's executable.
        arguments: Everything between the binary and the permission flags.
        permissions: Flags that do not depend on the private folder.
        private_permissions: Flags that hold ``PRIVATE_DIR_MARK`` in its place.
        permission_set: Set of ``deno.json`` that applies, None if none does.
        entry: The entry module's file, in the supervisor's folder.
        entry_text: Its content.
        config_text: Content of ``CONFIG`` beside the entry module; None: there is none.
        given_cache: Cache that exists before the first process, if any.
        environ: Variables of the process, without those of its own folders.
        cwd: Its working directory.
        facts: Content of its first line of stdin, the same for every process.
        sources: Settings that the arguments come from, for the error if Deno refuses
            them.
        invocations: How many a process serves; 0: no limit.
        listens: It receives invocations on a socket.
        has_input: It reads from a pipe of its own when its stdin has ended.
        notes: Sentences for the log about what has no effect.
        may_write_elsewhere: Handlers may write outside their private folders.
        may_change_processes: Handlers may change the priority of other processes, or
            start programs, which may change more of them.
        is_closed: A process closes itself to others of its user before it takes its
            standard streams; see ``processes.launch.launch``.
    """

    binary: str
    arguments: tuple[str, ...]
    permissions: tuple[str, ...]
    private_permissions: tuple[str, ...]
    permission_set: str | None
    entry: str
    entry_text: str
    given_cache: GivenCache | None
    environ: Mapping[str, str]
    cwd: str
    facts: Mapping[str, object]
    sources: str
    invocations: int = 1
    listens: bool = False
    has_input: bool = False
    config_text: str | None = None
    notes: tuple[str, ...] = ()
    may_write_elsewhere: bool = True
    may_change_processes: bool = True
    is_closed: bool = False

    @property
    def files(self) -> dict[str, str]:
        """The content of the files in the supervisor's folder, by name."""
        files = {os.path.basename(self.entry): self.entry_text}
        if self.config_text is not None:
            files[CONFIG] = self.config_text
        return files

    def argv(self, private_dir: str) -> list[str]:
        """Return the whole command line for a process that owns ``private_dir``."""
        own = [
            flag.replace(PRIVATE_DIR_MARK, private_dir)
            for flag in self.private_permissions
        ]
        return [self.binary, *self.arguments, *self.permissions, *own, self.entry]

    @property
    def may_have_alias(self) -> bool:
        """True if a path may lead each process to its own folder through a link.

        Handlers cannot change that link, and start no programs: those could not follow
        it.
        """
        is_around = any("/.." in flag for flag in self.private_permissions)
        return not (self.may_write_elsewhere or self.may_change_processes or is_around)

    def for_places(
        self, folders: Sequence[str], alias: str | None = None
    ) -> DenoCommand:
        """Return the command for a template whose copies have these folders.

        Args:
            folders: The first one is its own.
            alias: A path that leads each copy to its own folder, if there is one.
        """
        # Not needed for the first process, which waits for no import.
        from lambda_deno_spawn.launch.places import share_folders

        flags, revoked = share_folders(
            self.private_permissions, folders, self.cwd, alias
        )
        places = {"folders": folders, "revoked": revoked}
        return self._replace(
            private_permissions=flags,
            facts={**self.facts, "places": places},
        )

    def process_environ(self, private_dir: str, deno_dir: str) -> dict[str, str]:
        """Return the environment for a process that owns these folders."""
        own = {"HOME": private_dir, "TMPDIR": private_dir, "DENO_DIR": deno_dir}
        return {**self.environ, **own}


def deno_command(
    settings: Settings, environ: Mapping[str, str], state_dir: str
) -> DenoCommand:
    """Decide how this function's processes are started.

    Args:
        settings: Parsed settings.
        environ: The environment that processes inherit from.
        state_dir: The supervisor's folder, where the entry module goes.

    Raises:
        ConfigError: No Deno binary, or the task root is not a folder.
        HandlerError: ``_HANDLER`` is malformed or names no file.
    """
    binary = find_binary(settings, environ.get("PATH", ""))
    task_root = settings.task_root
    if not os.path.isdir(task_root):
        raise ConfigError("LAMBDA_TASK_ROOT", settings.task_root, "an existing folder")
    try:
        settings.task_root.encode()
    except UnicodeEncodeError:
        expected = "a path in UTF-8"
        raise ConfigError("LAMBDA_TASK_ROOT", settings.task_root, expected) from None
    # A comma separates paths in Deno's permission flags.
    if "," in settings.task_root:
        raise ConfigError("LAMBDA_TASK_ROOT", settings.task_root, "no comma in it")
    if "," in state_dir:
        raise ConfigError("TMPDIR", settings.temp_root, "no comma in it")
    listens = settings.strategy is Strategy.SERVER
    has_input = listens or settings.invocations != 1
    if listens:
        _check_room_for_socket(settings, state_dir)
    handler = _find_handler(settings, environ)
    project = find_project(task_root)
    config = project.config
    options = emit_options(project)
    hoisted = hoisted_packages(project, task_root)
    missing, existing = searched_above(task_root)
    layers = (LAYERS_ROOT,) if os.path.isdir(LAYERS_ROOT) else ()
    granted = grant(
        settings.permissions,
        {} if config is None else permission_sets(config),
        read_paths=(task_root, *layers, *hoisted),
        task_root=task_root,
        searched=missing,
        denied=runtime_api_spellings(settings.runtime_api, local_addresses()),
        listens=listens,
        has_input=has_input,
    )
    given = process_variables(settings, environ)
    wanted = set(given)
    if settings.credentials_uri is not None:
        if not withheld_credentials(settings):
            wanted |= FETCHED_FROM  # not withheld: handed on once they are fetched
        given = {name: given[name] for name in given.keys() - FETCHED_FROM}
    withholds_credentials = bool(CREDENTIALS & (environ.keys() - wanted))
    node, package_folders = _node_options(given)
    is_bundle = handler.path.endswith(BUNDLE)
    generated = os.path.join(state_dir, CONFIG) if options else None
    arguments = [
        "run", "--quiet", "--no-prompt",
        # Node's rule: a .js file without import and export is CommonJS.
        "--unstable-detect-cjs",
        *([] if is_bundle else [SLOPPY]),
        *config_flags(project, task_root, generated),
        f"--v8-flags={','.join(_v8_flags(settings, node))}",
    ]  # fmt: skip
    own_flags = [flag for flag in granted.flags if PRIVATE_DIR_MARK in flag]
    return DenoCommand(
        binary=binary,
        arguments=tuple(arguments),
        permissions=tuple(flag for flag in granted.flags if flag not in own_flags),
        private_permissions=tuple(own_flags),
        permission_set=granted.set_name,
        entry=os.path.join(state_dir, ENTRY),
        entry_text=entry_source(
            handler.path,
            parts=needed_parts(settings),
            preloads=() if node is None else node.preloads,
            task_root=task_root,
            builtins=builtins_of(handler.path) if is_bundle else (),
        ),
        config_text=_generated_config(options) if options else None,
        given_cache=given_cache(settings),
        environ=given,
        cwd=task_root,
        facts={
            **_facts(
                settings, handler, granted, withholds_credentials=withholds_credentials
            ),
            "console": console_records(given),
            # All of them as members would take each process 0.05 ms to read.
            "steering": ",".join(granted.steering),
            "variables": {
                name: given[name] for name in granted.steering if name in given
            },
            "packageFolders": package_folders,
            "closedFolders": [path for path in existing if path not in hoisted],
        },
        sources=_sources(settings, config),
        invocations=settings.invocations,
        listens=listens,
        has_input=has_input,
        notes=() if node is None else node.notes,
        may_write_elsewhere=granted.may_write_elsewhere,
        may_change_processes=granted.may_start_programs
        or settings.permissions.may_renice,
    )


def shown_command(command: DenoCommand) -> str:
    """Return the command line in the syntax of a shell, for people to read.

    ``$TMPDIR`` stands for the private folder, which differs for each process.
    """
    import shlex

    own = f'"{PRIVATE_DIR}"'
    return " ".join(
        own.join(shlex.quote(part) if part else "" for part in word.split(PRIVATE_DIR))
        for word in command.argv(PRIVATE_DIR)
    )


def shown_variables(environ: Mapping[str, str], command: DenoCommand) -> str:
    """Return the names of the variables that a process gets and of those withheld."""
    given = command.process_environ(PRIVATE_DIR, "")
    withheld = environ.keys() - given.keys()
    return (
        f"variables: {', '.join(sorted(given))}; "
        f"withheld from it: {', '.join(sorted(withheld)) or 'none'}"
    )


def _check_room_for_socket(settings: Settings, state_dir: str) -> None:
    """Refuse a folder whose path is too long for a socket, before Deno fails on it."""
    path = f"{state_dir}/{'0' * PRIVATE_NAME_LENGTH}{SOCKET}"
    excess = len(os.fsencode(path)) - SOCKET_PATH_LIMIT_BYTES
    if excess > 0:
        room = len(os.fsencode(settings.temp_root)) - excess
        expected = f"a path of at most {room} bytes: the server's socket is in it"
        raise ConfigError("TMPDIR", settings.temp_root, expected)


def _sources(settings: Settings, config: str | None) -> str:
    given = {
        "LAMBDA_DENO_PERMISSIONS": settings.permissions.text,
        "LAMBDA_DENO_V8_FLAGS": " ".join(settings.v8_flags),
    }
    sources = [f"{name}={value!r}" for name, value in given.items() if value]
    if config is not None:
        sources.append(str(config))
    return " and ".join(sources) or "the runtime's defaults"


def _find_handler(settings: Settings, environ: Mapping[str, str]) -> Handler:
    """Find the handler in the task root, in its packages or in those of a layer.

    Raises:
        HandlerError: It is malformed or names no file.
    """
    try:
        return find_handler(settings.task_root, settings.handler)
    except HandlerError:
        from lambda_deno_spawn.launch.node_options import package_folders

        own = os.path.join(settings.task_root, "node_modules")
        folders = [own, *package_folders(environ, LAYERS_ROOT)]
        found = find_in_packages(folders, settings.handler)
        if found is None:
            raise
        return found


def _node_options(
    environ: Mapping[str, str],
) -> tuple[NodeOptions | None, Sequence[str]]:
    """Return ``NODE_OPTIONS`` and the folders of packages, where there are any."""
    is_needed = not NODE_VARIABLES.isdisjoint(environ)
    if not is_needed and not os.path.isdir(os.path.join(LAYERS_ROOT, NODE_FOLDER)):
        return None, []
    # Most functions need not load this.
    from lambda_deno_spawn.launch.node_options import NodeOptions, package_folders

    return NodeOptions.parse(environ), package_folders(environ, LAYERS_ROOT)


def _generated_config(options: Mapping[str, object]) -> str:
    """Return a ``deno.json`` with the compiler options of ``tsconfig.json``."""
    import json

    return json.dumps({"compilerOptions": options})


def _v8_flags(settings: Settings, node: NodeOptions | None) -> list[str]:
    """Return V8's flags: the ones of the settings, and two that fit the memory.

    The heap limit lets V8 report exhausted memory before the kernel ends the process.
    The semi-space is large because objects made while the module loads are not worth
    collecting: the process ends before that would pay.
    """
    flags = list(settings.v8_flags)
    # V8 does not distinguish dashes and underscores.
    names = [flag.split("=")[0].replace("_", "-") for flag in flags]
    for flag in () if node is None else node.v8_flags:  # the setting wins
        if flag.split("=")[0] not in names:
            flags.append(flag)
            names.append(flag.split("=")[0])
    is_limited = "--max-old-space-size" in names or "--max-heap-size" in names
    if settings.memory_mb and not is_limited:
        usable_mb = settings.memory_mb * (100 - MEMORY_OUTSIDE_HEAP_PERCENT) // 100
        heap_mb = max(MINIMUM_HEAP_MB, usable_mb - MEMORY_OUTSIDE_HEAP_MB)
        flags.append(f"--max-old-space-size={heap_mb}")
    if not any("semi-space" in name for name in names):
        semi_space_mb = MAXIMUM_SEMI_SPACE_MB
        if settings.memory_mb:
            share_mb = settings.memory_mb // SEMI_SPACE_SHARE
            semi_space_mb = max(1, min(share_mb, MAXIMUM_SEMI_SPACE_MB))
        flags.append(f"--min-semi-space-size={semi_space_mb}")
    return flags


def _facts(
    settings: Settings,
    handler: Handler,
    granted: Grant,
    *,
    withholds_credentials: bool,
) -> dict[str, object]:
    return {
        "export": handler.export,
        "module": handler.path,
        "partBytes": ATOMIC_WRITE_BYTES
        if granted.may_start_programs and settings.strategy is Strategy.FRESH
        else 0,
        "invocations": settings.invocations,
        "closeMs": round(settings.close_grace_s * CLOSE_SHARE * 1000),
        "lastWordsMs": round(settings.last_words_s * CLOSE_SHARE * 1000),
        # Each process that has these has its own.
        "socket": None,
        "input": None,
        "template": False,
        "places": None,  # those of a template whose copies have several
        "concurrency": settings.concurrency
        if settings.strategy is Strategy.SERVER
        else 1,
        "resultLimitBytes": RESPONSE_LIMIT_BYTES,
        "responseMode": settings.response_mode.value,
        "logFormat": settings.log_format.value,
        "logLevel": settings.log_level.value,
        "permissions": {
            **granted.hints,
            "credentialsWithheld": withholds_credentials,
        },
        "context": {
            "functionName": settings.function_name,
            "functionVersion": settings.function_version,
            "memoryLimitInMB": ""
            if settings.memory_mb is None
            else str(settings.memory_mb),
            "logGroupName": settings.log_group_name,
            "logStreamName": settings.log_stream_name,
        },
    }

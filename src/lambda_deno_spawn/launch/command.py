"""How Deno is started: binary, handler file, permissions, arguments, environment.

Decides what to run and runs nothing. It looks at the file system (does a file exist,
what does ``deno.json`` say) and can write the entry module; processes belong to
``process.py``. Defaults and reasons: docs/configuration.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re

from lambda_deno_spawn.config import CREDENTIALS_GROUP, Strategy
from lambda_deno_spawn.errors import ConfigError, HandlerError
from lambda_deno_spawn.launch.module_cache import GivenCache
from lambda_deno_spawn.permissions import (
    PRIVATE_DIR,
    PRIVATE_DIR_MARK,
    SOCKET,
    grant,
)
from lambda_deno_spawn.protocol.hello import RESPONSE_LIMIT_BYTES
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    AnyPath = str | os.PathLike[str]

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.permissions import Grant

RUNTIME_JS = os.path.join(
    os.path.dirname(os.path.dirname(__file__)), "js", "runtime.js"
)
# What only some processes need, in the order in which ``start`` takes them: those that
# serve more than one invocation, and those that listen.
RUNTIME_PARTS = ("closing.js", "server.js")
ENTRY = "entry.mjs"
LAYER_BINARY = "/opt/bin/deno"
LAYERS_ROOT = "/opt"
PACKAGED_DENO_DIR = ".deno_dir"  # in the task root, made by `build`
# A bundle wins over the source it was made from.
HANDLER_SUFFIXES = (".bundle.js", ".js", ".mjs", ".cjs", ".ts", ".tsx")
# What V8's old space cannot have: this supervisor, Deno's own code and buffers, and a
# part that grows with the heap. Measured in a control group; see decision 0016.
MEMORY_OUTSIDE_HEAP_MB = 120
MEMORY_OUTSIDE_HEAP_PERCENT = 5
MINIMUM_HEAP_MB = 32
# New objects fill a space that V8 begins with 1 MB; what lives is copied when it is
# full, and it becomes larger, up to this. It begins with a share of the memory instead:
# decision 0026.
MAXIMUM_SEMI_SPACE_MB = 16
SEMI_SPACE_SHARE = 64
# unix(7), ``sun_path`` without its last byte; and what state.py adds for each process.
SOCKET_PATH_LIMIT_BYTES = 107
PRIVATE_NAME_LENGTH = 16
# Always handed on, whatever LAMBDA_DENO_ENV says: without them programs cannot run.
ESSENTIAL_VARIABLES = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
# What AWS's SDKs take credentials from; no wildcard of LAMBDA_DENO_ENV matches them.
CREDENTIALS = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECRET_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }
)
# What leads to credentials that the supervisor fetches, and has a secret in it.
FETCHED_FROM = frozenset(
    {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}
)
# What it hands on of them.
FETCHED_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
)  # fmt: skip
# Of the time that a process is given to close, until it exits by itself.
CLOSE_SHARE = 0.7
# A handler that polled the Runtime API would steal events. The trace id of the
# environment, if there is one, is not that of the invocation to come.
WITHHELD = frozenset({"AWS_LAMBDA_RUNTIME_API", "_X_AMZN_TRACE_ID"})
WITHHELD_PREFIXES = ("_LAMBDA_", "LAMBDA_DENO_")
# A Linux pipe takes this much in one piece; a larger write can be torn apart by
# another writer (pipe(7), PIPE_BUF).
ATOMIC_WRITE_BYTES = 4096
# What stands for itself in the path of a file's address.
URL_BYTES = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/~@:+,=&$!*'();-._"
)
NETWORK = "/proc/net"


class Handler(NamedTuple):
    """The file and the export that ``_HANDLER`` names."""

    path: str
    export: str


class DenoCommand(NamedTuple):
    """One way to start Deno, the same for every process of an environment.

    Attributes:
        binary: Deno's executable.
        arguments: Everything between the binary and the permission flags.
        permissions: Flags that do not depend on the private folder.
        private_permissions: Flags that hold ``PRIVATE_DIR_MARK`` in its place.
        permission_set: Set of ``deno.json`` that counts, None if it is none.
        entry: The entry module's file, in the supervisor's folder.
        entry_text: What is in it.
        given_cache: Cache that there is to begin with, if any.
        environ: Variables of the process, without those of its own folders.
        cwd: Its working directory.
        facts: What the process is told in its first line.
        sources: Which settings the arguments stem from, should Deno refuse them.
        invocations: How many a process serves; 0: no limit.
        listens: It is reached by a socket.
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

    def argv(self, private_dir: str) -> list[str]:
        """Return the whole command line for a process that owns ``private_dir``."""
        own = [
            flag.replace(PRIVATE_DIR_MARK, private_dir)
            for flag in self.private_permissions
        ]
        return [self.binary, *self.arguments, *self.permissions, *own, self.entry]

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
        state_dir: Folder of this supervisor's own, where the entry module goes.

    Raises:
        ConfigError: No Deno binary, or the task root is no folder.
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
    if settings.strategy is Strategy.SERVER:
        _check_room_for_socket(settings, state_dir)
    handler = find_handler(task_root, settings.handler)
    config = find_config(task_root)
    layers = (LAYERS_ROOT,) if os.path.isdir(LAYERS_ROOT) else ()
    granted = grant(
        settings.permissions,
        {} if config is None else permission_sets(config),
        read_paths=(task_root, *layers),
        task_root=task_root,
        denied=runtime_api_spellings(settings.runtime_api, local_addresses()),
        listens=settings.strategy is Strategy.SERVER,
    )
    given = _environ(settings, environ)
    wanted = set(given)
    if settings.credentials_uri is not None:
        if not withheld_credentials(settings):
            wanted |= FETCHED_FROM  # by what was fetched from there
        given = {name: given[name] for name in given.keys() - FETCHED_FROM}
    withholds_credentials = bool(CREDENTIALS & (environ.keys() - wanted))
    arguments = [
        "run", "--quiet", "--no-prompt",
        # Node's rule: a .js file without import and export is CommonJS.
        "--unstable-detect-cjs",
        *config_flags(task_root, config),
        f"--v8-flags={','.join(_v8_flags(settings))}",
    ]  # fmt: skip
    own_flags = [flag for flag in granted.flags if PRIVATE_DIR_MARK in flag]
    return DenoCommand(
        binary=binary,
        arguments=tuple(arguments),
        permissions=tuple(flag for flag in granted.flags if flag not in own_flags),
        private_permissions=tuple(own_flags),
        permission_set=granted.set_name,
        entry=os.path.join(state_dir, ENTRY),
        entry_text=entry_source(handler.path, parts=_parts(settings)),
        given_cache=_given_cache(settings),
        environ=given,
        cwd=task_root,
        facts={
            **_facts(
                settings, handler, granted, withholds_credentials=withholds_credentials
            ),
            "variables": {name: given.get(name) for name in granted.steering},
        },
        sources=_sources(settings, config),
        invocations=settings.invocations,
        listens=settings.strategy is Strategy.SERVER,
    )


def shown_command(command: DenoCommand) -> str:
    """Return the command line as a shell would take it, for people to read.

    ``$TMPDIR`` stands for the private folder, which is another one for each process.
    """
    import shlex

    own = f'"{PRIVATE_DIR}"'
    return " ".join(
        own.join(shlex.quote(part) if part else "" for part in word.split(PRIVATE_DIR))
        for word in command.argv(PRIVATE_DIR)
    )


def shown_variables(environ: Mapping[str, str], command: DenoCommand) -> str:
    """Return which variables a process gets and which it does not: names, no values."""
    given = command.process_environ(PRIVATE_DIR, "")
    withheld = environ.keys() - given.keys()
    return (
        f"variables: {', '.join(sorted(given))}; "
        f"withheld from it: {', '.join(sorted(withheld)) or 'none'}"
    )


def find_binary(settings: Settings, path: str) -> str:
    """Return Deno's executable: the first that exists of setting, layer, PyPI, PATH.

    Raises:
        ConfigError: There is none, or the one that was named cannot be executed.
    """
    if settings.deno_bin is not None:
        if _is_executable(settings.deno_bin):
            return settings.deno_bin
        raise ConfigError("LAMBDA_DENO_BIN", settings.deno_bin, "an executable file")
    if _is_executable(LAYER_BINARY):
        return LAYER_BINARY
    found = pypi_binary() or _on_path(path)
    if found is None:
        raise ConfigError(
            "LAMBDA_DENO_BIN",
            None,
            f"Deno's executable, or one at {LAYER_BINARY} (attach the Deno layer), "
            "in the PyPI package deno, or on PATH",
        )
    return found


def pypi_binary() -> str | None:
    """Return the binary of the PyPI package ``deno``, None if it is not installed."""
    try:
        from deno import find_deno_bin
    except ImportError:
        return None
    try:
        return str(find_deno_bin())
    except FileNotFoundError:
        return None


def _on_path(path: str) -> str | None:
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder, "deno")
        if folder and _is_executable(candidate):
            return candidate
    return None


def _is_executable(path: str) -> bool:
    return os.access(path, os.X_OK) and _is_file(path)


def _is_file(path: str) -> bool:
    """Tell whether there is a file that we can see.

    A package whose folders are closed to Lambda's user is a mistake people make.
    """
    return os.path.isfile(path)


def find_handler(task_root: AnyPath, handler: str) -> Handler:
    """Return the file and export named by ``folder/file.export``.

    A file name may itself hold dots; the longest one that exists wins, and what follows
    it is the export, which may be nested (``file.api.get``).

    Raises:
        HandlerError: ``Runtime.MalformedHandlerName``: not of that form, or it leaves
            the task root; ``Runtime.ImportModuleError``: there is no such file.
    """
    folder, _, name = handler.rpartition("/")
    words = name.split(".")
    parts = handler.split("/")[:-1]
    if len(words) < 2 or not all(words) or not all(parts) or ".." in parts:
        raise HandlerError(
            "Runtime.MalformedHandlerName",
            f"Cannot use handler {handler!r}: expected file.export, "
            "such as function.handler or src/api.handler",
        )
    for count in range(len(words) - 1, 0, -1):
        file = os.path.join(folder, ".".join(words[:count]))
        stem = os.path.join(task_root, os.path.normpath(file))
        for suffix in HANDLER_SUFFIXES:
            path = stem + suffix
            if _is_file(path):
                return Handler(path, ".".join(words[count:]))
    wanted = "/".join([*parts, ".".join(words[:-1])])
    raise HandlerError(
        "Runtime.ImportModuleError",
        f"Cannot find the file of handler {handler!r}: none of "
        f"{', '.join(wanted + suffix for suffix in HANDLER_SUFFIXES)} "
        f"exists in {str(task_root)!r}",
    )


def _check_room_for_socket(settings: Settings, state_dir: str) -> None:
    """Refuse a folder in which the system takes no socket, before Deno says it."""
    path = f"{state_dir}/{'0' * PRIVATE_NAME_LENGTH}{SOCKET}"
    excess = len(os.fsencode(path)) - SOCKET_PATH_LIMIT_BYTES
    if excess > 0:
        room = len(os.fsencode(settings.temp_root)) - excess
        expected = f"a path of at most {room} bytes: the server's socket is in it"
        raise ConfigError("TMPDIR", settings.temp_root, expected)


def find_config(task_root: AnyPath) -> str | None:
    """Return the function's Deno configuration file, None if it has none."""
    for name in ("deno.json", "deno.jsonc"):
        path = os.path.join(task_root, name)
        if _is_file(path):
            return path
    return None


def entry_source(
    module: AnyPath,
    runtime_js: AnyPath = RUNTIME_JS,
    parts: Sequence[str] = RUNTIME_PARTS,
) -> str:
    """Return the entry module for a handler's file.

    The literal import is what makes it need no read permission, and what lets Deno's
    caches see it; its failure can still be caught (decision 0012).

    Args:
        module: The handler's file.
        runtime_js: Where ``runtime.js`` is; the others are beside it.
        parts: Which of ``RUNTIME_PARTS`` are needed, from the first on. Deno reads
            every file that is named, whether it is loaded or not.
    """
    folder = os.path.dirname(runtime_js)
    modules = [module, *(os.path.join(folder, part) for part in parts)]
    loads = [f"() => import({_js_string(file_url(path))})" for path in modules]
    return (
        f"import {{ start }} from {_js_string(file_url(runtime_js))};\n"
        f"start({', '.join(loads)});\n"
    )


def _parts(settings: Settings) -> Sequence[str]:
    """Return what a process of this function needs besides ``runtime.js``."""
    if settings.strategy is Strategy.SERVER:
        return RUNTIME_PARTS
    return RUNTIME_PARTS[:1] if settings.invocations != 1 else ()


def file_url(path: AnyPath) -> str:
    """Return a file's address as Deno spells it."""
    # urllib's quote would cost a cold start 2 ms for its import.
    absolute = os.path.abspath(os.fsdecode(path)).encode(errors="surrogateescape")
    return "file://" + "".join(
        chr(byte) if byte in URL_BYTES else f"%{byte:02X}" for byte in absolute
    )


def _js_string(text: str) -> str:
    return json.dumps(text)


def config_flags(task_root: AnyPath, config: AnyPath | None) -> list[str]:
    """Point Deno at the function's configuration: it would look beside the entry."""
    if config is not None:
        # The task root is not ours to write to; on Lambda it is read-only.
        locked = _is_file(os.path.join(task_root, "deno.lock"))
        lock = "--frozen" if locked else "--no-lock"
        return ["--config", str(config), lock]
    if os.path.isdir(os.path.join(task_root, "node_modules")):
        return ["--no-config", "--node-modules-dir=manual"]
    return ["--no-config"]


def runtime_api_spellings(runtime_api: str, local: Iterable[str] = ()) -> list[str]:
    """Return what to deny so that nobody reaches the Runtime API.

    Deno compares addresses, and those that a name resolves to, so one spelling of an
    address covers all of its others (127.1, decimal, IPv6-mapped); subnets it knows for
    IPv4 only. A server that listens on every address of this machine is reached by each
    of them, whatever address the platform names.

    Args:
        runtime_api: ``host:port``.
        local: This machine's own addresses.
    """
    host, _, port = runtime_api.rpartition(":")
    is_address = host.startswith("[") or not host.strip("0123456789.")
    if not is_address and host != "localhost":
        # What the name resolves to is not known here: no IPv4 address on that port.
        local = (*local, "0.0.0.0/0")
    hosts = [
        host, "127.0.0.1", "localhost", "127.0.0.0/8", "0.0.0.0", "[::1]", "[::]",
        *local,
    ]  # fmt: skip
    return [f"{name}:{port}" for name in dict.fromkeys(hosts)]


def local_addresses(listing: AnyPath = NETWORK) -> list[str]:
    """Return the addresses of this machine as the kernel lists them (proc(5)).

    Empty where it does not. Loopback is left out: it is known without asking.
    """
    found: list[str] = []
    with contextlib.suppress(OSError):
        # In each entry the address stands above "/32 host LOCAL".
        address = ""
        for line in _read(os.path.join(listing, "fib_trie"), "latin-1").splitlines():
            if "|-- " in line:
                address = line.rpartition(" ")[2]
            elif "/32 host LOCAL" in line and not address.startswith("127."):
                found.append(address)
    with contextlib.suppress(OSError):
        lines = _read(os.path.join(listing, "if_inet6"), "latin-1").splitlines()
        addresses = [line[:32] for line in lines]
        found += [f"[{_short_ipv6(a)}]" for a in addresses if int(a, 16) != 1]
    return list(dict.fromkeys(found))


def _short_ipv6(digits: str) -> str:
    """Return 32 hexadecimal digits as Deno writes an address, which is RFC 5952."""
    groups = [f"{int(digits[at : at + 4], 16):x}" for at in range(0, 32, 4)]
    for length in range(8, 1, -1):  # the first of the longest runs of zeros is left out
        for start in range(9 - length):
            if groups[start : start + length] == ["0"] * length:
                before, after = groups[:start], groups[start + length :]
                return f"{':'.join(before)}::{':'.join(after)}"
    return ":".join(groups)


def _sources(settings: Settings, config: str | None) -> str:
    given = {
        "LAMBDA_DENO_PERMISSIONS": settings.permissions.text,
        "LAMBDA_DENO_V8_FLAGS": " ".join(settings.v8_flags),
    }
    sources = [f"{name}={value!r}" for name, value in given.items() if value]
    if config is not None:
        sources.append(str(config))
    return " and ".join(sources) or "the runtime's defaults"


def permission_sets(config: AnyPath) -> dict[str, Any]:
    """Return the permission sets of a Deno configuration, none if it is unreadable."""
    permissions = config_content(config).get("permissions")
    return permissions if isinstance(permissions, dict) else {}


def config_content(config: AnyPath) -> dict[str, Any]:
    """Return a Deno configuration, empty if it is unreadable."""
    try:
        content = json.loads(_without_comments(_read(config, "utf-8")))
    except (ValueError, RecursionError):
        return {}  # Deno itself judges the syntax, and refuses to start
    return content if isinstance(content, dict) else {}


def _without_comments(text: str) -> str:
    """Turn JSON with comments and trailing commas into JSON."""
    token = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)
    without = token.sub(lambda m: m[0] if m[0].startswith('"') else "", text)
    # A comma may have stood in front of a comment.
    return token.sub(lambda m: m[0] if m[0].startswith('"') else "", without)


def _v8_flags(settings: Settings) -> list[str]:
    """Return V8's flags: those that were set, and two that fit the memory.

    JavaScript memory is to end as an error of V8's before the kernel ends the process;
    and what a process makes while it loads is not to be collected, as it ends before
    that would be of use.
    """
    flags = list(settings.v8_flags)
    # V8 takes a dash and an underscore for the same.
    names = [flag.split("=")[0].replace("_", "-") for flag in flags]
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


def _read(path: AnyPath, encoding: str) -> str:
    with open(path, encoding=encoding) as file:
        return file.read()


def _environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    kept = handed_on(settings, environ)
    kept["DENO_NO_UPDATE_CHECK"] = "1"
    kept["NO_COLOR"] = "1"  # nobody reads a log in colour
    # Deno would make a link named node in its cache and put it first on PATH.
    kept["DENO_DISABLE_NODE_SHIM"] = "1"
    return kept


def withheld_credentials(settings: Settings) -> set[str]:
    """Return which variables of fetched credentials a process does not get."""
    names = dict.fromkeys(FETCHED_CREDENTIALS, "")
    return names.keys() - handed_on(settings, names).keys()


def handed_on(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a process gets of these variables."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in WITHHELD and not name.startswith(WITHHELD_PREFIXES)
    }
    if settings.env_names is None:
        return kept
    exact = {*settings.env_names, *ESSENTIAL_VARIABLES}
    if CREDENTIALS_GROUP in exact:
        exact |= CREDENTIALS
    prefixes = tuple(name[:-1] for name in settings.env_names if name.endswith("*"))
    return {
        name: value
        for name, value in kept.items()
        if name in exact or (name.startswith(prefixes) and name not in CREDENTIALS)
    }


def _given_cache(settings: Settings) -> GivenCache | None:
    """Return the cache that was named, or that came with the function."""
    packaged = os.path.join(settings.task_root, PACKAGED_DENO_DIR)
    if settings.deno_dir is not None:
        path, is_packaged = os.path.join(settings.task_root, settings.deno_dir), False
    elif os.path.isdir(packaged):
        path, is_packaged = packaged, True
    else:
        return None
    is_closed = not _is_writable(path)
    return GivenCache(path, is_packaged, is_closed, settings.task_root)


def _is_writable(folder: str) -> bool:
    """Tell whether files can be made in a folder, which may not be there yet."""
    while not os.path.exists(folder) and folder != (parent := os.path.dirname(folder)):
        folder = parent
    return os.access(folder, os.W_OK)


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
        "socket": None,  # each process that listens has its own
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

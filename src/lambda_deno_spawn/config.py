"""Settings of the runtime, parsed once from an environment.

Knows every variable the supervisor reads, its unit, its default and its accepted
values. Does not know the process environment itself (a mapping is an argument) or the
file system. Platform variables: AWS Lambda Developer Guide, "Working with Lambda
environment variables"; ours: the docstrings of the choices and of ``Settings``, from
which the table of docs/configuration.md is generated.
"""

from __future__ import annotations

from lambda_deno_spawn.early import StrEnum
from lambda_deno_spawn.errors import ConfigError
from lambda_deno_spawn.limits import PORT_LIMIT
from lambda_deno_spawn.permissions import Permissions
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    E = TypeVar("E", bound=StrEnum)

STOP_MARGIN_S = 0.2  # stop the worker this long before the deadline; decision 0004
# At exit: a part of the 150 ms or more that Lambda leaves the runtime; decision 0024.
CLOSE_GRACE_S = 0.1
# Enough to reach a collector of telemetry in another region; decision 0036.
LAST_WORDS_S = 2.0
SNAP_START = "snap-start"
# Environments that AWS freezes between invocations. All others (AWS's emulator, Managed
# Instances, a test) keep running and have their next event at once.
FREEZING_INITIALIZATION_TYPES = frozenset(
    {"on-demand", "provisioned-concurrency", SNAP_START}
)
OUR_PREFIX = "LAMBDA_DENO_"
KNOWN_VARIABLES = frozenset(
    OUR_PREFIX + name
    for name in (
        "BIN", "CLOSE_GRACE_MS", "ENV", "LAST_WORDS_MS", "MAX_INVOCATIONS", "METRICS",
        "PERMISSIONS", "RECORD", "RESPONSE_MODE", "SECRETS", "SIGTERM", "START",
        "STOP_MARGIN_MS", "STRATEGY", "V8_FLAGS", "WARM", "WARM_MAX_AGE_S",
    )
)  # fmt: skip

SECRET_STORES = ("ssm", "secretsmanager")
# No secret may stand in for what the platform or the runtime itself sets.
WITHHELD_FROM_SECRETS = ("_", "AWS_", "LAMBDA_")
# In LAMBDA_DENO_ENV it means every variable that holds or leads to AWS credentials.
CREDENTIALS_GROUP = "@credentials"
_ENV_NAME = r"[^*=@]+\*?|\*"
_CREDENTIALS_URI = (
    r"http://(?P<host>\[[0-9a-fA-F:]+\]|[^/?#@:\[\]\s]+):(?P<port>[0-9]{1,5})/[^#\s]*"
)


class Warm(StrEnum):
    """When the process for the next event is started.

    Attributes:
        READY: After the response; the next event is requested once the module is
            loaded.
        BACKGROUND: After the response, without waiting for it.
        OFF: When the event arrives.
    """

    READY = "ready"
    BACKGROUND = "background"
    OFF = "off"


class Start(StrEnum):
    """How the process for an event begins.

    Attributes:
        AUTO: As a copy of a process that has loaded the handler's module, where that is
            known to be safe; else as a ``deno run``.
        FORK: As a copy; init fails if that is not possible.
        EXEC: As a ``deno run``, which loads the module for each event.
    """

    AUTO = "auto"
    FORK = "fork"
    EXEC = "exec"


class Strategy(StrEnum):
    """How an invocation reaches the handler.

    Attributes:
        FRESH: Each event has a process of its own.
        SERVER: All events go to one long-lived process.
    """

    FRESH = "fresh"
    SERVER = "server"


class ResponseMode(StrEnum):
    """How a ``Response`` is sent; for other results their type decides.

    Attributes:
        BUFFERED: As one response, when its body has ended.
        STREAM: Piece by piece.
    """

    BUFFERED = "buffered"
    STREAM = "stream"


class Metrics(StrEnum):
    """Whether each invocation writes a line of its metrics to the log.

    Attributes:
        OFF: No line.
        JSON: A JSON record.
        EMF: CloudWatch's embedded metric format, which becomes metrics.
    """

    OFF = "off"
    JSON = "json"
    EMF = "emf"


class Record(StrEnum):
    """Which invocations are written to the log as recordings.

    Attributes:
        OFF: None.
        FAILURES: Those that fail.
        ALL: Every one.
    """

    OFF = "off"
    FAILURES = "failures"
    ALL = "all"


class Sigterm(StrEnum):
    """Whether Lambda is asked to send SIGTERM before it ends the environment.

    Attributes:
        OFF: Lambda sends it only if the function has an extension.
        ON: The runtime registers as an extension, so Lambda sends it.
    """

    OFF = "off"
    ON = "on"


class LogFormat(StrEnum):
    """How a log record is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Application log levels of the platform, least severe first."""

    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
    FATAL = "FATAL"


class SecretReference(NamedTuple):
    """A variable whose value is kept in AWS.

    Attributes:
        variable: Name of the variable.
        store: ``ssm`` or ``secretsmanager``.
        name: Name or ARN of the parameter or secret.
        key: Member of a JSON object in it; empty: all of it.
    """

    variable: str
    store: str
    name: str
    key: str = ""

    @property
    def text(self) -> str:
        """The reference as it is in ``LAMBDA_DENO_SECRETS``."""
        return f"{self.store}:{self.name}" + (f"#{self.key}" if self.key else "")


class Settings(NamedTuple):
    """The supervisor's settings, as its environment gives them.

    Attributes:
        runtime_api: ``host:port`` of the Runtime API.
        handler: ``file.export`` as configured.
        task_root: Folder of the function; also the working directory of its processes.
        memory_mb: Memory size of the function, None outside Lambda.
        strategy: How events reach the handler.
        max_invocations: How many events a process serves before it is replaced. A
            failed event always replaces it (with ``server``, only a failure that leaves
            the process in an unknown state). None: not set.
        concurrency: How many invocations may run at once.
        is_managed_instance: The environment is a Lambda Managed Instance, which is
            never frozen and never restarted.
        start: How the process for an event begins.
        warm: When the process for the next event is started.
        warm_max_age_s: A waiting process older than this is replaced. None: no limit.
        stop_margin_s: How long before the deadline a handler is stopped and its error
            reported; at most a fifth of the timeout.
        response_mode: How a ``Response`` is sent.
        permissions: What the handler may do.
        env_names: The variables that the process gets. ``*`` at the end of a name
            matches any rest, but no credentials. None: all variables but the runtime's
            own.
        secrets: Variables whose values are fetched from AWS before the first process
            starts.
        v8_flags: Flags for V8, each with its dashes.
        deno_bin: The Deno executable. None: it is searched for.
        deno_dir: A cache to start from; leave it unset on Lambda. None: the package's.
        temp_root: Where private folders are made.
        log_format: Text or JSON lines.
        log_level: Least level written in JSON format.
        metrics: Whether one log line per invocation has its metrics.
        record: Which invocations are written to the log as recordings without secrets,
            to be run again elsewhere.
        sigterm: Whether Lambda sends a signal before it ends the environment.
        close_grace_s: How long a process may take to shut down cleanly when the
            environment ends. Applies only to processes that have served an event.
        last_words_s: How long a program that listens for its end may take for it, after
            the response; 0: it is ended at once.
        is_snap_start: A snapshot is taken after init, and restored before each first
            invocation.
        credentials_uri: URL of credentials for processes that may not fetch them; None:
            they may, or have theirs in the environment.
        credentials_token: Value of the ``Authorization`` header there.
        telemetry_fd: Descriptor for framed log records; None: the log is stderr.
        unknown: Variables with our prefix that have no meaning, most likely mistyped.
    """

    runtime_api: str
    handler: str
    task_root: str
    function_name: str = ""
    function_version: str = ""
    memory_mb: int | None = None
    log_group_name: str = ""
    log_stream_name: str = ""
    strategy: Strategy = Strategy.FRESH
    max_invocations: int | None = None
    concurrency: int = 1
    is_managed_instance: bool = False
    start: Start = Start.AUTO
    warm: Warm = Warm.BACKGROUND
    warm_max_age_s: float | None = None
    stop_margin_s: float = STOP_MARGIN_S
    response_mode: ResponseMode = ResponseMode.BUFFERED
    permissions: Permissions = Permissions()
    env_names: tuple[str, ...] | None = None
    secrets: tuple[SecretReference, ...] = ()
    v8_flags: tuple[str, ...] = ()
    deno_bin: str | None = None
    deno_dir: str | None = None
    temp_root: str = "/tmp"
    log_format: LogFormat = LogFormat.TEXT
    log_level: LogLevel = LogLevel.INFO
    metrics: Metrics = Metrics.OFF
    record: Record = Record.OFF
    sigterm: Sigterm = Sigterm.OFF
    close_grace_s: float = CLOSE_GRACE_S
    last_words_s: float = LAST_WORDS_S
    is_snap_start: bool = False
    credentials_uri: str | None = None
    credentials_token: str = ""
    telemetry_fd: int | None = None
    unknown: tuple[str, ...] = ()

    @property
    def invocations(self) -> int:
        """How many invocations a process serves; 0: no limit."""
        default = 1 if self.strategy is Strategy.FRESH else 0
        return self.max_invocations or default

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], cwd: str) -> Settings:
        """Parse and check an environment.

        Args:
            environ: Variables as Lambda sets them.
            cwd: Working directory, the task root where no variable names one.

        Raises:
            ConfigError: A variable is missing or has a value that cannot be used.
        """
        initialization_type = environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "")
        concurrency = _count(environ, "AWS_LAMBDA_MAX_CONCURRENCY")
        freezes = initialization_type in FREEZING_INITIALIZATION_TYPES
        runtime_api = _required(environ, "AWS_LAMBDA_RUNTIME_API", "host:port")
        is_snap_start = initialization_type == SNAP_START
        names = environ.get("LAMBDA_DENO_ENV")
        max_age_s = environ.get("LAMBDA_DENO_WARM_MAX_AGE_S") or None
        return cls(
            runtime_api=runtime_api,
            handler=_required(environ, "_HANDLER", "file.export"),
            task_root=_absolute(environ.get("LAMBDA_TASK_ROOT") or cwd, cwd),
            function_name=environ.get("AWS_LAMBDA_FUNCTION_NAME", ""),
            function_version=environ.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
            memory_mb=_count(
                environ,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                "a whole number of megabytes",
            ),
            log_group_name=environ.get("AWS_LAMBDA_LOG_GROUP_NAME", ""),
            log_stream_name=environ.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
            strategy=_choice(environ, "LAMBDA_DENO_STRATEGY", Strategy.FRESH),
            start=_choice(environ, "LAMBDA_DENO_START", Start.AUTO),
            max_invocations=_count(environ, "LAMBDA_DENO_MAX_INVOCATIONS"),
            concurrency=concurrency or 1,
            is_managed_instance=concurrency is not None,
            warm=_choice(
                environ, "LAMBDA_DENO_WARM", Warm.READY if freezes else Warm.BACKGROUND
            ),
            warm_max_age_s=(
                None
                if max_age_s is None
                else _number("LAMBDA_DENO_WARM_MAX_AGE_S", max_age_s, "seconds")
            ),
            stop_margin_s=_milliseconds(
                environ, "LAMBDA_DENO_STOP_MARGIN_MS", STOP_MARGIN_S
            ),
            response_mode=_choice(
                environ, "LAMBDA_DENO_RESPONSE_MODE", ResponseMode.BUFFERED
            ),
            permissions=Permissions.parse(environ.get("LAMBDA_DENO_PERMISSIONS", "")),
            env_names=None if names is None else _env_names(names),
            secrets=_secrets(
                environ.get("LAMBDA_DENO_SECRETS", ""), is_snap_start=is_snap_start
            ),
            v8_flags=_v8_flags(environ.get("LAMBDA_DENO_V8_FLAGS", "")),
            deno_bin=environ.get("LAMBDA_DENO_BIN") or None,
            deno_dir=environ.get("DENO_DIR") or None,
            temp_root=environ.get("TMPDIR") or "/tmp",
            # There, the lines of several invocations are interleaved.
            log_format=_choice(environ, "AWS_LAMBDA_LOG_FORMAT", LogFormat.TEXT)
            if concurrency is None
            else LogFormat.JSON,
            log_level=_choice(environ, "AWS_LAMBDA_LOG_LEVEL", LogLevel.INFO),
            metrics=_choice(environ, "LAMBDA_DENO_METRICS", Metrics.OFF),
            record=_choice(environ, "LAMBDA_DENO_RECORD", Record.OFF),
            sigterm=_choice(environ, "LAMBDA_DENO_SIGTERM", Sigterm.OFF),
            close_grace_s=_milliseconds(
                environ, "LAMBDA_DENO_CLOSE_GRACE_MS", CLOSE_GRACE_S
            ),
            last_words_s=_milliseconds(
                environ, "LAMBDA_DENO_LAST_WORDS_MS", LAST_WORDS_S
            ),
            is_snap_start=is_snap_start,
            credentials_uri=_credentials_uri(
                environ, runtime_api, is_snap_start=is_snap_start
            ),
            credentials_token=environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", ""),
            telemetry_fd=_telemetry_fd(environ),
            unknown=tuple(
                sorted(
                    name
                    for name in environ
                    if name.startswith(OUR_PREFIX) and name not in KNOWN_VARIABLES
                )
            ),
        )


def _count(
    environ: Mapping[str, str],
    variable: str,
    expected: str = "a whole number, one or more",
) -> int | None:
    value = environ.get(variable)
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ConfigError(variable, value, expected)
    return int(value)


def _absolute(path: str, cwd: str) -> str:
    return path if path.startswith("/") else f"{cwd}/{path}"


def _required(environ: Mapping[str, str], variable: str, expected: str) -> str:
    value = environ.get(variable)
    if not value:
        raise ConfigError(variable, value, expected)
    return value


def _choice(environ: Mapping[str, str], variable: str, default: E) -> E:
    """Read one of a few words, in any letter case, which AWS itself varies."""
    value = environ.get(variable, "")
    if not value:
        return default
    for member in type(default):
        if member.value.lower() == value.lower():
            return member
    raise ConfigError(variable, value, " or ".join(type(default)))


def _number(variable: str, value: str, unit: str) -> float:
    expected = f"a number of {unit}, zero or more"
    try:
        number = float(value)
    except ValueError:
        raise ConfigError(variable, value, expected) from None
    if not 0 <= number < float("inf"):
        raise ConfigError(variable, value, expected)
    return number


def _milliseconds(environ: Mapping[str, str], variable: str, default_s: float) -> float:
    """Return a length of time in seconds."""
    value = environ.get(variable)
    if not value:
        return default_s
    return _number(variable, value, "milliseconds") / 1000


def _credentials_uri(
    environ: Mapping[str, str], runtime_api: str, *, is_snap_start: bool
) -> str | None:
    """Return the URL of credentials that a process cannot fetch for itself.

    Under SnapStart they are behind the Runtime API's address, which is denied to every
    process. Processes can fetch from any other address on their own.
    """
    uri = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    # SDKs prefer keys in the environment.
    if not uri or environ.get("AWS_ACCESS_KEY_ID"):
        return None
    import re  # 2 ms that most cold starts need not pay

    found = re.fullmatch(_CREDENTIALS_URI, uri)
    if found is None:
        return None
    host, port = found["host"], found["port"]
    if int(port) > PORT_LIMIT:
        return None
    api_host, _, api_port = runtime_api.rpartition(":")
    is_local = host in (api_host, "localhost", "[::1]") or host.startswith("127.")
    is_denied = is_local and port == api_port
    return uri if is_snap_start or is_denied else None


def _telemetry_fd(environ: Mapping[str, str]) -> int | None:
    """Read a variable that the platform sets; a malformed value is ignored."""
    value = environ.get("_LAMBDA_TELEMETRY_LOG_FD", "")
    # On Managed Instances it must not be used, and this other variable is set.
    if "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET" in environ:
        return None
    return int(value) if value.isascii() and value.isdigit() else None


def _env_names(value: str) -> tuple[str, ...]:
    import re

    names = tuple(value.replace(",", " ").split())
    for name in names:
        if name != CREDENTIALS_GROUP and not re.fullmatch(_ENV_NAME, name):
            expected = (
                "names of variables separated by spaces or commas, with * only as the "
                f"last character, or {CREDENTIALS_GROUP}; not {name!r}"
            )
            raise ConfigError("LAMBDA_DENO_ENV", value, expected)
    return names


def _secrets(value: str, *, is_snap_start: bool) -> tuple[SecretReference, ...]:
    references: dict[str, SecretReference] = {}
    for item in value.split():
        variable, _, text = item.partition("=")
        store, _, place = text.partition(":")
        name, mark, key = place.partition("#")
        is_name = variable.isascii() and variable.isidentifier()
        # Anything else may be a secret by mistake: no message quotes it.
        shown = f"{variable}=…" if is_name and text else "…"
        if (
            not is_name
            or variable.startswith(WITHHELD_FROM_SECRETS)
            or store not in SECRET_STORES
            or not name
            or bool(mark) != bool(key)
        ):
            expected = (
                "NAME=ssm:PARAMETER or NAME=secretsmanager:SECRET for each variable, "
                "separated by spaces, with #KEY at the end for a member of a JSON "
                "object"
            )
            raise ConfigError("LAMBDA_DENO_SECRETS", shown, expected)
        if variable in references:
            raise ConfigError(
                "LAMBDA_DENO_SECRETS", shown, "each variable at most once"
            )
        references[variable] = SecretReference(variable, store, name, key)
    if references and is_snap_start:
        expected = (
            "nothing under SnapStart: the snapshot would contain the secrets; fetch "
            "them in the handler"
        )
        raise ConfigError("LAMBDA_DENO_SECRETS", f"{variable}=…", expected)
    return tuple(references.values())


def _v8_flags(value: str) -> tuple[str, ...]:
    flags = tuple(value.replace(",", " ").split())
    if all(flag.startswith("--") for flag in flags):
        return flags
    raise ConfigError(
        "LAMBDA_DENO_V8_FLAGS", value, "V8 flags such as --max-old-space-size=256"
    )

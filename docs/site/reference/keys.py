"""The tables of lambda.toml: each key, and what the reader of the file accepts.

The reader is asked: a file with a value that no key accepts makes it say what it
expects, and a file with an unknown key makes it list the keys. Defaults and effects are
described here.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from docs.site.reference.markdown import ReferenceGapError, code, complete, table

from lambda_deno_spawn.dev.project.project import PROJECT_FILE, load_project
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

WRONG = "1979-05-27"  # a date, which no key accepts
UNKNOWN = "zzz"
ONE_OF = re.compile(r"^one of (.*)$")
# What a table has to have before the reader looks at its other keys.
REQUIRED = {
    "vpc": 'subnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]',
    "file_system": "arn = 'arn:aws:elasticfilesystem:eu-central-1:123456789012:"
    "access-point/fsap-0123456789abcdef0'\npath = '/mnt/x'",
    "durable": "timeout = 60",
    "managed_instances": "capacity_provider = 'arn:aws:lambda:eu-central-1:"
    "123456789012:capacity-provider:x'",
    "url.cors": 'origins = ["*"]',
}
TABLES = (
    "vpc",
    "file_system",
    "logs",
    "url",
    "url.cors",
    "durable",
    "managed_instances",
    "image",
)
EVENTS = "events"
LISTED = "[table](#tables-for-aws)"


class Key(NamedTuple):
    """A key of the file.

    Attributes:
        sets: What it has an effect on.
        default: What holds without it.
        note: Added to what the reader says that it accepts.
        shown: Replaces what the reader says; for tables.
    """

    sets: str
    default: str = "none"
    note: str = ""
    shown: str = ""


KEYS = {
    "name": Key(
        "`FunctionName`",
        "the folder's name, with `-` for characters that Lambda does not accept; if "
        "it has no letter that Lambda accepts, or more than 64 characters, it ends "
        "with a digest",
    ),
    "handler": Key(
        "`Handler`, `_HANDLER`",
        "the export `handler` of the first file that exists: `function`, `index`, "
        "`main`, `mod` or `handler`; else of the only source file",
        "relative to the folder",
    ),
    "arch": Key(
        "`Architectures`; also chooses the layers and the target of a package's cache",
        "`x86_64`",
    ),
    "runtime": Key("`Runtime`", "`python3.13`"),
    "memory": Key("`MemorySize`", "the command's"),
    "timeout": Key("`Timeout`", "the command's"),
    "storage": Key("`EphemeralStorage`: the size of `/tmp`", "Lambda's 512"),
    "strategy": Key("variable `LAMBDA_DENO_STRATEGY`", "the runtime's `fresh`"),
    "start": Key("variable `LAMBDA_DENO_START`", "the runtime's `auto`"),
    "permissions": Key(
        "variable `LAMBDA_DENO_PERMISSIONS`",
        "the runtime's `default`",
        "see [permissions](configuration.md#permissions)",
    ),
    "response_mode": Key(
        "variable `LAMBDA_DENO_RESPONSE_MODE`", "the runtime's `buffered`"
    ),
    "description": Key("`Description`"),
    "role": Key("`Role`", "a new role"),
    "layers": Key("`Layers`", "the runtime's own", "up to five"),
    "bundle": Key(
        "the package: the handler and everything it imports as one module, or the "
        "files unchanged",
        "[what can be bundled](build.md#what-is-bundled)",
    ),
    "include": Key("further files to package", note="see [patterns](#patterns)"),
    "exclude": Key("files to leave out of the package", note="as above"),
    "tenancy": Key(
        "`TenancyConfig`: execution environments that no two tenants share; only when "
        "the function is created"
    ),
    "snapstart": Key("`SnapStart`, for published versions", "Lambda's `false`"),
    "tracing": Key("`TracingConfig`", "Lambda's `pass-through`"),
    "kms_key": Key("`KMSKeyArn`, for the environment variables", "AWS's own key"),
    "dead_letter": Key(
        "`DeadLetterConfig`: the target of asynchronous events that failed permanently"
    ),
    "reserved_concurrency": Key("PutFunctionConcurrency", note="0 stops the function"),
    "provisioned_concurrency": Key(
        "PutProvisionedConcurrencyConfig, for the alias", note="needs `alias`"
    ),
    "alias": Key("the alias that each deployment points to a new version"),
    "bucket": Key(
        "where packages are uploaded", "none, or `deploy`'s own for large packages"
    ),
    "vpc": Key("`VpcConfig`", shown=LISTED),
    "file_system": Key("`FileSystemConfigs`", shown=LISTED),
    "logs": Key(
        "`LoggingConfig`, PutRetentionPolicy", "text, kept for 30 days", shown=LISTED
    ),
    "url": Key("the function URL and its CORS", "no URL", shown=LISTED),
    "durable": Key("`DurableConfig`; only when the function is created", shown=LISTED),
    "managed_instances": Key(
        "`CapacityProviderConfig`; only when the function is created", shown=LISTED
    ),
    "image": Key(
        "`PackageType`, `ImageUri`, `ImageConfig`: a [container image]"
        "(container.md#deploy); only when the function is created",
        "a zip",
        shown=LISTED,
    ),
    "events": Key(
        "CreateEventSourceMapping; EventBridge's PutRule and PutTargets",
        shown="[tables](#event-sources)",
    ),
    "env": Key(
        "`Environment`",
        shown="lines `NAME = value`: text, a number, `true` or `false`, or a "
        "[reference to a secret](secrets.md)",
    ),
    "tags": Key("`Tags`", shown="lines `NAME = value`, as above"),
}
IN_TABLES = {
    "vpc.subnets": Key("`VpcConfig`", "needed"),
    "vpc.security_groups": Key("`VpcConfig`", "needed"),
    "vpc.ipv6": Key("`Ipv6AllowedForDualStack`", "`false`"),
    "file_system.arn": Key("`FileSystemConfigs`", "needed, and so is `[vpc]`"),
    "file_system.path": Key("`FileSystemConfigs`", "needed"),
    "logs.format": Key(
        "`LogFormat`, which the runtime's own log follows too",
        "`json` if a level is set, else `text`",
    ),
    "logs.level": Key("`ApplicationLogLevel`", "Lambda's `INFO`"),
    "logs.system_level": Key("`SystemLogLevel`", "Lambda's `INFO`"),
    "logs.group": Key(
        "`LogGroup`, which `deploy` creates if it is missing", "`/aws/lambda/NAME`"
    ),
    "logs.retention": Key("PutRetentionPolicy, in days", "`30`"),
    "url.enabled": Key(
        "whether there is a function URL", "`true` if there is a table `[url]`"
    ),
    "url.auth": Key("`AuthType`; with `NONE`, anyone may call the URL", "`AWS_IAM`"),
    "url.cors.origins": Key("`AllowOrigins`", "needed in `[url.cors]`"),
    "url.cors.methods": Key("`AllowMethods`"),
    "url.cors.headers": Key("`AllowHeaders`"),
    "url.cors.expose": Key("`ExposeHeaders`"),
    "url.cors.credentials": Key("`AllowCredentials`", "`false`"),
    "url.cors.max_age": Key("`MaxAge`"),
    "durable.timeout": Key("`ExecutionTimeout`, of a whole execution", "needed"),
    "durable.retention": Key("`RetentionPeriodInDays`", "Lambda's 14"),
    "durable.kms_key": Key("`KMSKeyArn` in `DurableConfig`", "AWS's own key"),
    "managed_instances.capacity_provider": Key("`CapacityProviderArn`", "needed"),
    "managed_instances.concurrency": Key(
        "`PerExecutionEnvironmentMaxConcurrency`", "Lambda's"
    ),
    "managed_instances.memory_per_vcpu": Key(
        "`ExecutionEnvironmentMemoryGiBPerVCpu`", "Lambda's"
    ),
    "image.enabled": Key(
        "whether the function is a [container image](container.md#deploy)",
        "`true` if there is a table `[image]`",
    ),
    "image.repository": Key(
        "where the image is pushed", "the function's name, in lowercase"
    ),
    "image.base": Key(
        "the base image",
        "AWS's image for the runtime",
        "a folder may be relative to the file",
    ),
    "image.command": Key("`Command`", "that of the image"),
    "image.entry_point": Key("`EntryPoint`", "that of the image"),
    "image.working_directory": Key("`WorkingDirectory`", "that of the image"),
}
IN_EVENTS = {
    "events.source": Key("what Lambda reads events from", "either this or `schedule`"),
    "events.batch_size": Key(
        "maximum number of events in one invocation",
        "Lambda's 10 for queues, 100 for streams",
        "above 10, a queue needs `batch_window`; a FIFO queue allows at most 10",
    ),
    "events.batch_window": Key("how long to wait for more events", "`0`"),
    "events.report_failures": Key(
        "whether the handler returns `batchItemFailures`, so that only failed messages "
        "are delivered again",
        "`false`",
    ),
    "events.max_concurrency": Key(
        "maximum number of concurrent invocations for a queue", "no limit"
    ),
    "events.start": Key("where reading a stream begins", "`latest`"),
    "events.filters": Key(
        "which events the function receives: [filter patterns](https://docs.aws.amazon.com/lambda/"
        "latest/dg/invocation-eventfiltering.html)"
    ),
    "events.schedule": Key("when a schedule sends its event, in UTC"),
    "events.input": Key("the event of a schedule", "EventBridge's own event"),
    "events.enabled": Key(
        "`false` keeps a source or schedule, but disables it", "`true`"
    ),
}


class Reader:
    """The reader of a project file, in a folder with a function."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / PROJECT_FILE
        (folder / "function.ts").touch()

    def message(self, text: str) -> str:
        """Return what the reader says about a file that it cannot use."""
        self._file.write_text(text, encoding="utf-8")
        try:
            load_project(self._file.parent)
        except UsageError as error:
            return str(error)
        raise ReferenceGapError(f"the reader accepts {text!r}")

    def keys(self, place: str = "") -> list[str]:
        """Return the keys of the file, or of a table in it."""
        said = self.message(file_with(place, UNKNOWN, "1"))
        if not place:
            return said.rpartition("he keys are ")[2].split(", ")
        found = re.search(r" has ([\w, ]+)$", said)
        if found is None:
            raise ReferenceGapError(f"the reader does not list the keys: {said}")
        return [f"{place}.{key}" for key in found[1].split(", ")]

    def accepted(self, key: str) -> str:
        """Return what the reader expects of a key."""
        place, _, name = key.rpartition(".")
        _, _, expected = self.message(file_with(place, name, WRONG)).partition(
            "; expected "
        )
        if not expected:
            raise ReferenceGapError(f"the reader does not say what {key} may be")
        return worded(expected)


def file_with(place: str, key: str, value: str) -> str:
    """Return a file with a key, and what its table needs besides."""
    if not place:
        return f"{key} = {value}"
    header = f"[[{place}]]" if place == EVENTS else f"[{place}]"
    required = [
        line
        for line in REQUIRED.get(place, "").splitlines()
        if not line.startswith(f"{key} =")
    ]
    return "\n".join([header, *required, f"{key} = {value}"])


def worded(expected: str) -> str:
    """Return what a message expects, with values as code."""
    expected = expected.replace("true or false", "one of true, false")
    listed = ONE_OF.match(expected)
    if listed is not None:
        return ", ".join(map(code, listed[1].split(", ")))
    return expected.replace("*", r"\*")


def keys_tables() -> dict[str, str]:
    """Return the three tables of docs/project.md.

    Raises:
        ReferenceGapError: A key is not described.
    """
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))
        complete("key", reader.keys(), KEYS)
        nested = [
            key
            for place in TABLES
            for key in reader.keys(place)
            if key not in TABLES  # [url.cors]
        ]
        complete("key", nested, IN_TABLES)
        complete("key", reader.keys(EVENTS), IN_EVENTS)
        return {
            "keys": rows("Sets", KEYS.items(), reader),
            "keys in tables": rows("Sets", IN_TABLES.items(), reader),
            "keys of events": rows("Meaning", IN_EVENTS.items(), reader),
        }


def rows(column: str, keys: Iterable[tuple[str, Key]], reader: Reader) -> str:
    """Return a table of keys."""
    return table(
        ["Key", "Value", "Default", column],
        (
            [
                code(spelled(name)),
                key.shown or "; ".join(filter(None, [reader.accepted(name), key.note])),
                key.default,
                key.sets,
            ]
            for name, key in keys
        ),
    )


def spelled(name: str) -> str:
    """Return a key as a file has it: tables in brackets."""
    if name == EVENTS:
        return f"[[{name}]]"
    return f"[{name}]" if name in {*TABLES, "env", "tags"} else name

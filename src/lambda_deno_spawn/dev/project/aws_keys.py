"""The keys of a project file that concern AWS alone, and which of them exclude others.

Knows the keys, the values that they accept, and the combinations that AWS refuses. Does
not know how a function is created. Values are kept by the dotted name of their key,
such as ``vpc.subnets``, because that name is also what messages and the function's tag
call them. Specification: docs/project.md; AWS Lambda API reference, CreateFunction; the
pages of the Lambda Developer Guide on each feature, "Limitations".
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lambda_deno_spawn.dev.project.quotas import OS_ONLY, STORAGE_MIN_MB
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Key, value and what is expected; returns the error.
    Refuse = Callable[[str, object, str], UsageError]

PER_TENANT = "per-tenant"
LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
SYSTEM_LOG_LEVELS = ("DEBUG", "INFO", "WARN")
URL_AUTHS = ("AWS_IAM", "NONE")
METHODS = ("GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*")
# CloudWatch Logs API reference, PutRetentionPolicy.
RETENTIONS_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192,
    2557, 2922, 3288, 3653,
)  # fmt: skip
ALIAS_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9_-]{1,128}")
BUCKET_NAME = re.compile(
    r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
)
# Not an alias: Lambda describes a function with the key, which would always differ.
KMS_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+")
DEAD_LETTER = re.compile(r"arn:aws[a-z-]*:(sqs|sns):[a-z0-9-]+:\d{12}:[\w.-]+")
SUBNET = re.compile(r"subnet-[0-9a-z]+")
SECURITY_GROUP = re.compile(r"sg-[0-9a-zA-Z]+")
LOG_GROUP = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}")
CAPACITY_PROVIDER = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:capacity-provider:[\w-]+"
)
ACCESS_POINT = re.compile(
    r"arn:aws[a-z-]*:elasticfilesystem:[a-z0-9-]+:\d{12}:access-point/"
    r"fsap-[a-f0-9]{17}"
)
MOUNT_PATH = re.compile(r"/mnt/[\w.-]{1,155}")
SOURCE = re.compile(
    r"arn:aws[a-z-]*:(sqs:[a-z0-9-]+:\d{12}:[\w.-]+"
    r"|kinesis:[a-z0-9-]+:\d{12}:stream/[\w.-]+"
    r"|dynamodb:[a-z0-9-]+:\d{12}:table/[\w.-]+/stream/[\w:.-]+)"
)
SCHEDULE = re.compile(
    r"rate\((1 (minute|hour|day)|[1-9]\d* (minutes|hours|days))\)|cron\(.+\)"
)
FIFO_BATCH = 10  # also the most of a queue without a batch window
BATCH_LIMIT = 10_000
BATCH_WINDOW_S = 300
ORIGIN = re.compile(r"\*|https?://\S{1,245}")
HEADER = re.compile(r"\*|[!#$%&'*+.^_`|~0-9A-Za-z-]{1,1024}")
SUBNETS_LIMIT = 16
SECURITY_GROUPS_LIMIT = 5
CORS_LIMIT = 100
CORS_MAX_AGE_S = 86_400
DURABLE_LIMIT_S = 31_622_400  # 366 days
DURABLE_RETENTION_DAYS = 90
MANAGED_CONCURRENCY = 1600
MANAGED_MEMORY_PER_VCPU_GIB = (2, 8)
MANAGED_MEMORY_MIN_MB = 2048
MANAGED_MEMORY_MAX_MB = 32_768
MANAGED_TIMEOUT_LIMIT_S = 5400
# Amazon ECR API reference, CreateRepository; before it a registry of AWS's, or nothing.
REPOSITORY_NAME = (
    r"(?=.{2,256}$)(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*"
)
REPOSITORY = re.compile(rf"(?:\d{{12}}\.dkr[.-]ecr[a-z0-9.-]+/)?{REPOSITORY_NAME}")
# Lambda API reference, ImageConfig.
IMAGE_WORD = re.compile(r"(?s).{1,4096}")
IMAGE_WORDS_LIMIT = 1500
CONCURRENCY_LIMIT = 1_000_000  # the account's quota is lower, and can be raised
# Durable functions and Managed Instances need one of these, or for the latter OS_ONLY.
PYTHON_SINCE_3_13 = ("python3.13", "python3.14")
# All keys and tables that read_aws_keys reads.
TOP_KEYS = (
    "tenancy", "snapstart", "tracing", "kms_key", "dead_letter",
    "reserved_concurrency", "provisioned_concurrency", "alias", "bucket", "vpc", "logs",
    "url", "durable", "managed_instances", "file_system", "events", "image",
)  # fmt: skip
# Settings that AWS accepts only when it creates a function.
CREATION_ONLY = ("tenancy", "durable", "managed_instances")


@dataclass(frozen=True, slots=True)
class EventSource:
    """A table ``[[events]]``: a queue or a stream, or else a schedule.

    Attributes:
        source: ARN of the queue or stream.
        start: Where a stream is read first, in the form of Lambda's API.
        schedule: Expression of EventBridge.
        input: JSON that is the event of a schedule; None: EventBridge's own.
        report_failures: The handler returns the messages that failed.
        filters: JSON patterns of the events to get; empty: all.
    """

    source: str | None = None
    start: str | None = None
    schedule: str | None = None
    input: str | None = None
    enabled: bool = True
    batch_size: int | None = None
    batch_window: int | None = None
    report_failures: bool = False
    max_concurrency: int | None = None
    filters: tuple[str, ...] = ()


class _Reader:
    """A table of keys, which checks the values that it returns."""

    def __init__(
        self, content: Mapping[str, object], refuse: Refuse, name: str | None = None
    ) -> None:
        self._content = content
        self._refuse = refuse
        self._name = name
        self._known: set[str] = set()
        self._sections: list[_Reader] = []

    def section(self, key: str) -> _Reader:
        content = self._take(key)
        if content is not None and not isinstance(content, dict):
            expected = f"a table: [{self._dotted(key)}] and lines KEY = value"
            raise self._refuse(self._dotted(key), content, expected)
        section = _Reader(content or {}, self._refuse, self._dotted(key))
        self._sections.append(section)
        return section

    def require(self, *keys: str) -> None:
        """Reject a table that has some, but not all of its required keys."""
        missing = [key for key in keys if key not in self._content]
        if self._content and missing:
            expected = f"{' and '.join(keys)} in [{self._name}]"
            raise self._refuse(self._dotted(missing[0]), None, expected)

    def text(self, key: str, pattern: re.Pattern[str], expected: str) -> str | None:
        value = self._take(key)
        if value is None or (isinstance(value, str) and pattern.fullmatch(value)):
            return value
        raise self._refuse(self._dotted(key), value, expected)

    def some(
        self, key: str, pattern: re.Pattern[str], expected: str, limit: int
    ) -> tuple[str, ...] | None:
        """Return a list that is not empty; None if it is not set."""
        value = self._take(key)
        if value is None:
            return None
        if (
            isinstance(value, list)
            and 1 <= len(value) <= limit
            and all(isinstance(item, str) and pattern.fullmatch(item) for item in value)
        ):
            return tuple(dict.fromkeys(value))
        raise self._refuse(
            self._dotted(key), value, f"a list of 1 to {limit} {expected}"
        )

    def words(
        self, key: str, pattern: re.Pattern[str], expected: str, limit: int
    ) -> tuple[str, ...] | None:
        """Return a list whose order and repetitions count; None if it is not set."""
        found = self.some(key, pattern, expected, limit)
        return None if found is None else tuple(cast("list[str]", self._content[key]))

    def truth(self, key: str) -> bool | None:
        value = self._take(key)
        if value is None or isinstance(value, bool):
            return value
        raise self._refuse(self._dotted(key), value, "true or false")

    def number(self, key: str, least: int, most: int, unit: str) -> int | None:
        value = self._take(key)
        if value is None:
            return None
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if is_number and least <= cast("int", value) <= most:
            return cast("int", value)
        expected = f"a whole number of {unit} from {least} to {most}"
        raise self._refuse(self._dotted(key), value, expected)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str | None:
        value = self._take(key)
        if value is None or (isinstance(value, str) and value in choices):
            return value
        raise self._refuse(self._dotted(key), value, f"one of {', '.join(choices)}")

    def one_number_of(self, key: str, choices: tuple[int, ...]) -> int | None:
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and value in choices:
            return value
        expected = f"one of {', '.join(map(str, choices))}"
        raise self._refuse(self._dotted(key), value, expected)

    def reject_unknown_keys(self) -> None:
        """Reject unknown keys in tables; those outside are others' to know."""
        for section in self._sections:
            for key, value in section._content.items():
                if key not in section._known:
                    near = difflib.get_close_matches(key, section._known, 1)
                    hint = f"did you mean {near[0]}? " if near else ""
                    known = ", ".join(sorted(section._known))
                    dotted = section._dotted(key)
                    expected = f"no such key; {hint}[{section._name}] has {known}"
                    raise self._refuse(dotted, value, expected)
            section.reject_unknown_keys()

    def _take(self, key: str) -> object:
        self._known.add(key)
        return self._content.get(key)

    def _dotted(self, key: str) -> str:
        return key if self._name is None else f"{self._name}.{key}"


def check_aws_options(options: Mapping[str, object]) -> dict[str, Any]:
    """Return options of a command as keys for AWS, checked like a project file.

    Args:
        options: Values by key, in tables as in a project file.

    Raises:
        UsageError: A value is not accepted.
    """

    def refuse(key: str, value: object, expected: str) -> UsageError:
        return UsageError(f"Cannot use {value!r} for {key}; expected {expected}")

    return read_aws_keys(options, refuse)


def read_aws_keys(content: Mapping[str, object], refuse: Refuse) -> dict[str, Any]:
    """Return the values of the keys that are set, by the dotted names of the keys.

    Args:
        content: Values of ``TOP_KEYS``; None or missing: not set.
        refuse: Returns the error about a value that cannot be used.

    Raises:
        UsageError: A value is not accepted, or a required key of a table is missing.
    """
    table = _Reader(content, refuse)
    events = _read_events(content.get("events"), refuse)
    vpc, logs = table.section("vpc"), table.section("logs")
    url, durable = table.section("url"), table.section("durable")
    managed, files = table.section("managed_instances"), table.section("file_system")
    cors, image = url.section("cors"), table.section("image")
    vpc.require("subnets", "security_groups")
    durable.require("timeout")
    managed.require("capacity_provider")
    files.require("arn", "path")
    cors.require("origins")
    found: dict[str, Any] = {
        "events": events,
        "tenancy": table.one_of("tenancy", (PER_TENANT,)),
        "snapstart": table.truth("snapstart"),
        "tracing": table.one_of("tracing", ("active", "pass-through")),
        "kms_key": table.text("kms_key", KMS_KEY, "the ARN of a KMS key"),
        "dead_letter": table.text(
            "dead_letter", DEAD_LETTER, "the ARN of an SQS queue or an SNS topic"
        ),
        "reserved_concurrency": table.number(
            "reserved_concurrency", 0, CONCURRENCY_LIMIT, "invocations"
        ),
        "provisioned_concurrency": table.number(
            "provisioned_concurrency", 1, CONCURRENCY_LIMIT, "environments"
        ),
        "alias": table.text(
            "alias", ALIAS_NAME, "1 to 128 letters, digits, - and _, not digits alone"
        ),
        "bucket": table.text("bucket", BUCKET_NAME, "the name of a bucket"),
        "vpc.subnets": vpc.some("subnets", SUBNET, "subnet ids", SUBNETS_LIMIT),
        "vpc.security_groups": vpc.some(
            "security_groups",
            SECURITY_GROUP,
            "security group ids",
            SECURITY_GROUPS_LIMIT,
        ),
        "vpc.ipv6": vpc.truth("ipv6"),
        "logs.format": logs.one_of("format", ("json", "text")),
        "logs.level": logs.one_of("level", LOG_LEVELS),
        "logs.system_level": logs.one_of("system_level", SYSTEM_LOG_LEVELS),
        "logs.group": logs.text("group", LOG_GROUP, "the name of a log group"),
        "logs.retention": logs.one_number_of("retention", RETENTIONS_DAYS),
        "durable.timeout": durable.number("timeout", 1, DURABLE_LIMIT_S, "seconds"),
        "durable.retention": durable.number(
            "retention", 1, DURABLE_RETENTION_DAYS, "days"
        ),
        "durable.kms_key": durable.text("kms_key", KMS_KEY, "the ARN of a KMS key"),
        "managed_instances.capacity_provider": managed.text(
            "capacity_provider", CAPACITY_PROVIDER, "the ARN of a capacity provider"
        ),
        "managed_instances.concurrency": managed.number(
            "concurrency", 1, MANAGED_CONCURRENCY, "invocations"
        ),
        "managed_instances.memory_per_vcpu": managed.number(
            "memory_per_vcpu", *MANAGED_MEMORY_PER_VCPU_GIB, "GiB"
        ),
        "file_system.arn": files.text(
            "arn", ACCESS_POINT, "the ARN of an EFS access point"
        ),
        "file_system.path": files.text("path", MOUNT_PATH, "a path such as /mnt/data"),
        # A table [url] without keys asks for a URL too.
        "url.enabled": _first(
            url.truth("enabled"), None if content.get("url") is None else True
        ),
        "url.auth": url.one_of("auth", URL_AUTHS),
        "url.cors.origins": cors.some(
            "origins", ORIGIN, "origins such as https://example.com, or *", CORS_LIMIT
        ),
        "url.cors.methods": cors.some(
            "methods",
            re.compile("|".join(map(re.escape, METHODS))),
            f"methods: {', '.join(METHODS)}",
            6,
        ),
        "url.cors.headers": cors.some("headers", HEADER, "headers", CORS_LIMIT),
        "url.cors.expose": cors.some("expose", HEADER, "headers", CORS_LIMIT),
        "url.cors.credentials": cors.truth("credentials"),
        "url.cors.max_age": cors.number("max_age", 0, CORS_MAX_AGE_S, "seconds"),
        "image.enabled": _first(
            image.truth("enabled"), None if content.get("image") is None else True
        ),
        "image.repository": image.text(
            "repository",
            REPOSITORY,
            "the name of a repository in ECR, such as orders, or "
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/orders",
        ),
        "image.base": image.text(
            "base", re.compile(r"\S.*"), "an image, or the folder of an OCI layout"
        ),
        "image.command": image.words(
            "command", IMAGE_WORD, "arguments", IMAGE_WORDS_LIMIT
        ),
        "image.entry_point": image.words(
            "entry_point", IMAGE_WORD, "arguments", IMAGE_WORDS_LIMIT
        ),
        "image.working_directory": image.text(
            "working_directory", re.compile(r"/\S{0,999}"), "an absolute path"
        ),
    }
    table.reject_unknown_keys()
    if found["image.enabled"] is False:  # as in one stage of several
        found = {
            name: value for name, value in found.items()
            if not name.startswith("image.")
        }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _read_events(content: object, refuse: Refuse) -> tuple[EventSource, ...] | None:
    if content is None:
        return None
    if not isinstance(content, list) or not all(
        isinstance(item, dict) for item in content
    ):
        raise refuse("events", content, "tables: [[events]] and lines KEY = value")
    found: list[EventSource] = []
    for index, item in enumerate(content):
        source = _read_event(item, refuse, f"events[{index}]")
        same = [
            one for one in found
            if one.source == source.source and one.schedule == source.schedule
            and one.input == source.input
        ]  # fmt: skip
        if same:
            raise refuse(f"events[{index}]", item, "a source that is not there twice")
        found.append(source)
    return tuple(found) or None


def _read_event(
    content: Mapping[str, object], refuse: Refuse, name: str
) -> EventSource:
    outer = _Reader({name: content}, refuse)
    table = outer.section(name)
    source = table.text(
        "source",
        SOURCE,
        "the ARN of an SQS queue, a Kinesis stream or a DynamoDB stream",
    )
    schedule = table.text(
        "schedule", SCHEDULE, "rate(5 minutes) or cron(0 6 * * ? *), as in EventBridge"
    )
    start = table.one_of("start", ("latest", "oldest"))
    given = table.text("input", re.compile(r"(?s).{1,8192}"), "JSON text")
    enabled = table.truth("enabled")
    batch_size = table.number("batch_size", 1, BATCH_LIMIT, "events")
    batch_window = table.number("batch_window", 0, BATCH_WINDOW_S, "seconds")
    report_failures = table.truth("report_failures")
    max_concurrency = table.number("max_concurrency", 2, 1000, "invocations")
    filters = table.some(
        "filters", re.compile(r"(?s)\s*\{.{0,4094}"), "patterns as JSON objects", 10
    )
    outer.reject_unknown_keys()
    if (source is None) == (schedule is None):
        raise refuse(name, content, "either source or schedule")
    only_sources = {
        "start", "batch_size", "batch_window", "report_failures", "max_concurrency",
        "filters",
    } & {*content}  # fmt: skip
    if schedule is not None and only_sources:
        key = min(only_sources)
        raise refuse(f"{name}.{key}", content[key], "no such key beside schedule")
    if source is not None and given is not None:
        raise refuse(f"{name}.input", given, "no such key beside source")
    for key, texts in (("input", [given] if given else []), ("filters", filters or ())):
        for text in texts:
            try:
                json.loads(text)
            except ValueError:
                raise refuse(f"{name}.{key}", text, "JSON") from None
    service = None if source is None else source.split(":")[2]
    if service == "sqs" and start is not None:
        raise refuse(f"{name}.start", start, "no such key for a queue")
    if service != "sqs" and max_concurrency is not None:
        raise refuse(f"{name}.max_concurrency", max_concurrency, "a queue beside it")
    if service == "sqs" and (batch_size or 0) > FIFO_BATCH:
        if str(source).endswith(".fifo"):
            raise refuse(
                f"{name}.batch_size", batch_size, "at most 10, for a FIFO queue"
            )
        if not batch_window:
            expected = "at most 10, or batch_window = 1 or more beside it"
            raise refuse(f"{name}.batch_size", batch_size, expected)
    position = None
    if service in ("kinesis", "dynamodb"):
        position = "TRIM_HORIZON" if start == "oldest" else "LATEST"
    return EventSource(
        source=source,
        start=position,
        schedule=schedule,
        input=given,
        enabled=enabled is not False,
        batch_size=batch_size,
        batch_window=batch_window,
        report_failures=report_failures is True,
        max_concurrency=max_concurrency,
        filters=filters or (),
    )


def _first(*values: bool | None) -> bool | None:
    return next((value for value in values if value is not None), None)


def conflict(
    keys: Mapping[str, Any],
    *,
    runtime: str,
    memory_mb: int | None = None,
    storage_mb: int | None = None,
    alias: str | None = None,
    url: bool | None = None,
    has_layers: bool = False,
) -> str | None:
    """Return why AWS would refuse a combination of settings, None if it would not.

    Args:
        keys: The keys of ``read_aws_keys``, with the options that override them.
        runtime: Runtime of the function.
        memory_mb: Memory size; None: not set.
        storage_mb: Size of ``/tmp``; None: not set.
        alias: The alias that is deployed.
        url: Whether the function is to have a URL.
        has_layers: Whether layers are named.
    """
    is_image = keys.get("image.enabled") is True
    is_managed = "managed_instances.capacity_provider" in keys
    is_tenant = "tenancy" in keys
    is_snap = keys.get("snapstart") is True
    is_durable = "durable.timeout" in keys
    provisioned = keys.get("provisioned_concurrency")
    reserved = keys.get("reserved_concurrency")
    has_levels = {"logs.level", "logs.system_level"} & set(keys)
    has_files = "file_system.arn" in keys
    cases = (
        (is_tenant and bool(url), "tenancy", "a function URL", "remove one of them"),
        (
            is_tenant and "events" in keys,
            "tenancy",
            "[[events]]",
            "their events name no tenant; remove one of them",
        ),
        (is_tenant and is_snap, "tenancy", "snapstart", "remove one of them"),
        (
            is_tenant and provisioned is not None,
            "tenancy",
            "provisioned_concurrency",
            "remove one of them",
        ),
        (
            is_snap and provisioned is not None,
            "snapstart",
            "provisioned_concurrency",
            "remove one of them",
        ),
        (is_snap and has_files, "snapstart", "file_system", "remove one of them"),
        (
            is_snap and (storage_mb or 0) > STORAGE_MIN_MB,
            "snapstart",
            f"storage = {storage_mb}",
            f"AWS accepts {STORAGE_MIN_MB} MB with it",
        ),
        (
            is_snap and is_image,
            "snapstart",
            "a container image",
            "AWS makes snapshots of functions from zips only; remove one of them",
        ),
        (
            is_snap and runtime == OS_ONLY,
            "snapstart",
            f"the runtime {OS_ONLY}",
            "choose python3.12 or newer",
        ),
        (
            is_image and has_layers,
            "layers",
            "a container image",
            "an image contains what layers would add; remove one of them",
        ),
        (
            is_durable and not is_image and runtime not in PYTHON_SINCE_3_13,
            "durable",
            f"the runtime {runtime}",
            f"choose {' or '.join(PYTHON_SINCE_3_13)}",
        ),
        (
            is_managed and runtime == "python3.12",
            "managed_instances",
            "the runtime python3.12",
            f"choose {', '.join((*PYTHON_SINCE_3_13, OS_ONLY))}",
        ),
        (is_managed and is_snap, "managed_instances", "snapstart", "remove one"),
        (is_managed and is_tenant, "managed_instances", "tenancy", "remove one"),
        (
            is_managed and provisioned is not None,
            "managed_instances",
            "provisioned_concurrency",
            "its instances are always ready; remove one",
        ),
        (
            is_managed and "vpc.subnets" in keys,
            "managed_instances",
            "vpc",
            "the capacity provider has the network; remove [vpc]",
        ),
        (
            is_managed and memory_mb is not None and memory_mb < MANAGED_MEMORY_MIN_MB,
            "managed_instances",
            f"memory = {memory_mb}",
            f"AWS accepts {MANAGED_MEMORY_MIN_MB} to {MANAGED_MEMORY_MAX_MB} MB with "
            "it",
        ),
        (
            bool(has_levels) and keys.get("logs.format") == "text",
            " and ".join(sorted(has_levels)),
            'logs.format = "text"',
            'levels need format = "json"',
        ),
        (
            has_files and "vpc.subnets" not in keys,
            "file_system",
            "no [vpc]",
            "EFS is reached through a VPC; add [vpc] with subnets of the file system",
        ),
        (
            keys.get("url.cors.credentials") is True
            and "*" in keys.get("url.cors.origins", ()),
            "url.cors.credentials",
            'origins = ["*"]',
            "browsers refuse the two together; name the origins",
        ),
        (
            keys.get("url.enabled") is False and len(_starting(keys, "url.")) > 1,
            ", ".join(sorted(_starting(keys, "url.") - {"url.enabled"})),
            "url.enabled = false",
            "remove one of them",
        ),
        (
            provisioned is not None and alias is None,
            "provisioned_concurrency",
            "no alias",
            'AWS provides it for an alias; set alias, such as alias = "live"',
        ),
        (
            provisioned is not None and reserved is not None and provisioned > reserved,
            f"provisioned_concurrency = {provisioned}",
            f"reserved_concurrency = {reserved}",
            "it may not be larger",
        ),
    )
    for is_refused, one, other, advice in cases:
        if is_refused:
            return f"{one} cannot be used with {other}: {advice}"
    return None


def _starting(keys: Mapping[str, Any], start: str) -> set[str]:
    return {key for key in keys if key.startswith(start)}

"""Settings of a function that a project file's keys for AWS set, one by one.

Knows which parameter of Lambda's API each key sets, its default, and which settings a
deployment set before, from a tag. Does not call AWS. A setting is kept in the form that
Lambda's API uses. Specification: Lambda API reference, CreateFunction and
UpdateFunctionConfiguration; docs/deploy.md, "Settings from lambda.toml".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.plan import Change
from lambda_deno_spawn.dev.project.aws_keys import PER_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Names of the keys that set something at the last deployment, separated by spaces. A
# key that is removed from the project file resets its setting only if it is in here:
# other tools may have set it too.
KEYS_TAG = "lambda-deno-spawn-keys"
# The alias that had the URL and got the events at the last deployment.
ALIAS_TAG = "lambda-deno-spawn-alias"
MANAGED = ("CapacityProviderConfig", "LambdaManagedInstancesCapacityProviderConfig")
FILES = "FileSystemConfigs"
LOGGING = "LoggingConfig"
IMAGE = "ImageConfig"
DEFAULT_LEVEL = "INFO"  # Lambda's own, for logs as JSON
# A version keeps its own values of these, so an alias that points to one with other
# values has to move.
OF_VERSIONS = ("VpcConfig", "TracingConfig", "KMSKeyArn", "DeadLetterConfig", FILES,
               "SnapStart", LOGGING, IMAGE)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """The parameters that one key sets.

    Attributes:
        key: Dotted name of the key.
        path: Names of the parameter in the API, from the outside in.
        default: Lambda's default, None if the parameter is then not there.
        values: The API's value for each value of the key; empty: they are equal.
        is_ordered: The order of a list counts.
    """

    key: str
    path: tuple[str, ...]
    default: Any = None
    values: Mapping[Any, str] = field(default_factory=dict)
    is_ordered: bool = False

    @property
    def parameter(self) -> str:
        """Name of the outermost parameter, which is always sent whole."""
        return self.path[0]

    def encoded(self, value: Any) -> Any:
        """Return the API's form of a key's value."""
        if isinstance(value, tuple):
            return list(value) if self.is_ordered else sorted(value)
        return self.values.get(value, value)

    def read(self, response: Mapping[str, Any]) -> Any:
        """Return the value in Lambda's description of a function."""
        found: Any = response
        for name in self.path:
            found = (found or {}).get(name)
            if isinstance(found, list) and name == FILES:
                found = found[0] if found else {}
        if isinstance(found, list):
            return list(found) if self.is_ordered else sorted(found)
        return self.default if found is None else found


SETTINGS = (
    Setting("tenancy", ("TenancyConfig", "TenantIsolationMode"),
            values={PER_TENANT: "PER_TENANT"}),
    Setting("snapstart", ("SnapStart", "ApplyOn"), "None",
            {True: "PublishedVersions", False: "None"}),
    Setting("tracing", ("TracingConfig", "Mode"), "PassThrough",
            {"active": "Active", "pass-through": "PassThrough"}),
    Setting("kms_key", ("KMSKeyArn",), ""),
    Setting("dead_letter", ("DeadLetterConfig", "TargetArn"), ""),
    Setting("vpc.subnets", ("VpcConfig", "SubnetIds"), []),
    Setting("vpc.security_groups", ("VpcConfig", "SecurityGroupIds"), []),
    Setting("vpc.ipv6", ("VpcConfig", "Ipv6AllowedForDualStack"), default=False),
    Setting("file_system.arn", (FILES, "Arn")),
    Setting("file_system.path", (FILES, "LocalMountPath")),
    Setting("logs.format", (LOGGING, "LogFormat"), "Text",
            {"json": "JSON", "text": "Text"}),
    Setting("logs.level", (LOGGING, "ApplicationLogLevel")),
    Setting("logs.system_level", (LOGGING, "SystemLogLevel")),
    Setting("logs.group", (LOGGING, "LogGroup")),
    Setting("durable.timeout", ("DurableConfig", "ExecutionTimeout")),
    Setting("durable.retention", ("DurableConfig", "RetentionPeriodInDays"), 14),
    Setting("durable.kms_key", ("DurableConfig", "KMSKeyArn"), ""),
    Setting("managed_instances.capacity_provider", (*MANAGED, "CapacityProviderArn")),
    Setting("managed_instances.concurrency",
            (*MANAGED, "PerExecutionEnvironmentMaxConcurrency")),
    Setting("managed_instances.memory_per_vcpu",
            (*MANAGED, "ExecutionEnvironmentMemoryGiBPerVCpu")),
    Setting("image.command", (IMAGE, "Command"), [], is_ordered=True),
    Setting("image.entry_point", (IMAGE, "EntryPoint"), [], is_ordered=True),
    Setting("image.working_directory", (IMAGE, "WorkingDirectory")),
)  # fmt: skip
PARAMETERS = tuple(dict.fromkeys(setting.parameter for setting in SETTINGS))
# Keys that are there or sent together are recorded under one name, as a tag's value has
# at most 256 characters.
SHORT = {
    "vpc.subnets": "vpc",
    "vpc.security_groups": "vpc",
    "file_system.arn": "file_system",
    "file_system.path": "file_system",
    "durable.timeout": "durable",
    "managed_instances.capacity_provider": "managed_instances",
    "image.command": "image.config",
    "image.entry_point": "image.config",
    "image.working_directory": "image.config",
}
# Keys outside a function's configuration that are reset in the same way.
OTHER_KEYS = (
    "reserved_concurrency", "provisioned_concurrency", "url", "events", "image",
)  # fmt: skip


def read_settings(response: Mapping[str, Any], log_group: str = "") -> dict[str, Any]:
    """Return the value of each setting in Lambda's description of a function.

    Args:
        response: ``Configuration`` in a response of GetFunction; an empty one gives
            Lambda's defaults.
        log_group: The log group that Lambda uses by default.
    """
    # Lambda describes this one under another name than it accepts it.
    image = (response.get("ImageConfigResponse") or {}).get(IMAGE)
    response = {**response, IMAGE: image}
    found = {setting.key: setting.read(response) for setting in SETTINGS}
    if not found["logs.group"]:
        found["logs.group"] = log_group
    return found


def recorded_keys(tags: Mapping[str, str]) -> frozenset[str]:
    """Return the keys that the last deployment set, from a function's tags."""
    recorded = set(tags.get(KEYS_TAG, "").split())
    short = {key for key, name in SHORT.items() if name in recorded}
    return frozenset((recorded - set(SHORT.values())) | short)


def former_alias(
    tags: Mapping[str, str], alias: str | None
) -> tuple[str | None] | None:
    """Return the alias that has URL and events, if they have to move from there.

    Args:
        tags: Tags of the function.
        alias: The alias that they are to belong to now; None: the function.

    Returns:
        None: there is nothing to move. Else the alias; None in it: the function.
    """
    if not {"url", "events"} & recorded_keys(tags):
        return None
    former = tags.get(ALIAS_TAG)
    return None if former == alias else (former,)


def tags_to_record(keys: Iterable[str], alias: str | None) -> dict[str, str]:
    """Return the tags that record what a deployment sets, without empty ones."""
    keys = keys_to_record(keys)
    tags = {KEYS_TAG: keys} if keys else {}
    if alias is not None and {"url", "events"} & set(keys.split()):
        tags[ALIAS_TAG] = alias
    return tags


def keys_to_record(keys: Iterable[str]) -> str:
    """Return the value of the tag for the keys of a project file; empty: no tag."""
    names = {setting.key for setting in SETTINGS}
    found = {SHORT.get(key, key) for key in keys if key in names}
    for key in keys:
        if key in OTHER_KEYS or key.partition(".")[0] in OTHER_KEYS:
            found.add(key.partition(".")[0])
    return " ".join(sorted(found))


def next_settings(
    keys: Mapping[str, Any],
    recorded: frozenset[str],
    current: Mapping[str, Any],
    log_group: str,
) -> dict[str, Any]:
    """Return the value that each setting is to have.

    Args:
        keys: Values of the keys that are set now.
        recorded: Keys that the last deployment set.
        current: Value of each setting now.
        log_group: The log group that Lambda uses by default.
    """
    after = {}
    for setting in SETTINGS:
        if setting.key in keys:
            after[setting.key] = setting.encoded(keys[setting.key])
        elif setting.key in recorded:
            after[setting.key] = setting.default
        else:
            after[setting.key] = current[setting.key]
    after["logs.group"] = after["logs.group"] or log_group
    levels = ("logs.level", "logs.system_level")
    if any(level in keys for level in levels) and "logs.format" not in keys:
        after["logs.format"] = "JSON"  # levels exist only there
    for level in levels:
        if after["logs.format"] == "Text":
            after[level] = None
        elif level in recorded and after[level] is None:
            after[level] = DEFAULT_LEVEL
    return after


def changed_parameters(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters that differ, each whole, with the values after."""
    return {
        name: _parameter(name, before, after)
        for name in PARAMETERS
        if any(
            before[setting.key] != after[setting.key]
            for setting in SETTINGS
            if setting.parameter == name
        )
    }


def restored(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Iterable[str]
) -> dict[str, Any]:
    """Return parameters with the values before, to revert an update."""
    return {
        name: _parameter(name, after, before) for name in names if name in PARAMETERS
    }


def _parameter(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Any:
    """Return a parameter in the form of the API, with the new values."""
    parts = [setting for setting in SETTINGS if setting.parameter == name]
    if len(parts[0].path) == 1:
        return new[parts[0].key]
    found: dict[str, Any] = {}
    for setting in parts:
        value = new[setting.key]
        # A default is sent only to replace another value, lists always: VpcConfig has
        # to have both of them.
        is_kept = value == setting.default == old[setting.key] and value != []
        if value is None or is_kept:
            continue
        inner = found
        for outer in setting.path[1:-1]:
            inner = inner.setdefault(outer, {})
        inner[setting.path[-1]] = value
    if name == FILES:
        return [found] if found else []
    return found


def setting_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], *, is_new: bool
) -> Iterable[Change]:
    """Return the settings that change, by the names of their keys."""
    for setting in SETTINGS:
        old, new = before[setting.key], after[setting.key]
        if old != new:
            first = None if is_new else shown(old) or "none"
            yield Change(setting.key, first, shown(new) or "none")


def shown(value: Any) -> str:
    """Return a setting's value for people."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)

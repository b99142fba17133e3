"""The wanted and the current state of a function, and checks of the wanted one.

Knows the resources that belong to a function, how Lambda describes them, the names and
values that AWS accepts, and the names of the resources that this tool creates. Does not
know how one state becomes the other. Specification: Lambda API reference,
CreateFunction and GetFunction; AWS "Lambda quotas".
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.events import EventState, source_statements
from lambda_deno_spawn.dev.aws.publish import LAYER_PREFIX
from lambda_deno_spawn.dev.aws.role import role_statements
from lambda_deno_spawn.dev.aws.settings import (
    OF_VERSIONS,
    SETTINGS,
    next_settings,
    read_settings,
    recorded_keys,
)
from lambda_deno_spawn.dev.project.aws_keys import (
    ALIAS_NAME,
    BUCKET_NAME,
    MANAGED_MEMORY_MAX_MB,
    MANAGED_TIMEOUT_LIMIT_S,
    RETENTIONS_DAYS,
    conflict,
)
from lambda_deno_spawn.dev.project.project import (
    DESCRIPTION_LIMIT,
    FUNCTION_NAME,
    LAYER_ARN,
    ROLE_ARN,
    RUNTIMES,
)
from lambda_deno_spawn.dev.project.quotas import (
    LAYERS_LIMIT,
    MEMORY_MAX_MB,
    MEMORY_MIN_MB,
    OS_ONLY,
    STORAGE_MAX_MB,
    STORAGE_MIN_MB,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lambda_deno_spawn.dev.aws.image import FunctionImage, RepositoryState
    from lambda_deno_spawn.dev.aws.plan import Place
    from lambda_deno_spawn.dev.aws.publish import LayerVersion, LayerZip

WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"
WRAPPER_PATH = "/opt/lambda-deno-spawn"
TAGS_LIMIT = 47  # AWS accepts 50
TAG_NAME = re.compile(r"[\w .:/=+@-]{1,128}")
TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
ROLE_NAME = re.compile(r"[\w+=,.@-]{1,64}")
ROLE_NAME_LIMIT = 64  # IAM and AWS STS quotas
# Matches the names that role_policy_name returns, for any region.
ROLE_POLICY_NAME = re.compile(r"logs-([a-z]+(?:-[a-z]+)+-\d+)")
OUR_TAG = ("created-by", "lambda-deno-spawn")
# In GetFunction's ``Code``: as it was given, and with the digest that a tag had then.
IMAGE_URIS = ("ImageUri", "ResolvedImageUri")
CORS = {
    "url.cors.origins": "AllowOrigins",
    "url.cors.methods": "AllowMethods",
    "url.cors.headers": "AllowHeaders",
    "url.cors.expose": "ExposeHeaders",
    "url.cors.credentials": "AllowCredentials",
    "url.cors.max_age": "MaxAge",
}


@dataclass(frozen=True, slots=True)
class PackageZip:
    """A function's code.

    Attributes:
        sha256: Digest of the zip, in hexadecimal.
        unzipped_bytes: Size of its files; 0: unknown.
    """

    path: Path
    sha256: str
    zipped_bytes: int
    unzipped_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state of a function; None: leave the setting unchanged.

    Attributes:
        package: The zip; in an image, what the image was made from.
        role: ARN or name; None: the role it has; a new function gets its own.
        layers: ARNs of layer versions; empty: the newest of the runtime's layers.
        variables: Environment variables, without those that the runtime needs itself.
        replaces_env: Remove all other variables.
        alias: Publish a version, and point this alias to it.
        url: Whether the function has a function URL.
        url_auth: ``AWS_IAM`` or ``NONE``.
        invoke_mode: ``BUFFERED`` or ``RESPONSE_STREAM``.
        retention_days: How long logs are kept.
        bucket: Bucket for the upload; None: only for a large zip, and our own.
        changes_runtime: Replace the function even if it does not run this runtime.
        keys: Settings for AWS alone, by the dotted names of their keys.
        recorded: Names of those keys that the project file has, which are recorded so
            that a key that is removed later resets its setting.
        image: The image, once it is built, if the function is to be one.
    """

    name: str
    handler: str
    runtime: str
    arch: str
    package: PackageZip
    role: str | None = None
    layers: tuple[str, ...] = ()
    memory_mb: int | None = None
    timeout_s: int | None = None
    storage_mb: int | None = None
    description: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    replaces_env: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    alias: str | None = None
    url: bool | None = None
    url_auth: str | None = None
    invoke_mode: str | None = None
    retention_days: int | None = None
    bucket: str | None = None
    changes_runtime: bool = False
    keys: Mapping[str, Any] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    image: FunctionImage | None = None

    @property
    def is_image(self) -> bool:
        """True if the function is to be a container image."""
        return self.keys.get("image.enabled") is True

    @property
    def is_managed(self) -> bool:
        """True if the function runs on Managed Instances."""
        return "managed_instances.capacity_provider" in self.keys

    @property
    def sources(self) -> list[str]:
        """ARNs of the queues and streams that the function gets events from."""
        return [
            item.source
            for item in self.keys.get("events", ())
            if item.source is not None
        ]

    @property
    def log_group(self) -> str:
        """Name of the log group that ``deploy`` creates."""
        return self.keys.get("logs.group") or default_log_group(self.name)

    @property
    def cors(self) -> dict[str, Any] | None:
        """CORS of the function URL; None: leave it unchanged."""
        if "url" not in {key.partition(".")[0] for key in self.keys}:
            return None
        return normal_cors({CORS[key]: value for key, value in self.keys.items()
                            if key in CORS})  # fmt: skip

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers that the runtime consists of; an image has none."""
        if self.is_image:
            return ()
        kinds = ["deno", "runtime", *(["python"] if self.runtime == OS_ONLY else [])]
        return tuple(f"{LAYER_PREFIX}{kind}-{self.arch}" for kind in kinds)


@dataclass(frozen=True, slots=True)
class FunctionState:
    """A function, or one of its versions, as Lambda describes it.

    Attributes:
        runtime: Empty for a container image.
        code_sha256: Digest of the zip, in base64; of an image, as AWS calls it.
        image_uri: Name of the image, with its digest; empty for a zip.
        failure: Why the last update failed, None if it did not fail.
        log_group: Name of its log group.
        environment_error: Why the variables cannot be read, None if they can.
        revision: Changes with each write; empty if AWS sent none.
        settings: By the names of the keys that set them.
        reserved: Reserved concurrency, None if there is none.
    """

    arn: str
    runtime: str
    handler: str
    role: str
    memory_mb: int
    timeout_s: int
    storage_mb: int
    description: str
    arch: str
    layers: tuple[str, ...]
    variables: Mapping[str, str]
    code_sha256: str
    package_type: str = "Zip"
    state: str = "Active"
    state_reason: str = ""
    failure: str | None = None
    log_group: str = ""
    environment_error: str | None = None
    revision: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: read_settings({}))
    reserved: int | None = None
    image_uri: str = ""

    @classmethod
    def from_response(
        cls,
        response: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        reserved: int | None = None,
        code: Mapping[str, Any] | None = None,
    ) -> FunctionState:
        """Read the ``Configuration`` in a response of GetFunction, and its ``Code``."""
        uris = [(code or {}).get(name) or "" for name in IMAGE_URIS]
        failure = None
        if response.get("LastUpdateStatus") == "Failed":
            failure = response.get("LastUpdateStatusReason") or "without a reason"
        environment = response.get("Environment") or {}
        error = environment.get("Error") or {}
        name = response["FunctionName"]
        return cls(
            arn=response["FunctionArn"],
            runtime=response.get("Runtime") or "",
            handler=response.get("Handler") or "",
            role=response.get("Role") or "",
            memory_mb=int(response.get("MemorySize") or 128),
            timeout_s=int(response.get("Timeout") or 3),
            storage_mb=int((response.get("EphemeralStorage") or {}).get("Size") or 512),
            description=response.get("Description") or "",
            arch=(response.get("Architectures") or ["x86_64"])[0],
            layers=tuple(layer["Arn"] for layer in response.get("Layers") or ()),
            variables=dict(environment.get("Variables") or {}),
            code_sha256=response.get("CodeSha256") or "",
            package_type=response.get("PackageType") or "Zip",
            state=response.get("State") or "Active",
            state_reason=response.get("StateReason") or "",
            failure=failure,
            log_group=(response.get("LoggingConfig") or {}).get("LogGroup")
            or default_log_group(name),
            environment_error=error.get("Message") or error.get("ErrorCode"),
            revision=response.get("RevisionId") or "",
            tags=dict(tags or {}),
            settings=read_settings(response, default_log_group(name)),
            reserved=reserved,
            image_uri=next((uri for uri in uris if "@" in uri), ""),
        )

    @property
    def image_digest(self) -> str:
        """Digest of the image; empty for a zip."""
        return self.image_uri.partition("@")[2]

    def has_image(self, image: FunctionImage, arch: str) -> bool:
        """True if the function runs an image, so that nothing has to be pushed."""
        is_same = (self.image_digest, self.arch) == (image.digest, arch)
        return is_same and self.failure is None

    @property
    def stack(self) -> str | None:
        """Name of the CloudFormation stack that owns the function, else None."""
        return self.tags.get("aws:cloudformation:stack-name")

    @property
    def is_ours(self) -> bool:
        """True if the function uses this runtime, or this tool created it."""
        return (
            self.variables.get(WRAPPER) == WRAPPER_PATH
            or any(f":layer:{LAYER_PREFIX}" in arn for arn in self.layers)
            or self.tags.get(OUR_TAG[0]) == OUR_TAG[1]
            or "image" in recorded_keys(self.tags)
        )

    def runs_as(self, other: FunctionState) -> bool:
        """True if two versions have the same code and settings."""
        return _running(self) == _running(other)


def _running(state: FunctionState) -> tuple[object, ...]:
    return (
        state.runtime, state.handler, state.role, state.memory_mb, state.timeout_s,
        state.storage_mb, state.arch, state.layers, dict(state.variables),
        state.code_sha256,
        [state.settings[setting.key] for setting in SETTINGS
         if setting.parameter in OF_VERSIONS],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AliasState:
    """An alias, and the version it points to.

    Attributes:
        has_weights: A share of the invocations goes to another version.
        revision: Changes with each write; empty if AWS sent none.
    """

    version: str
    function: FunctionState
    has_weights: bool = False
    revision: str = ""


@dataclass(frozen=True, slots=True)
class UrlState:
    """A function URL."""

    url: str
    auth: str
    invoke_mode: str
    cors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProvisionedState:
    """Provisioned concurrency of an alias or a version.

    Attributes:
        requested: How many environments were requested.
        failure: Why they could not be provided; None if that did not fail.
    """

    requested: int
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role in IAM.

    Attributes:
        is_ours: This tool created it.
        policy: The inline policy that allows to write this function's log.
    """

    arn: str
    is_ours: bool = False
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Current:
    """The current state of a function and its resources.

    Attributes:
        function: None: there is no function with this name.
        role: The wanted role; None: it does not exist.
        log_retention_days: None: there is no log group; 0: it keeps everything.
        layers: By ARN if ARNs are wanted, else by name; None: it does not exist.
        built: Local layers that can be published, by name.
        statements: Resource policy of the function or alias that has the URL.
        own_role: The role that this tool created, if the function uses it.
        provisioned: Provisioned concurrency, by alias or version.
        published: The version ``$LATEST.PUBLISHED`` of a function on Managed
            Instances.
        events: Event sources.
        former: What another alias had at the last deployment, and has to lose; None:
            nothing.
        repository: Repository of the image, read only to push to it; None: it does
            not exist.
    """

    place: Place
    function: FunctionState | None = None
    alias: AliasState | None = None
    url: UrlState | None = None
    role: RoleState | None = None
    log_retention_days: int | None = None
    layers: Mapping[str, LayerVersion | None] = field(default_factory=dict)
    built: Mapping[str, LayerZip] = field(default_factory=dict)
    statements: tuple[Mapping[str, Any], ...] = ()
    own_role: RoleState | None = None
    provisioned: Mapping[str, ProvisionedState] = field(default_factory=dict)
    published: FunctionState | None = None
    events: EventState = field(default_factory=EventState)
    former: FormerState | None = None
    repository: RepositoryState | None = None


@dataclass(frozen=True, slots=True)
class FormerState:
    """URL and event sources of the alias that was deployed before.

    Attributes:
        alias: None: the function itself had them.
    """

    alias: str | None
    url: UrlState | None
    statements: tuple[Mapping[str, Any], ...]
    events: EventState


def with_removals(wanted: Wanted, function: FunctionState | None) -> Wanted:
    """Return the wanted state, without a URL if its keys were removed since."""
    tags = {} if function is None else function.tags
    if wanted.url is None and "url" in recorded_keys(tags):
        return dataclasses.replace(wanted, url=False)
    return wanted


def normal_cors(cors: Mapping[str, Any]) -> dict[str, Any]:
    """Return CORS settings so that equal ones compare equal."""
    found: dict[str, Any] = {}
    for name, value in cors.items():
        if isinstance(value, list | tuple):
            is_header = name.endswith("Headers")
            value = sorted(item.lower() if is_header else item for item in value)
        if value not in (None, [], False, 0):
            found[name] = value
    return found


def default_log_group(name: str) -> str:
    """Return the name of the log group that Lambda uses by default."""
    return f"/aws/lambda/{name}"


def own_role_name(name: str) -> str:
    """Return the name of the role that ``deploy`` creates for a function."""
    role = f"{name}-role"
    if len(role) <= ROLE_NAME_LIMIT:
        return role
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[:50]}-{digest}-role"


def qualified(wanted: Wanted, place: Place) -> tuple[str, dict[str, Any]]:
    """Return ARN and parameters of the resource with the URL: the alias, if any."""
    arn = place.function(wanted.name)
    if wanted.alias is None:
        return arn, {"FunctionName": wanted.name}
    return f"{arn}:{wanted.alias}", {
        "FunctionName": wanted.name,
        "Qualifier": wanted.alias,
    }


def role_policy_name(place: Place) -> str:
    """Return the name of a role's inline policy; a role is used in all regions."""
    return f"logs-{place.region}"


def settings_of(
    wanted: Wanted, function: FunctionState | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that a function has, and those that it is to have.

    Args:
        wanted: The wanted state.
        function: The current state; None: Lambda's defaults.
    """
    group = default_log_group(wanted.name)
    if function is None:
        before = read_settings({}, group)
        return before, next_settings(wanted.keys, frozenset(), before, group)
    before = {**function.settings, "logs.group": function.log_group}
    recorded = recorded_keys(function.tags)
    return before, next_settings(wanted.keys, recorded, before, group)


def role_policy(
    name: str,
    place: Place,
    settings: Mapping[str, Any] | None = None,
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the inline policy of a function's own role.

    It allows to write the function's log, and what its settings and event sources
    need; nothing else.
    """
    settings = settings or read_settings({}, default_log_group(name))
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": f"{place.log_group(settings['logs.group'])}:*",
            },
            *role_statements(settings, place.function(name), place.partition),
            *source_statements(sources),
        ],
    }


def check_name(name: str) -> None:
    """Reject a name that Lambda does not accept.

    Raises:
        UsageError: Lambda does not accept the name.
    """
    if not FUNCTION_NAME.fullmatch(name):
        raise UsageError(
            f"Cannot use the name {name!r}: Lambda accepts 1 to 64 letters, digits, - "
            "and _; give another one with --name"
        )


def check_wanted(wanted: Wanted, region: str) -> None:
    """Reject values that AWS does not accept, before any call is made.

    Raises:
        UsageError: AWS does not accept a value.
    """
    check_name(wanted.name)
    if wanted.runtime not in RUNTIMES:
        raise UsageError(
            f"Cannot use the runtime {wanted.runtime!r}: Deno runs on "
            f"{', '.join(RUNTIMES)}"
        )
    is_managed = wanted.is_managed
    memory_max_mb = MANAGED_MEMORY_MAX_MB if is_managed else MEMORY_MAX_MB
    timeout_limit_s = MANAGED_TIMEOUT_LIMIT_S if is_managed else TIMEOUT_LIMIT_S
    for what, value, least, most, unit in (
        ("memory", wanted.memory_mb, MEMORY_MIN_MB, memory_max_mb, "MB"),
        ("timeout", wanted.timeout_s, 1, timeout_limit_s, "seconds"),
        ("storage", wanted.storage_mb, STORAGE_MIN_MB, STORAGE_MAX_MB, "MB"),
    ):
        if value is not None and not least <= value <= most:
            raise UsageError(
                f"Cannot use {what} {value}: Lambda accepts {least} to {most} {unit}"
            )
    if wanted.description is not None and len(wanted.description) > DESCRIPTION_LIMIT:
        raise UsageError(
            f"Cannot use the description: it has {len(wanted.description)} "
            f"characters, and Lambda accepts {DESCRIPTION_LIMIT}; shorten it"
        )
    if wanted.alias is not None and not ALIAS_NAME.fullmatch(wanted.alias):
        raise UsageError(
            f"Cannot use the alias {wanted.alias!r}: Lambda accepts 1 to 128 letters, "
            "digits, - and _, but not digits alone"
        )
    if (
        wanted.retention_days is not None
        and wanted.retention_days not in RETENTIONS_DAYS
    ):
        raise UsageError(
            f"Cannot keep logs for {wanted.retention_days} days: CloudWatch accepts "
            f"{', '.join(map(str, RETENTIONS_DAYS))}"
        )
    role = wanted.role
    if role is not None and not (ROLE_ARN.fullmatch(role) or ROLE_NAME.fullmatch(role)):
        raise UsageError(
            f"Cannot use the role {role!r}: it is neither a role name nor an ARN, "
            "such as arn:aws:iam::123456789012:role/name"
        )
    if wanted.bucket is not None and not BUCKET_NAME.fullmatch(wanted.bucket):
        raise UsageError(
            f"Cannot use the bucket {wanted.bucket!r}: S3 accepts 3 to 63 lowercase "
            "letters, digits, - and ., beginning and ending with a letter or digit"
        )
    problem = conflict(
        wanted.keys,
        runtime=wanted.runtime,
        memory_mb=wanted.memory_mb,
        storage_mb=wanted.storage_mb,
        alias=wanted.alias,
        url=wanted.url,
        has_layers=bool(wanted.layers),
    )
    if problem is not None:
        raise UsageError(f"Cannot deploy {wanted.name!r}: {problem}")
    _check_tags(wanted.tags)
    wrapper = wanted.variables.get(WRAPPER, WRAPPER_PATH)
    is_wrapped = wanted.runtime != OS_ONLY and not wanted.is_image
    if is_wrapped and wrapper != WRAPPER_PATH:
        raise UsageError(
            f"Cannot set {WRAPPER} to {wrapper!r}: on {wanted.runtime} it has to be "
            f"{WRAPPER_PATH}, which starts Deno; use --runtime {OS_ONLY}, where this "
            "variable can name a wrapper of your own"
        )
    _check_layer_arns(wanted.layers, region)


def _check_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > TAGS_LIMIT:
        raise UsageError(
            f"Cannot use {len(tags)} tags: AWS accepts {TAGS_LIMIT + 3}, and this tool "
            "needs three of them"
        )
    for name, value in tags.items():
        if name.lower().startswith("aws:"):
            raise UsageError("Cannot use tags that begin with aws: AWS reserves them")
        if not TAG_NAME.fullmatch(name) or not TAG_VALUE.fullmatch(value):
            raise UsageError(
                f"Cannot use the tag {name!r} with the value {value!r}: AWS accepts 1 "
                "to 128 characters for a name and 256 for a value: letters, digits, "
                "spaces and _ . : / = + - @"
            )


def _check_layer_arns(layers: tuple[str, ...], region: str) -> None:
    if len(layers) > LAYERS_LIMIT:
        raise UsageError(
            f"Cannot use {len(layers)} layers: Lambda accepts {LAYERS_LIMIT}"
        )
    for arn in layers:
        if not LAYER_ARN.fullmatch(arn):
            raise UsageError(
                f"Cannot use the layer {arn!r}: it is not the ARN of a layer version, "
                "such as arn:aws:lambda:eu-central-1:123456789012:layer:name:1"
            )
        there = arn.split(":")[3]
        if there != region:
            raise UsageError(
                f"Cannot use the layer {arn!r}: it is in {there}, and the function in "
                f"{region}; publish it there with `lambda-deno-spawn layer publish "
                f"--region {region}`"
            )

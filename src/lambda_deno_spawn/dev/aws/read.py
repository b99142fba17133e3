"""The current state of a function in AWS, and the plan that deletes it.

Knows which calls return the state that a plan starts from, and which resources are
deleted with a function. Does not know how a function is created or updated.
Specification: docs/deploy.md; Lambda API reference, GetFunction; "Lambda function
states".
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.events import (
    EventState,
    SourceMapping,
    check_sources,
    plan_removal,
    read_events,
)
from lambda_deno_spawn.dev.aws.image import read_repository
from lambda_deno_spawn.dev.aws.plan import (
    FUNCTION_SET_UP,
    Call,
    Change,
    Plan,
    Step,
    Wait,
)
from lambda_deno_spawn.dev.aws.publish import (
    base64_digest,
    find_version,
    newest_version,
)
from lambda_deno_spawn.dev.aws.role import role_statements
from lambda_deno_spawn.dev.aws.settings import former_alias, recorded_keys
from lambda_deno_spawn.dev.aws.wanted import (
    OUR_TAG,
    ROLE_POLICY_NAME,
    AliasState,
    Current,
    FormerState,
    FunctionState,
    ProvisionedState,
    RoleState,
    UrlState,
    check_name,
    default_log_group,
    normal_cors,
    own_role_name,
    qualified,
    role_policy_name,
    settings_of,
    with_removals,
)
from lambda_deno_spawn.dev.project.secrets import SECRETS_VARIABLE
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.dev.aws.plan import Place
    from lambda_deno_spawn.dev.aws.publish import LayerVersion, LayerZip
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.aws.wanted import Wanted

LATEST_PUBLISHED = "$LATEST.PUBLISHED"
# Texts of IAM about a role whose policies are deleted, but not yet in all of IAM.
STILL_HAS_POLICIES = (
    "must delete policies first",
    "must detach all policies first",
)


def read_current(aws: Aws, wanted: Wanted, built: Sequence[LayerZip]) -> Current:
    """Read all state that the plan for a function depends on.

    Args:
        aws: Region and account.
        wanted: The wanted state.
        built: Local layers that can be published.

    Raises:
        DeployError: AWS refused a call, or could not be reached.
    """
    function = settled_function(aws, wanted.name)
    wanted = with_removals(wanted, function)
    recorded = frozenset() if function is None else recorded_keys(function.tags)
    digest = base64_digest(wanted.package.sha256)
    is_zip = wanted.image is None
    if wanted.bucket and is_zip and (not function or function.code_sha256 != digest):
        _check_bucket(aws, wanted.bucket)
    has_events = function is not None and "events" in {*wanted.keys, *recorded}
    statements: tuple[Mapping[str, Any], ...] = ()
    if has_events or (function is not None and wanted.url is not None):
        statements = _read_policy(aws, wanted.name, wanted.alias)
    sources = wanted.keys.get("events", ())
    events = EventState()
    if has_events:
        events = read_events(aws, wanted.name, wanted.alias, statements, sources)
    check_sources(aws, sources, events)
    return Current(
        place=aws.place,
        function=function,
        alias=_read_alias(aws, wanted) if function and wanted.alias else None,
        url=_read_url(aws, wanted) if function and wanted.url is not None else None,
        role=_read_wanted_role(aws, wanted, function),
        log_retention_days=read_retention(aws, wanted.log_group),
        layers=_read_layers(aws, wanted),
        built={layer.name: layer for layer in built},
        statements=statements,
        former=_read_former(aws, wanted, function),
        events=events,
        own_role=_read_own_role(aws, wanted, function, recorded),
        provisioned=_read_provisioned(aws, wanted.name)
        if function and "provisioned_concurrency" in {*wanted.keys, *recorded}
        else {},
        published=_read_published(aws, wanted.name)
        if function and wanted.is_managed and wanted.alias is None
        else None,
        repository=read_repository(aws, wanted.image)
        if wanted.image is not None
        and not (function and function.has_image(wanted.image, wanted.arch))
        else None,
    )


def _check_bucket(aws: Aws, bucket: str) -> None:
    """Reject a bucket that Lambda cannot read from, before anything is made.

    Raises:
        DeployError: It does not exist, or is in another region.
    """
    arn = aws.place.bucket(bucket)
    given = {"Bucket": bucket, "ExpectedBucketOwner": aws.place.account}
    head = aws.find(Call("s3", "HeadBucket", arn, given))
    if head is None:
        raise DeployError(
            f"Cannot upload to the bucket {bucket!r}: it does not exist; create it, or "
            "leave out --bucket"
        )
    region = head.get("BucketRegion") or aws.region
    if region != aws.region:
        raise DeployError(
            f"Cannot upload to the bucket {bucket!r}: it is in {region}, and Lambda "
            f"reads packages of {aws.region} only from a bucket there; use another "
            "bucket, or leave out --bucket"
        )


def read_function(aws: Aws, name: str) -> FunctionState | None:
    """Return a function, None if it does not exist."""
    response = aws.find(_get_function(aws, name))
    if response is None:
        return None
    concurrency = response.get("Concurrency") or {}
    return FunctionState.from_response(
        response["Configuration"],
        response.get("Tags"),
        concurrency.get("ReservedConcurrentExecutions"),
        response.get("Code"),
    )


def settled_function(aws: Aws, name: str) -> FunctionState | None:
    """Return a function once no change is in progress; None if it does not exist."""
    call = _get_function(aws, name)
    response = aws.find(call)
    if response is None:
        return None
    configuration = response["Configuration"]
    for waiter, is_due in (
        (FUNCTION_SET_UP, configuration.get("State") == "Pending"),
        (
            "function_updated_v2",
            configuration.get("LastUpdateStatus") == "InProgress",
        ),
    ):
        if is_due:
            _wait_for_any_end(aws, Wait(waiter, call))
    return read_function(aws, name)


def _wait_for_any_end(aws: Aws, wait: Wait) -> None:
    """Wait until a change ends, even if it fails: the plan handles the outcome.

    Raises:
        AwsError: It did not end, or AWS did not say so: a plan for the state before
            it would be refused, or be wrong.
    """
    try:
        aws.wait(wait)
    except AwsError as error:
        if error.code == "Timeout" or error.is_passing:
            raise


def _get_function(aws: Aws, name: str) -> Call:
    arn = aws.place.function(name)
    return Call("lambda", "GetFunction", arn, {"FunctionName": name})


def _read_alias(aws: Aws, wanted: Wanted) -> AliasState | None:
    name = {"FunctionName": wanted.name}
    arn = f"{aws.place.function(wanted.name)}:{wanted.alias}"
    alias = aws.find(Call("lambda", "GetAlias", arn, {**name, "Name": wanted.alias}))
    if alias is None:
        return None
    version = alias["FunctionVersion"]
    there = {**name, "Qualifier": version}
    arn = f"{aws.place.function(wanted.name)}:{version}"
    response = aws.call(Call("lambda", "GetFunctionConfiguration", arn, there))
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights")
    return AliasState(
        version,
        FunctionState.from_response(response),
        bool(weights),
        alias.get("RevisionId") or "",
    )


def _read_url(aws: Aws, wanted: Wanted) -> UrlState | None:
    arn, parameters = qualified(wanted, aws.place)
    response = aws.find(Call("lambda", "GetFunctionUrlConfig", arn, parameters))
    if response is None:
        return None
    mode = response.get("InvokeMode") or "BUFFERED"
    cors = normal_cors(response.get("Cors") or {})
    return UrlState(response["FunctionUrl"], response["AuthType"], mode, cors)


def _read_provisioned(aws: Aws, name: str) -> Mapping[str, ProvisionedState]:
    """Return the provisioned concurrency of a function, by alias or version."""
    arn = aws.place.function(name)
    call = Call(
        "lambda", "ListProvisionedConcurrencyConfigs", arn, {"FunctionName": name}
    )
    found = {}
    for item in aws.items(call, "ProvisionedConcurrencyConfigs"):
        failure = None
        if item.get("Status") == "FAILED":
            failure = item.get("StatusReason") or "without a reason"
        qualifier = item["FunctionArn"].rpartition(":")[2]
        requested = int(item.get("RequestedProvisionedConcurrentExecutions") or 0)
        found[qualifier] = ProvisionedState(requested, failure)
    return found


def _read_published(aws: Aws, name: str) -> FunctionState | None:
    """Return the version that callers without a qualifier get on Managed Instances."""
    parameters = {"FunctionName": name, "Qualifier": LATEST_PUBLISHED}
    arn = f"{aws.place.function(name)}:{LATEST_PUBLISHED}"
    response = aws.find(Call("lambda", "GetFunctionConfiguration", arn, parameters))
    return None if response is None else FunctionState.from_response(response)


def _read_own_role(
    aws: Aws,
    wanted: Wanted,
    function: FunctionState | None,
    recorded: frozenset[str],
) -> RoleState | None:
    """Return the role that this tool created, if settings may change its policy."""
    name = own_role_name(wanted.name)
    if function is None or wanted.role is not None:
        return None
    if function.role != aws.place.role(name):
        return None
    _, after = settings_of(wanted, function)
    is_default = after["logs.group"] == default_log_group(wanted.name)
    needs = role_statements(after, "", "") or wanted.sources
    had = SECRETS_VARIABLE in function.variables
    has_secrets = had or SECRETS_VARIABLE in wanted.variables
    if is_default and not recorded and not needs and not has_secrets:
        return None
    role = read_role(aws, name)
    return role if role is not None and role.is_ours else None


def _read_former(
    aws: Aws, wanted: Wanted, function: FunctionState | None
) -> FormerState | None:
    """Return what the alias of the last deployment has, if it is another one now."""
    tags = {} if function is None else function.tags
    former = former_alias(tags, wanted.alias)
    if former is None:
        return None
    (alias,) = former
    policy = _read_policy(aws, wanted.name, alias)
    return FormerState(
        alias,
        _read_url(aws, dataclasses.replace(wanted, alias=alias)),
        policy,
        read_events(aws, wanted.name, alias, policy, ()),
    )


def _read_policy(
    aws: Aws, name: str, alias: str | None
) -> tuple[Mapping[str, Any], ...]:
    """Return the statements of the resource policy of a function or an alias."""
    arn, parameters = aws.place.function(name), {"FunctionName": name}
    if alias is not None:
        arn, parameters = f"{arn}:{alias}", {**parameters, "Qualifier": alias}
    response = aws.find(Call("lambda", "GetPolicy", arn, parameters))
    if response is None:
        return ()
    return tuple(json.loads(response["Policy"])["Statement"])


def _read_wanted_role(
    aws: Aws, wanted: Wanted, function: FunctionState | None
) -> RoleState | None:
    role = wanted.role
    if role is not None and role.startswith("arn:"):
        return RoleState(role)
    if role is not None:
        return read_role(aws, role)
    if function is not None:
        return None  # the function keeps its role
    return read_role(aws, own_role_name(wanted.name))


def read_role(aws: Aws, role: str) -> RoleState | None:
    """Return a role, None if it does not exist.

    Args:
        aws: Account of the role, and region of its inline policy.
        role: Name of the role.
    """
    arn = aws.place.role(role)
    response = aws.find(Call("iam", "GetRole", arn, {"RoleName": role}))
    if response is None:
        return None
    found = response["Role"]
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()}
    if tags.get(OUR_TAG[0]) != OUR_TAG[1]:
        return RoleState(found["Arn"])
    policy = {"RoleName": role, "PolicyName": role_policy_name(aws.place)}
    inline = aws.find(Call("iam", "GetRolePolicy", arn, policy))
    document = None if inline is None else inline["PolicyDocument"]
    return RoleState(found["Arn"], is_ours=True, policy=document)


def read_retention(aws: Aws, log_group: str) -> int | None:
    """Return for how many days a log group keeps its events.

    Returns:
        0: for ever; None: there is no such log group.
    """
    # The names of other log groups may begin with this name too.
    arn = aws.place.log_group("*")
    call = Call("logs", "DescribeLogGroups", arn, {"logGroupNamePrefix": log_group})
    for group in aws.items(call, "logGroups"):
        if group["logGroupName"] == log_group:
            return int(group.get("retentionInDays") or 0)
    return None


def _read_layers(aws: Aws, wanted: Wanted) -> Mapping[str, LayerVersion | None]:
    if not wanted.layers:
        return {name: newest_version(aws, name) for name in wanted.layer_names}
    found = {}
    for arn in wanted.layers:
        layer, _, version = arn.rpartition(":")
        found[arn] = find_version(aws, layer, int(version))
    return found


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The existing resources of a function to delete.

    Attributes:
        function: None: it does not exist.
        urls: Its function URLs.
        role: Name of the role that this tool created for it.
        role_policies: Names of the role's inline policies.
        attached: ARNs of the policies attached to the role.
        role_users: Other functions in this region that use the role; None: unknown.
        log_group: Name of the log group to delete; None: it does not exist, or stays.
        mappings: Queues and streams that this tool let it read.
        rules: Names of the rules of its schedules.
    """

    function: FunctionState | None
    urls: tuple[str, ...] = ()
    role: str | None = None
    role_policies: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()
    role_users: tuple[str, ...] | None = ()
    log_group: str | None = None
    mappings: tuple[SourceMapping, ...] = ()
    rules: tuple[str, ...] = ()


def read_leftovers(
    aws: Aws, name: str, *, keeps_role: bool, keeps_logs: bool
) -> Leftovers:
    """Read all resources that are deleted with a function."""
    check_name(name)
    function = read_function(aws, name)
    if function is not None:
        _refuse_foreign(name, function)
    urls = () if function is None else _read_urls(aws, name)
    mappings, rules = _read_leftover_events(aws, name, function)
    log_group = default_log_group(name)
    is_log_kept = keeps_logs or read_retention(aws, log_group) is None
    role = own_role_name(name)
    state = None if keeps_role else read_role(aws, role)
    if state is None or not state.is_ours:
        return Leftovers(
            function,
            urls,
            log_group=None if is_log_kept else log_group,
            mappings=mappings,
            rules=rules,
        )
    arn = aws.place.role(role)
    of_role = {"RoleName": role}
    inline = Call("iam", "ListRolePolicies", arn, of_role)
    attached = Call("iam", "ListAttachedRolePolicies", arn, of_role)
    return Leftovers(
        function,
        urls,
        role,
        tuple(aws.items(inline, "PolicyNames")),
        tuple(
            policy["PolicyArn"] for policy in aws.items(attached, "AttachedPolicies")
        ),
        _read_role_users(aws, state.arn, name),
        None if is_log_kept else log_group,
        mappings,
        rules,
    )


def _read_leftover_events(
    aws: Aws, name: str, function: FunctionState | None
) -> tuple[tuple[SourceMapping, ...], tuple[str, ...]]:
    """Return the mappings and the rules that this tool created for a function."""
    if function is None or "events" not in recorded_keys(function.tags):
        return (), ()
    given = {"FunctionName": name}
    listed = Call("lambda", "ListAliases", aws.place.function(name), given)
    mappings: dict[str, SourceMapping] = {}
    rules: set[str] = set()
    for alias in (None, *(item["Name"] for item in aws.items(listed, "Aliases"))):
        policy = _read_policy(aws, name, alias)
        state = read_events(aws, name, alias, policy, ())
        mappings |= {item.uuid: item for item in state.mappings if item.is_ours}
        rules |= state.rules | state.permitted
    return tuple(mappings.values()), tuple(sorted(rules))


def _refuse_foreign(name: str, function: FunctionState) -> None:
    """Reject deleting a function that this tool did not create.

    Raises:
        UsageError: The function does not use this runtime, or a stack owns it.
    """
    if function.stack is not None:
        raise UsageError(
            f"Cannot delete {name!r}: the CloudFormation stack {function.stack!r} owns "
            "it; delete it there"
        )
    if not function.is_ours:
        raise UsageError(
            f"Cannot delete {name!r}: it has neither the layers nor the wrapper nor "
            "the tag of this tool; delete it with AWS's tools if you are sure"
        )


def _read_role_users(aws: Aws, role_arn: str, name: str) -> tuple[str, ...] | None:
    """Return the other functions that use a role; None: no permission to list them."""
    try:
        return tuple(
            function["FunctionName"]
            for function in aws.items(Call("lambda", "ListFunctions", "*"), "Functions")
            if function.get("Role") == role_arn and function["FunctionName"] != name
        )
    except AwsError as error:
        if error.is_denied:
            return None
        raise


def _read_urls(aws: Aws, name: str) -> tuple[str, ...]:
    """Return all URLs of a function, including those of its aliases."""
    arn, parameters = aws.place.function(name), {"FunctionName": name}
    call = Call("lambda", "ListFunctionUrlConfigs", arn, parameters)
    try:
        return tuple(
            url["FunctionUrl"] for url in aws.items(call, "FunctionUrlConfigs")
        )
    except AwsError as error:
        if error.is_not_found:  # the function was deleted in the meantime
            return ()
        raise


def plan_delete(name: str, found: Leftovers, place: Place) -> Plan:
    """Plan the deletion of a function's resources.

    Raises:
        UsageError: There are none.
    """
    changes: list[Change] = []
    steps: list[Step] = []

    def remove(
        what: str, shown: str, service: str, operation: str, arn: str, **given: str
    ) -> None:
        changes.append(Change(what, shown, None, loses=True))
        retry_while = STILL_HAS_POLICIES if operation == "DeleteRole" else ()
        call = Call(service, operation, arn, given)
        steps.append(Step(call, retry_while=retry_while))

    arn = place.function(name)
    # Before the function: what is read meanwhile would go nowhere.
    for change, step in plan_removal(
        name, None, found.mappings, found.rules, place, keeps_policy=True
    ):
        if change is not None:
            changes.append(change)
        steps.append(step)
    if found.function is not None:
        # Lambda deletes versions, aliases and URLs with the function.
        changes += [Change("function url", url, None, loses=True) for url in found.urls]
        remove("function", arn, "lambda", "DeleteFunction", arn, FunctionName=name)
    notes = _plan_role_removal(found, place, remove)
    if found.function is not None and found.function.package_type == "Image":
        uri = found.function.image_uri or "it was made from"
        notes = (
            f"the image {uri} stays in ECR, and so does its repository; delete them "
            "there if no other function uses them",
            *notes,
        )
    if found.log_group is not None:
        group = found.log_group
        group_arn = place.log_group(group)
        remove(
            "log group", group, "logs", "DeleteLogGroup", group_arn, logGroupName=group
        )
    if not steps:
        left = f"; {'; '.join(notes)}" if notes else ""
        raise UsageError(
            f"Cannot delete {name!r} in {place.region}: there is no such function, "
            f"and nothing of it is left; check --region and --profile{left}"
        )
    return Plan(tuple(changes), tuple(steps), notes)


def _plan_role_removal(
    found: Leftovers, place: Place, remove: Callable[..., None]
) -> tuple[str, ...]:
    """Remove the role, or only its policy for this region, or neither.

    Returns:
        Notes on why the role stays; empty if it is removed.
    """
    if found.role is None:
        return ()
    role, arn = found.role, place.role(found.role)
    stays = f"the role {role} stays"
    if found.role_users is None:
        return (
            f"{stays}: these credentials may not list the functions that use it; "
            "allow lambda:ListFunctions and run the command again, or delete it "
            "yourself",
        )
    if found.role_users:
        return (f"{stays}: used by {', '.join(found.role_users)}",)
    ours = role_policy_name(place)
    if ours in found.role_policies:
        shown = f"{ours} of {role}"
        remove(
            "role policy", shown, "iam", "DeleteRolePolicy", arn,
            RoleName=role, PolicyName=ours,
        )  # fmt: skip
    others = [policy for policy in found.role_policies if policy != ours]
    regions = [match[1] for match in map(ROLE_POLICY_NAME.fullmatch, others) if match]
    if regions:
        return (f"{stays}: used by functions in {', '.join(regions)}",)
    # Policies that this tool did not add: the role may serve another purpose too.
    if foreign := [*others, *found.attached]:
        return (
            f"{stays}: it also has the policies {', '.join(foreign)}; delete it "
            "yourself if nothing else needs it",
        )
    remove("role", role, "iam", "DeleteRole", arn, RoleName=role)
    return ()

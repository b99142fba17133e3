"""The settings of a function that its configuration does not hold, and those for ever.

Knows how concurrency is reserved and provisioned, how the tag records which keys set
something, and which settings AWS accepts only when it creates a function. Does not call
AWS: the same states always give the same steps. Specification: docs/deploy.md,
"Settings from lambda.toml"; Lambda API reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.plan import Call, Change, ResultOf, Step, Wait
from lambda_deno_spawn.dev.aws.settings import (
    ALIAS_TAG,
    KEYS_TAG,
    SETTINGS,
    recorded_keys,
    shown,
    tags_to_record,
)
from lambda_deno_spawn.dev.project.aws_keys import CREATION_ONLY
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_deno_spawn.dev.aws.wanted import Current, FunctionState, Wanted

    Planned = tuple[Change | None, Step]

LATEST_PUBLISHED = "$LATEST.PUBLISHED"
# The key of each table whose presence AWS fixes when it creates the function.
FIXED = {
    "tenancy": "tenancy",
    "durable": "durable.timeout",
    "managed_instances": "managed_instances.capacity_provider",
}
# Texts of Lambda about a role whose policy is too new to be known in all of AWS.
NEW_POLICY = ("execution role does not have permissions",)


def check_creation_only(wanted: Wanted, function: FunctionState) -> None:
    """Reject settings that AWS accepts only when it creates a function.

    Raises:
        UsageError: The function exists without such a setting, or with another one.
    """
    recorded = recorded_keys(function.tags)
    for table in CREATION_ONLY:
        key = FIXED[table]
        setting = next(item for item in SETTINGS if item.key == key)
        there = function.settings[key]
        asked = wanted.keys.get(key)
        again = (
            f"delete it with `lambda-deno-spawn delete {wanted.name}` and deploy it "
            "again, or deploy to another --name"
        )
        if asked is not None and there is None:
            raise UsageError(
                f"Cannot set {key} of {wanted.name!r} to {shown(asked)}: AWS accepts "
                f"{table} only when it creates a function, and this one exists without "
                f"it; {again}"
            )
        if asked is None and there is not None and key in recorded:
            value = next(
                (str(name) for name, sent in setting.values.items() if sent == there),
                shown(there),
            )
            raise UsageError(
                f"Cannot remove {table} from {wanted.name!r}, which was created with "
                f"{key} = {value}: AWS never changes that; put the key back, or {again}"
            )


def plan_concurrency(wanted: Wanted, current: Current) -> Iterator[Planned]:
    """Yield the changes of the reserved concurrency, and their steps."""
    function = current.function
    before = None if function is None else function.reserved
    recorded = frozenset() if function is None else recorded_keys(function.tags)
    key = "reserved_concurrency"
    arn = current.place.function(wanted.name)
    name = {"FunctionName": wanted.name}
    after = wanted.keys.get(key)
    old = None if before is None else str(before)
    if after is not None and after != before:
        given = {**name, "ReservedConcurrentExecutions": after}
        call = Call("lambda", "PutFunctionConcurrency", arn, given)
        yield Change(key, old, str(after)), Step(call)
    elif after is None and key in recorded and before is not None:
        call = Call("lambda", "DeleteFunctionConcurrency", arn, name)
        yield Change(key, old, None), Step(call)


def plan_provisioned(wanted: Wanted, current: Current) -> Iterator[Planned]:
    """Yield the changes of the provisioned concurrency, and their steps."""
    function = current.function
    recorded = frozenset() if function is None else recorded_keys(function.tags)
    key = "provisioned_concurrency"
    after = wanted.keys.get(key)
    function_arn = current.place.function(wanted.name)
    for qualifier, state in sorted(current.provisioned.items()):
        if qualifier == wanted.alias and after is not None:
            continue
        if key in recorded:
            given = {"FunctionName": wanted.name, "Qualifier": qualifier}
            operation = "DeleteProvisionedConcurrencyConfig"
            call = Call("lambda", operation, f"{function_arn}:{qualifier}", given)
            what = f"{key} of {qualifier}"
            yield Change(what, str(state.requested), None), Step(call)
    if after is None:
        return
    there = current.provisioned.get(wanted.alias or "")
    if there is not None and there.requested == after and there.failure is None:
        return
    before = None if there is None else str(there.requested)
    if there is not None and there.failure is not None:
        before = f"{before}, failed: {there.failure}"
    wanted_config = {
        "FunctionName": wanted.name,
        "Qualifier": wanted.alias,
        "ProvisionedConcurrentExecutions": after,
    }
    operation = "PutProvisionedConcurrencyConfig"
    call = Call("lambda", operation, f"{function_arn}:{wanted.alias}", wanted_config)
    yield Change(f"{key} of {wanted.alias}", before, str(after)), Step(call)


def plan_published(
    wanted: Wanted, current: Current, digest: str | ResultOf, *, is_changed: bool
) -> Iterator[Planned]:
    """Yield the publication of what callers without a qualifier get, and its steps.

    On Managed Instances a function cannot be invoked before it is published.
    """
    function, published = current.function, current.published
    if function and published and not is_changed and published.runs_as(function):
        return
    arn = current.place.function(wanted.name)
    given = {
        "FunctionName": wanted.name,
        "CodeSha256": digest,
        "PublishTo": "LATEST_PUBLISHED",
    }
    before = None if published is None else "published before"
    change = Change(f"version {LATEST_PUBLISHED}", before, "published")
    yield change, Step(Call("lambda", "PublishVersion", arn, given), key="published")
    there = {"FunctionName": wanted.name, "Qualifier": LATEST_PUBLISHED}
    active = Call(
        "lambda", "GetFunctionConfiguration", f"{arn}:{LATEST_PUBLISHED}", there
    )
    is_active = (ResultOf("published", "State"), "Active")
    yield None, Step(Wait("published_version_active", active, unless=is_active))


def plan_record(wanted: Wanted, current: Current) -> Iterator[Planned]:
    """Yield the changes of the tags that record the keys, and their steps.

    They come last: a run that is interrupted before resets the same settings again.
    """
    function = current.function
    if function is None:
        return  # CreateFunction sends the tags
    after = tags_to_record(wanted.recorded, wanted.alias)
    arn = current.place.function(wanted.name)
    for name in (KEYS_TAG, ALIAS_TAG):
        old, new = function.tags.get(name), after.get(name)
        if old == new:
            continue
        if new is not None:
            given: Mapping[str, Any] = {"Resource": arn, "Tags": {name: new}}
            call = Call("lambda", "TagResource", arn, given)
        else:
            given = {"Resource": arn, "TagKeys": [name]}
            call = Call("lambda", "UntagResource", arn, given)
        yield Change(f"tag {name}", old, new), Step(call)

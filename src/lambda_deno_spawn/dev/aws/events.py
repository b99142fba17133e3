"""Event sources of a function: queues and streams that Lambda reads, and schedules.

Knows how they are read, created, changed and deleted, and which of them this tool has
created. Does not know how the function itself is deployed. Specification:
docs/deploy.md, "Event sources"; decision 0042; Lambda API reference,
CreateEventSourceMapping; EventBridge API reference, PutRule and PutTargets.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.plan import Call, Change, Step
from lambda_deno_spawn.dev.project.aws_keys import EventSource
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_deno_spawn.dev.aws.plan import Place
    from lambda_deno_spawn.dev.aws.session import Aws

OUR_TAG = ("created-by", "lambda-deno-spawn")
# The name of a rule is also the id of the statement that lets it invoke the function.
RULE_NAME_START = 46  # of 64 characters; the rest is a digest
DEFAULT_BATCH = {"sqs": 10, "kinesis": 100, "dynamodb": 100}
# How to ask whether a source exists: service, operation, its parameter; and its name.
ASKED = {
    "sqs": ("sqs", "GetQueueUrl", "QueueName", "queue"),
    "kinesis": ("kinesis", "DescribeStreamSummary", "StreamARN", "stream"),
    "dynamodb": ("dynamodbstreams", "DescribeStream", "StreamArn",
                 "such stream of the table"),
}  # fmt: skip
ON_STATES = {"Creating", "Enabled", "Enabling", "Updating"}


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """An event source mapping, as Lambda describes it.

    Attributes:
        source: ARN of the queue or stream.
        function_arn: The function or the alias that gets the events.
        settings: In the form of the API, as ``mapping_settings`` returns them.
        is_ours: This tool created it.
    """

    uuid: str
    source: str
    function_arn: str
    settings: Mapping[str, Any]
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class EventState:
    """The event sources that a function has.

    Attributes:
        mappings: Queues and streams.
        rules: Names of our rules that have the function as their target.
        permitted: Names of our rules that may invoke the function.
    """

    mappings: tuple[SourceMapping, ...] = ()
    rules: frozenset[str] = frozenset()
    permitted: frozenset[str] = frozenset()


def rule_name(name: str, alias: str | None, source: EventSource) -> str:
    """Return the name of a schedule's rule, which says all that the rule does."""
    content = [name, alias, source.schedule, source.input, source.enabled]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return f"{name[:RULE_NAME_START]}-{digest}"


def read_events(
    aws: Aws,
    name: str,
    alias: str | None,
    statements: Sequence[Mapping[str, Any]],
    wanted: Sequence[EventSource],
) -> EventState:
    """Read the event sources of a function and of an alias.

    Args:
        aws: Region and account.
        name: Name of the function.
        alias: The alias that gets events, if any.
        statements: Resource policy of the function or the alias.
        wanted: The wanted sources: whether others are ours is asked for only then.
    """
    sources = {item.source for item in wanted}
    found: dict[str, SourceMapping] = {}
    for target in (name, *([f"{name}:{alias}"] if alias else [])):
        arn = aws.place.function(target)
        call = Call("lambda", "ListEventSourceMappings", arn, {"FunctionName": target})
        for item in _found(aws, call, "EventSourceMappings"):
            if "EventSourceArn" not in item or item.get("State") == "Deleting":
                continue
            source = item["EventSourceArn"]
            found[item["UUID"]] = SourceMapping(
                item["UUID"],
                source,
                item.get("FunctionArn") or arn,
                _read_mapping(item),
                source not in sources and _is_ours(aws, item),
            )
    arn = aws.place.function(name if alias is None else f"{name}:{alias}")
    pattern = re.compile(rf"{re.escape(name[:RULE_NAME_START])}-[0-9a-f]{{16}}")
    by_target = Call("events", "ListRuleNamesByTarget", arn, {"TargetArn": arn})
    rules = _found(aws, by_target, "RuleNames")
    sids = [str(statement.get("Sid")) for statement in statements]
    return EventState(
        tuple(found.values()),
        frozenset(filter(pattern.fullmatch, rules)),
        frozenset(filter(pattern.fullmatch, sids)),
    )


def _found(aws: Aws, call: Call, items: str) -> list[Any]:
    """Return a list, empty if what it is about does not exist, such as a new alias."""
    try:
        return list(aws.items(call, items))
    except AwsError as error:
        if error.is_not_found:
            return []
        raise


def _is_ours(aws: Aws, item: Mapping[str, Any]) -> bool:
    arn = item.get("EventSourceMappingArn")
    if not arn:
        return False
    try:
        found = aws.call(Call("lambda", "ListTags", arn, {"Resource": arn}))
    except AwsError as error:
        if error.is_not_found:
            return False
        raise
    return bool((found.get("Tags") or {}).get(OUR_TAG[0]) == OUR_TAG[1])


def _read_mapping(item: Mapping[str, Any]) -> dict[str, Any]:
    filters = (item.get("FilterCriteria") or {}).get("Filters") or []
    scaling = item.get("ScalingConfig") or {}
    return {
        "Enabled": item.get("State", "Enabled") in ON_STATES,
        "BatchSize": item.get("BatchSize"),
        "MaximumBatchingWindowInSeconds": item.get("MaximumBatchingWindowInSeconds")
        or 0,
        "FunctionResponseTypes": list(item.get("FunctionResponseTypes") or []),
        "FilterCriteria": {"Filters": filters} if filters else {},
        "ScalingConfig": {
            name: value for name, value in scaling.items() if value is not None
        },
    }


def check_sources(aws: Aws, wanted: Sequence[EventSource], state: EventState) -> None:
    """Reject a new queue or stream that does not exist, before anything is made.

    Those of other accounts and regions are left to Lambda, and so are those that these
    credentials may not ask about: SQS does not tell them from missing ones.

    Raises:
        DeployError: One of them does not exist.
    """
    there = {mapping.source for mapping in state.mappings}
    for arn in (item.source for item in wanted):
        if arn is None or arn in there:
            continue
        _, _, service, region, account, name = arn.split(":", 5)
        if (region, account) != (aws.region, aws.place.account):
            continue
        client, operation, parameter, kind = ASKED[service]
        shown = name.split("/")[1] if "/" in name else name
        given = name if service == "sqs" else arn
        try:
            found = aws.find(Call(client, operation, arn, {parameter: given}))
        except AwsError:
            continue
        if found is None:
            raise DeployError(
                f"Cannot read events of {arn}: there is no {kind} {shown!r} in "
                f"{region}; create it, or correct `source` in lambda.toml"
            )


def mapping_settings(source: EventSource) -> dict[str, Any]:
    """Return the wanted settings of a mapping, Lambda's defaults included."""
    service = str(source.source).split(":")[2]
    concurrency = source.max_concurrency
    return {
        "Enabled": source.enabled,
        "BatchSize": source.batch_size or DEFAULT_BATCH[service],
        "MaximumBatchingWindowInSeconds": source.batch_window or 0,
        "FunctionResponseTypes": ["ReportBatchItemFailures"]
        if source.report_failures
        else [],
        "FilterCriteria": {"Filters": [{"Pattern": text} for text in source.filters]}
        if source.filters
        else {},
        "ScalingConfig": {}
        if concurrency is None
        else {"MaximumConcurrency": concurrency},
    }


def plan_events(
    name: str,
    alias: str | None,
    wanted: Sequence[EventSource],
    state: EventState,
    place: Place,
    retry_while: tuple[str, ...],
    *,
    removes: bool,
) -> Iterator[tuple[Change | None, Step]]:
    """Yield the changes from the present event sources to the wanted ones.

    Args:
        name: Name of the function.
        alias: The alias that gets the events; None: the function.
        wanted: The wanted sources.
        state: The present ones.
        place: Region and account.
        retry_while: Texts of AWS about a role that is too new.
        removes: Delete what this tool has created and what is not wanted.
    """
    target = name if alias is None else f"{name}:{alias}"
    arn = place.function(target)
    there = {mapping.source: mapping for mapping in state.mappings}
    for source in wanted:
        if source.source is None:
            continue
        settings = mapping_settings(source)
        mapping = there.get(source.source)
        what = f"events of {source.source}"
        if mapping is None:
            # Lambda's defaults are not sent: some are refused for some sources.
            plain = mapping_settings(EventSource(source=source.source))
            sent = {
                key: value for key, value in settings.items() if value != plain[key]
            }
            given = {
                "EventSourceArn": source.source,
                "FunctionName": target,
                **sent,
                "Tags": {OUR_TAG[0]: OUR_TAG[1]},
            }
            if source.start is not None:
                given["StartingPosition"] = source.start
            call = Call("lambda", "CreateEventSourceMapping", arn, given)
            yield (
                Change(what, None, json.dumps(sent) if sent else "read"),
                Step(call, retry_while=retry_while),
            )
            continue
        changed = {
            key: value
            for key, value in settings.items()
            if mapping.settings[key] != value
        }
        before = {key: mapping.settings[key] for key in changed}
        if mapping.function_arn != arn:
            changed["FunctionName"] = target
            before["FunctionName"] = mapping.function_arn
        if changed:
            resource = place.event_source_mapping(mapping.uuid)
            given = {"UUID": mapping.uuid, **changed}
            call = Call("lambda", "UpdateEventSourceMapping", resource, given)
            shown = Change(what, json.dumps(before), json.dumps(changed))
            yield shown, Step(call, retry_while=retry_while)
    names = {}
    for source in wanted:
        if source.schedule is not None:
            names[rule_name(name, alias, source)] = source
    for rule, source in names.items():
        yield from _plan_rule(rule, source, target, arn, state, place)
    if removes:
        kept = {source.source for source in wanted}
        gone = [item for item in state.mappings if item.source not in kept]
        rules = sorted((state.rules | state.permitted) - set(names))
        added = set(names) - state.rules
        ours = [item for item in gone if item.is_ours]
        # Another rule may be the same schedule with another expression.
        loses = bool(ours) or len(rules) > len(added)
        yield from plan_removal(name, alias, ours, rules, place, loses=loses)


def _plan_rule(
    rule: str,
    source: EventSource,
    target: str,
    arn: str,
    state: EventState,
    place: Place,
) -> Iterator[tuple[Change | None, Step]]:
    if rule in state.rules and rule in state.permitted:
        return
    rule_arn = place.rule(rule)
    given = {
        "Name": rule,
        "ScheduleExpression": source.schedule,
        "State": "ENABLED" if source.enabled else "DISABLED",
        "Description": f"Schedule of the function {target}",
        "Tags": [{"Key": OUR_TAG[0], "Value": OUR_TAG[1]}],
    }
    yield (
        Change(f"schedule {rule}", None, str(source.schedule)),
        Step(Call("events", "PutRule", rule_arn, given)),
    )
    if rule not in state.permitted:
        name, _, alias = target.partition(":")
        permission = {
            "FunctionName": name,
            **({"Qualifier": alias} if alias else {}),
            "StatementId": rule,
            "Action": "lambda:InvokeFunction",
            "Principal": "events.amazonaws.com",
            "SourceArn": rule_arn,
        }
        yield None, Step(Call("lambda", "AddPermission", arn, permission))
    entry = {"Id": "function", "Arn": arn}
    if source.input is not None:
        entry["Input"] = source.input
    # Last: a rule with its target is complete.
    targets = {"Rule": rule, "Targets": [entry]}
    yield None, Step(Call("events", "PutTargets", rule_arn, targets))


def plan_removal(
    name: str,
    alias: str | None,
    mappings: Sequence[SourceMapping],
    rules: Sequence[str],
    place: Place,
    *,
    keeps_policy: bool = False,
    loses: bool = True,
) -> Iterator[tuple[Change | None, Step]]:
    """Yield the steps that delete event sources which this tool has created.

    Args:
        name: Name of the function.
        alias: The alias that gets the events; None: the function.
        mappings: Queues and streams.
        rules: Names of the schedules' rules.
        place: Region and account.
        keeps_policy: The function is deleted too, and its policy with it.
        loses: They are not replaced by others.
    """
    for mapping in mappings:
        what = f"events of {mapping.source}"
        resource = place.event_source_mapping(mapping.uuid)
        call = Call(
            "lambda", "DeleteEventSourceMapping", resource, {"UUID": mapping.uuid}
        )
        yield Change(what, "read", None, loses), Step(call)
    for rule in rules:
        arn = place.rule(rule)
        targets = Call(
            "events", "RemoveTargets", arn, {"Rule": rule, "Ids": ["function"]}
        )
        yield Change(f"schedule {rule}", "runs", None, loses), Step(targets)
        yield None, Step(Call("events", "DeleteRule", arn, {"Name": rule}))
        if not keeps_policy:
            target = name if alias is None else f"{name}:{alias}"
            permission = {
                "FunctionName": name,
                **({"Qualifier": alias} if alias else {}),
                "StatementId": rule,
            }
            function = place.function(target)
            # Last, so that a rule is found until all of it is gone.
            yield None, Step(Call("lambda", "RemovePermission", function, permission))


def source_statements(sources: Sequence[str]) -> list[dict[str, Any]]:
    """Return the statements of a role that lets Lambda read queues and streams."""
    found = []
    for sid, service, actions in (
        ("Queues", "sqs",
         ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]),
        ("Streams", "kinesis",
         ["kinesis:DescribeStream", "kinesis:DescribeStreamSummary",
          "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"]),
        ("Tables", "dynamodb",
         ["dynamodb:DescribeStream", "dynamodb:GetRecords",
          "dynamodb:GetShardIterator"]),
    ):  # fmt: skip
        arns = sorted({arn for arn in sources if arn.split(":")[2] == service})
        if arns:
            found.append(
                {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": arns}
            )
    if any(arn.split(":")[2] == "dynamodb" for arn in sources):
        streams = {"Sid": "StreamsOfTables", "Effect": "Allow",
                   "Action": ["dynamodb:ListStreams"], "Resource": "*"}  # fmt: skip
        found.append(streams)
    return found

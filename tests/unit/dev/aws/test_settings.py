"""Settings by key: against botocore's model of Lambda, and what becomes of them."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from lambda_deno_spawn.dev.aws.events import (
    EventState,
    SourceMapping,
    mapping_settings,
    plan_events,
)
from lambda_deno_spawn.dev.aws.plan import Place
from lambda_deno_spawn.dev.aws.role import OUR_SIDS, role_statements
from lambda_deno_spawn.dev.aws.settings import (
    KEYS_TAG,
    SETTINGS,
    changed_parameters,
    keys_to_record,
    next_settings,
    read_settings,
    recorded_keys,
)
from lambda_deno_spawn.dev.project import aws_keys
from lambda_deno_spawn.dev.project.aws_keys import EventSource

PLACE = Place("eu-central-1", "123456789012")
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:orders"
GROUP = "/aws/lambda/fn"


@pytest.fixture(scope="module")
def model() -> Any:
    return botocore.session.Session().get_service_model("lambda")


def shape_of(model: Any, operation: str, path: tuple[str, ...]) -> Any:
    shape = model.operation_model(operation).input_shape
    for name in path:
        shape = shape.members[name]
        if shape.type_name == "list":
            shape = shape.member
    return shape


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_each_setting_is_in_lambda_s_model(model: Any, setting: Any) -> None:
    created = shape_of(model, "CreateFunction", setting.path)
    if setting.values:
        assert set(setting.values.values()) <= set(created.enum)
    if setting.parameter == "TenancyConfig":  # only when the function is created
        updates = model.operation_model("UpdateFunctionConfiguration").input_shape
        assert "TenancyConfig" not in updates.members
    else:
        updated = shape_of(model, "UpdateFunctionConfiguration", setting.path)
        assert updated.type_name == created.type_name


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (("LoggingConfig", "ApplicationLogLevel"), "enum", aws_keys.LOG_LEVELS),
        (("LoggingConfig", "SystemLogLevel"), "enum", aws_keys.SYSTEM_LOG_LEVELS),
        (("DurableConfig", "ExecutionTimeout"), "max", aws_keys.DURABLE_LIMIT_S),
        (("DurableConfig", "RetentionPeriodInDays"), "max",
         aws_keys.DURABLE_RETENTION_DAYS),
        (("MemorySize",), "max", aws_keys.MANAGED_MEMORY_MAX_MB),
        (("Timeout",), "max", aws_keys.MANAGED_TIMEOUT_LIMIT_S),
        (("CapacityProviderConfig", "LambdaManagedInstancesCapacityProviderConfig",
          "PerExecutionEnvironmentMaxConcurrency"), "max",
         aws_keys.MANAGED_CONCURRENCY),
    ],
)  # fmt: skip
def test_limits_are_those_of_lambda_s_model(
    model: Any, path: tuple[str, ...], name: str, value: Any
) -> None:
    found = shape_of(model, "CreateFunction", path).metadata[name]
    assert (tuple(found) if name == "enum" else found) == value


def test_limits_of_cors_and_event_sources_are_those_of_the_model(model: Any) -> None:
    cors = shape_of(model, "CreateFunctionUrlConfig", ("Cors",)).members
    assert cors["MaxAge"].metadata["max"] == aws_keys.CORS_MAX_AGE_S
    assert cors["AllowOrigins"].metadata["max"] == aws_keys.CORS_LIMIT
    sources = model.operation_model("CreateEventSourceMapping").input_shape.members
    assert sources["BatchSize"].metadata["max"] == aws_keys.BATCH_LIMIT
    window = sources["MaximumBatchingWindowInSeconds"].metadata
    assert window["max"] == aws_keys.BATCH_WINDOW_S
    scaling = sources["ScalingConfig"].members["MaximumConcurrency"].metadata
    assert (scaling["min"], scaling["max"]) == (2, 1000)


def test_the_tag_of_all_keys_fits_and_is_read_back() -> None:
    """AWS accepts 256 characters; the keys below exclude the others."""
    names = {setting.key for setting in SETTINGS} | {
        "reserved_concurrency", "provisioned_concurrency", "url.auth", "events",
        "image",
    }  # fmt: skip
    excluded = {name for name in names if name.startswith("managed_instances.")}
    for given in (names - excluded, {*excluded, "logs.level", "url.auth", "events"}):
        tag = keys_to_record(given)
        assert len(tag) <= 256
        expected = {"url" if name == "url.auth" else name for name in given}
        assert recorded_keys({KEYS_TAG: tag}) == expected
    assert keys_to_record(["alias", "bucket", "logs.retention"]) == ""
    assert recorded_keys({}) == frozenset()


def test_a_level_makes_the_log_json_and_goes_with_the_format() -> None:
    nothing = read_settings({}, GROUP)
    after = next_settings({"logs.level": "DEBUG"}, frozenset(), nothing, GROUP)
    assert changed_parameters(nothing, after) == {
        "LoggingConfig": {
            "LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": GROUP,
        }
    }  # fmt: skip
    text = next_settings({"logs.format": "text"}, frozenset(), after, GROUP)
    assert changed_parameters(after, text) == {
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": GROUP}
    }
    # Without the level alone, Lambda's own level for JSON counts.
    kept = {"logs.format": "json"}
    reset = next_settings(kept, frozenset({"logs.level"}), after, GROUP)
    assert reset["logs.level"] == "INFO"


def test_ipv6_is_sent_only_if_it_is_or_was_on() -> None:
    nothing = read_settings({}, GROUP)
    keys = {"vpc.subnets": ("subnet-1",), "vpc.security_groups": ("sg-1",)}
    plain = next_settings(keys, frozenset(), nothing, GROUP)
    (config,) = changed_parameters(nothing, plain).values()
    assert config == {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    dual = next_settings({**keys, "vpc.ipv6": True}, frozenset(), nothing, GROUP)
    back = next_settings(keys, frozenset({"vpc.ipv6"}), dual, GROUP)
    (config,) = changed_parameters(dual, back).values()
    assert config["Ipv6AllowedForDualStack"] is False


def test_lambda_s_description_of_a_plain_function_is_its_defaults() -> None:
    described = {
        "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "",
                      "Ipv6AllowedForDualStack": False},
        "TracingConfig": {"Mode": "PassThrough"},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": GROUP},
        "EphemeralStorage": {"Size": 512},
    }  # fmt: skip
    assert read_settings(described, GROUP) == read_settings({}, GROUP)


def test_every_statement_of_a_role_has_a_name_that_is_known_later() -> None:
    settings = {
        **read_settings({}, GROUP),
        "vpc.subnets": ["subnet-1"],
        "tracing": "Active",
        "dead_letter": "arn:aws:sns:eu-central-1:123456789012:failed",
        "file_system.arn": "arn:aws:elasticfilesystem:eu-central-1:1:access-point/a",
        "durable.timeout": 60,
    }
    found = role_statements(settings, PLACE.function("fn"), "aws")
    assert {statement["Sid"] for statement in found} <= {*OUR_SIDS}
    assert len(found) == 6
    assert "sns:Publish" in str(found)
    # EC2 for Lambda, and not for the function's own code.
    (denied,) = [item for item in found if item["Effect"] == "Deny"]
    source = denied["Condition"]["ArnEquals"]["lambda:SourceFunctionArn"]
    assert source == PLACE.function("fn")


def test_a_mapping_moves_to_the_alias_and_is_not_made_twice() -> None:
    """moto replaces an alias by its version, so this is tested as a plan."""
    source = EventSource(source=QUEUE)
    there = SourceMapping("u", QUEUE, PLACE.function("fn"), mapping_settings(source))
    state = EventState((there,))
    ((change, step),) = plan_events(
        "fn", "live", [source], state, PLACE, (), removes=False
    )
    assert change is not None
    call = step.action
    assert getattr(call, "parameters", None) == {"UUID": "u", "FunctionName": "fn:live"}
    moved = EventState(
        (SourceMapping("u", QUEUE, PLACE.function("fn:live"), there.settings),)
    )
    assert not list(
        plan_events("fn", "live", [source], moved, PLACE, (), removes=False)
    )
    # A source of another tool stays, whatever the file says.
    assert not list(plan_events("fn", None, [], state, PLACE, (), removes=True))

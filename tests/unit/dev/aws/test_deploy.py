"""Plans from the current to the wanted state, without AWS."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambda_deno_spawn.dev.aws.deploy import merged_variables, plan_deploy
from lambda_deno_spawn.dev.aws.events import (
    EventState,
    SourceMapping,
    mapping_settings,
)
from lambda_deno_spawn.dev.aws.plan import Call, Only, Place, Plan, Upload, Wait
from lambda_deno_spawn.dev.aws.publish import LayerVersion, LayerZip, plan_publish
from lambda_deno_spawn.dev.aws.read import Leftovers, plan_delete
from lambda_deno_spawn.dev.aws.remote_logs import filter_pattern, parse_since
from lambda_deno_spawn.dev.aws.wanted import (
    AliasState,
    Current,
    FormerState,
    FunctionState,
    PackageZip,
    RoleState,
    UrlState,
    Wanted,
    check_wanted,
    own_role_name,
    role_policy,
)
from lambda_deno_spawn.dev.project.aws_keys import EventSource
from lambda_deno_spawn.errors import DeployError, UsageError

PLACE = Place("eu-central-1", "123456789012")
DIGEST = "ab" * 32
CODE = base64.b64encode(bytes.fromhex(DIGEST)).decode()
PACKAGE = PackageZip(Path("fn.zip"), DIGEST, 1000)
WRAPPER = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/lambda-deno-spawn"}
RUNTIMES = ("python3.12", "python3.13", "provided.al2023")


def layer_version(kind: str, version: int = 1, **fields: Any) -> LayerVersion:
    name = f"lambda-deno-spawn-{kind}-x86_64"
    arn = f"arn:aws:lambda:eu-central-1:123456789012:layer:{name}:{version}"
    values: dict[str, Any] = {
        "archs": ("x86_64",), "runtimes": RUNTIMES, "code_sha256": "", "created": "",
        "description": "", **fields,
    }  # fmt: skip
    return LayerVersion(name, arn, version, **values)


def layer_zip(kind: str, zipped_bytes: int = 10) -> LayerZip:
    return LayerZip(
        name=f"lambda-deno-spawn-{kind}-x86_64",
        arch="x86_64",
        path=Path(f"{kind}.zip"),
        sha256=DIGEST,
        zipped_bytes=zipped_bytes,
        runtimes=RUNTIMES,
        description="ours",
        licenses="MIT",
    )


LAYERS: dict[str, LayerVersion | None] = {
    version.name: version for version in map(layer_version, ("deno", "runtime"))
}
ARNS = tuple(version.arn for version in LAYERS.values() if version)
WANTED = Wanted("fn", "function.handler", "python3.13", "x86_64", PACKAGE)
FUNCTION = FunctionState(
    arn=PLACE.function("fn"),
    runtime="python3.13",
    handler="function.handler",
    role=PLACE.role("fn-role"),
    memory_mb=128,
    timeout_s=3,
    storage_mb=512,
    description="",
    arch="x86_64",
    layers=ARNS,
    variables=WRAPPER,
    code_sha256=CODE,
    log_group="/aws/lambda/fn",
)
NOTHING = Current(PLACE, layers=LAYERS)
THERE = Current(PLACE, function=FUNCTION, log_retention_days=30, layers=LAYERS)


def calls(plan: Plan) -> list[str]:
    return [
        str(step.action).split(" ")[0]
        for step in plan.steps
        if not isinstance(step.action, Wait)
    ]


def parameters(plan: Plan, operation: str) -> Any:
    return next(
        step.action.parameters
        for step in plan.steps
        if isinstance(step.action, Call) and step.action.operation == operation
    )


def changes(plan: Plan) -> list[str]:
    return [str(change) for change in plan.changes]


def test_a_new_function_gets_role_log_group_and_code_in_this_order() -> None:
    plan = plan_deploy(WANTED, NOTHING)
    assert calls(plan) == [
        "iam:CreateRole", "iam:PutRolePolicy", "logs:CreateLogGroup",
        "logs:PutRetentionPolicy", "lambda:CreateFunction",
    ]  # fmt: skip
    created = parameters(plan, "CreateFunction")
    assert created["Runtime"] == "python3.13"
    assert created["Layers"] == list(ARNS)
    assert created["Environment"] == {"Variables": WRAPPER}
    assert created["MemorySize"] == 512
    assert created["Architectures"] == ["x86_64"]
    assert created["Tags"] == {"created-by": "lambda-deno-spawn"}
    assert "EphemeralStorage" not in created


def test_the_role_may_write_this_function_s_log_and_nothing_else() -> None:
    plan = plan_deploy(WANTED, NOTHING)
    policy = json.loads(parameters(plan, "PutRolePolicy")["PolicyDocument"])
    assert policy["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": "arn:aws:logs:eu-central-1:123456789012:log-group:"
            "/aws/lambda/fn:*",
        }
    ]
    trust = json.loads(parameters(plan, "CreateRole")["AssumeRolePolicyDocument"])
    assert trust["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_a_new_role_may_not_be_known_to_all_of_iam_yet() -> None:
    """IAM refuses its policy then, as moto does for a role that does not exist."""
    refused = "The role with name fn-role cannot be found."

    def retries(role: RoleState | None) -> list[bool]:
        plan = plan_deploy(WANTED, replace(NOTHING, role=role))
        return [
            any(text in refused for text in step.retry_while)
            for step in plan.steps
            if isinstance(step.action, Call)
            and step.action.operation == "PutRolePolicy"
        ]

    assert retries(None) == [True]
    assert retries(RoleState(PLACE.role("fn-role"), is_ours=True)) == [False]


def test_a_role_that_an_interrupted_run_left_is_used() -> None:
    arn = PLACE.role("fn-role")
    left = RoleState(arn, is_ours=True)
    assert calls(plan_deploy(WANTED, replace(NOTHING, role=left)))[:2] == [
        "iam:PutRolePolicy", "logs:CreateLogGroup",
    ]  # fmt: skip
    done = replace(left, policy=role_policy("fn", PLACE))
    assert calls(plan_deploy(WANTED, replace(NOTHING, role=done)))[0] == (
        "logs:CreateLogGroup"
    )


def test_a_changed_role_policy_is_shown_before_it_is_replaced() -> None:
    role = RoleState(PLACE.role("fn-role"), is_ours=True, policy={"Statement": []})
    plan = plan_deploy(WANTED, replace(NOTHING, role=role))
    assert plan.loses
    (change,) = [item for item in plan.changes if item.what.startswith("role policy")]
    assert change.what == "role policy logs-eu-central-1"
    assert change.before == '{"Statement": []}'
    assert "logs:PutLogEvents" in str(change.after)
    missing = plan_deploy(WANTED, replace(NOTHING, role=replace(role, policy=None)))
    assert not missing.loses


def test_a_role_with_that_name_that_is_not_ours_is_not_touched() -> None:
    current = replace(NOTHING, role=RoleState(PLACE.role("fn-role")))
    with pytest.raises(DeployError, match="use it with --role fn-role"):
        plan_deploy(WANTED, current)


def test_a_given_role_is_not_created_and_its_refusal_not_retried() -> None:
    role = PLACE.role("mine")
    current = replace(NOTHING, role=RoleState(role))
    plan = plan_deploy(replace(WANTED, role="mine"), current)
    assert "iam:CreateRole" not in calls(plan)
    assert parameters(plan, "CreateFunction")["Role"] == role
    assert {step.retry_while for step in plan.steps} == {()}
    with pytest.raises(DeployError, match="it does not exist in IAM"):
        plan_deploy(replace(WANTED, role="mine"), NOTHING)


def test_a_long_name_still_gives_a_valid_role_name() -> None:
    names = {own_role_name("f" * 63 + end) for end in "ab"}
    assert len(names) == 2
    assert {len(name) <= 64 for name in names} == {True}


def test_an_up_to_date_function_needs_no_steps() -> None:
    assert plan_deploy(WANTED, THERE) == Plan((), ())


@pytest.mark.parametrize(
    ("wanted", "operation", "given", "change"),
    [
        ({"memory_mb": 512}, "UpdateFunctionConfiguration", {"MemorySize": 512},
         "~ memory: 128 MB -> 512 MB"),
        ({"timeout_s": 9}, "UpdateFunctionConfiguration", {"Timeout": 9},
         "~ timeout: 3 s -> 9 s"),
        ({"storage_mb": 1024}, "UpdateFunctionConfiguration",
         {"EphemeralStorage": {"Size": 1024}}, "~ storage: 512 MB -> 1024 MB"),
        ({"handler": "a.b"}, "UpdateFunctionConfiguration", {"Handler": "a.b"},
         "~ handler: function.handler -> a.b"),
        ({"description": "new"}, "UpdateFunctionConfiguration",
         {"Description": "new"}, "~ description: '' -> new"),
        ({"runtime": "python3.12"}, "UpdateFunctionConfiguration",
         {"Runtime": "python3.12"}, "~ runtime: python3.13 -> python3.12"),
        ({"variables": {"STAGE": "b"}}, "UpdateFunctionConfiguration",
         {"Environment": {"Variables": {**WRAPPER, "STAGE": "b"}}}, "+ env STAGE: b"),
        ({"tags": {"team": "a"}}, "TagResource",
         {"Resource": FUNCTION.arn, "Tags": {"team": "a"}}, "+ tag team: a"),
        ({"retention_days": 7}, "PutRetentionPolicy",
         {"logGroupName": "/aws/lambda/fn", "retentionInDays": 7},
         "~ log retention: 30 days -> 7 days"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_difference_is_one_call_and_one_line(
    wanted: dict[str, Any], operation: str, given: dict[str, Any], change: str
) -> None:
    plan = plan_deploy(replace(WANTED, **wanted), THERE)
    service = "logs" if "Retention" in operation else "lambda"
    assert calls(plan) == [f"{service}:{operation}"]
    found = dict(parameters(plan, operation))
    found.pop("FunctionName", None)
    assert found == given
    assert changes(plan) == [change]


def test_the_configuration_changes_first_and_can_be_reverted() -> None:
    package = replace(PACKAGE, sha256="cd" * 32)
    plan = plan_deploy(replace(WANTED, memory_mb=512, package=package), THERE)
    assert calls(plan) == [
        "lambda:UpdateFunctionConfiguration", "lambda:UpdateFunctionCode",
    ]  # fmt: skip
    back = plan.steps[0].undo[0]
    assert isinstance(back, Only)
    assert (back.name, back.value) == ("Configuration.CodeSha256", CODE)
    assert back.call.parameters == {"FunctionName": "fn", "MemorySize": 128}
    # Once code is accepted, the previous configuration is not restored.
    assert [step.settles for step in plan.steps] == [False, False, True, True]


def test_a_new_function_is_deleted_again_only_if_it_failed() -> None:
    step = next(
        step
        for step in plan_deploy(WANTED, NOTHING).steps
        if isinstance(step.action, Call) and step.action.operation == "CreateFunction"
    )
    (undo,) = step.undo
    assert isinstance(undo, Only)
    assert undo.call.operation == "DeleteFunction"
    assert (undo.asks.operation, undo.name, undo.value) == (
        "GetFunction", "Configuration.State", "Failed",
    )  # fmt: skip


def test_another_architecture_sends_the_code_again() -> None:
    names = {"deno": "lambda-deno-spawn-deno-arm64",
             "runtime": "lambda-deno-spawn-runtime-arm64"}  # fmt: skip
    layers: dict[str, LayerVersion | None] = {
        name: replace(layer_version(kind), archs=("arm64",), name=name)
        for kind, name in names.items()
    }
    plan = plan_deploy(replace(WANTED, arch="arm64"), replace(THERE, layers=layers))
    assert calls(plan)[-1] == "lambda:UpdateFunctionCode"
    assert parameters(plan, "UpdateFunctionCode")["Architectures"] == ["arm64"]
    assert plan.loses


def test_a_failed_update_is_repeated_completely() -> None:
    function = replace(FUNCTION, failure="The KMS key is disabled")
    plan = plan_deploy(WANTED, replace(THERE, function=function))
    assert calls(plan) == [
        "lambda:UpdateFunctionConfiguration", "lambda:UpdateFunctionCode",
    ]  # fmt: skip
    assert changes(plan)[0] == (
        "~ last update: failed, The KMS key is disabled -> repeated"
    )


def test_what_the_alias_had_before_moves_to_the_one_that_is_deployed_now() -> None:
    queue = "arn:aws:sqs:eu-central-1:123456789012:orders"
    source = EventSource(source=queue)
    mapping = SourceMapping(
        "u", queue, PLACE.function("fn:old"), mapping_settings(source), is_ours=True
    )
    statement = {
        "Sid": "open", "Principal": "*", "Action": "lambda:InvokeFunctionUrl",
        "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
    }  # fmt: skip
    former = FormerState(
        "old", UrlState("https://old", "NONE", "BUFFERED"), (statement,),
        EventState((mapping,), frozenset({"fn-0123456789abcdef"})),
    )  # fmt: skip
    tags = {"lambda-deno-spawn-keys": "events url", "lambda-deno-spawn-alias": "old"}
    function = replace(FUNCTION, tags=tags)
    wanted = replace(
        WANTED, alias="live", url=True, keys={"events": (source,), "url.enabled": True},
        recorded=("alias", "events", "url.enabled"),
    )  # fmt: skip
    plan = plan_deploy(wanted, replace(THERE, function=function, former=former))
    assert calls(plan) == [
        "lambda:PublishVersion", "lambda:CreateAlias", "lambda:CreateFunctionUrlConfig",
        "lambda:UpdateEventSourceMapping", "lambda:DeleteFunctionUrlConfig",
        "lambda:RemovePermission", "events:RemoveTargets", "events:DeleteRule",
        "lambda:RemovePermission", "lambda:TagResource",
    ]  # fmt: skip
    moved = parameters(plan, "UpdateEventSourceMapping")
    assert moved == {"UUID": "u", "FunctionName": "fn:live"}
    removed = parameters(plan, "DeleteFunctionUrlConfig")
    assert removed == {"FunctionName": "fn", "Qualifier": "old"}
    assert parameters(plan, "TagResource")["Tags"] == {
        "lambda-deno-spawn-alias": "live"
    }
    assert plan.loses


def test_variables_are_merged_and_only_removed_when_asked_to() -> None:
    existing = {"OLD": "1", **WRAPPER}
    assert merged_variables(existing, replace(WANTED, variables={"NEW": "2"})) == {
        "OLD": "1", "NEW": "2", **WRAPPER,
    }  # fmt: skip
    wanted = replace(WANTED, variables={"NEW": "2"}, replaces_env=True)
    assert merged_variables(existing, wanted) == {"NEW": "2", **WRAPPER}
    function = replace(FUNCTION, variables=existing)
    plan = plan_deploy(wanted, replace(THERE, function=function))
    assert changes(plan) == ["+ env NEW: ***", "- env OLD: ***"]
    assert plan.loses


def test_unreadable_variables_are_not_erased_by_a_revert() -> None:
    function = replace(FUNCTION, variables={}, environment_error="AccessDenied")
    wanted = replace(WANTED, replaces_env=True, memory_mb=512)
    plan = plan_deploy(wanted, replace(THERE, function=function))
    assert "Environment" in parameters(plan, "UpdateFunctionConfiguration")
    back = plan.steps[0].undo[0]
    assert isinstance(back, Call)
    assert back.parameters == {"FunctionName": "fn", "MemorySize": 128}


def test_the_wrapper_belongs_to_managed_runtimes_only() -> None:
    wanted = replace(WANTED, runtime="provided.al2023")
    assert merged_variables(WRAPPER, wanted) == {}
    own = replace(wanted, variables={"AWS_LAMBDA_EXEC_WRAPPER": "/opt/otel"})
    assert merged_variables(WRAPPER, own) == {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/otel"}
    with pytest.raises(UsageError, match=r"it has to be /opt/lambda-deno-spawn"):
        check_wanted(replace(own, runtime="python3.13"), "eu-central-1")


def test_values_of_secrets_are_masked_in_changes() -> None:
    plan = plan_deploy(replace(WANTED, variables={"API_KEY": "hush"}), THERE)
    assert changes(plan) == ["+ env API_KEY: ***"]


@pytest.mark.parametrize("characters", [4096, 5000])
def test_more_variables_than_lambda_takes_are_refused(characters: int) -> None:
    with pytest.raises(UsageError, match="Lambda accepts 4096"):
        merged_variables({}, replace(WANTED, variables={"A1": "x" * characters}))


def test_variables_are_measured_as_lambda_does_and_as_they_are_sent() -> None:
    quoted = {"A1": '"' * 2100}  # an escape sequence each
    with pytest.raises(UsageError, match="Lambda accepts 4096"):
        merged_variables({}, replace(WANTED, variables=quoted))
    short = replace(WANTED, variables={"A1": "ü" * 700})
    assert calls(plan_deploy(short, THERE)) == ["lambda:UpdateFunctionConfiguration"]
    long = replace(WANTED, variables={"A1": "ü" * 1000})
    with pytest.raises(UsageError, match="Lambda accepts less than 5120"):
        plan_deploy(long, THERE)
    assert "lambda:CreateFunction" in calls(plan_deploy(long, NOTHING))


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ({"package_type": "Image", "runtime": ""}, "was created from an image"),
        ({"runtime": "nodejs20.x", "variables": {}, "layers": ()},
         "its runtime is nodejs20.x; choose another --name, or replace it with "
         "--change-runtime"),
        ({"variables": {}, "layers": ()},
         "it runs python3.13 without this runtime's layers"),
        ({"state": "Failed", "state_reason": "no role"},
         "AWS could not set up that function, no role"),
        ({"environment_error": "AccessDenied"}, "cannot be read and would be lost"),
    ],
    ids=["image", "another-runtime", "python", "failed", "unreadable"],
)  # fmt: skip
def test_what_must_not_be_replaced_is_refused(
    function: dict[str, Any], match: str
) -> None:
    current = replace(THERE, function=replace(FUNCTION, **function))
    with pytest.raises((UsageError, DeployError), match=match):
        plan_deploy(WANTED, current)


def test_a_function_of_another_kind_is_replaced_when_asked_to() -> None:
    function = replace(FUNCTION, runtime="nodejs20.x", variables={}, layers=())
    wanted = replace(WANTED, changes_runtime=True)
    plan = plan_deploy(wanted, replace(THERE, function=function))
    assert "~ runtime: nodejs20.x -> python3.13" in changes(plan)
    assert plan.loses


def test_a_function_of_a_stack_is_only_replaced_when_asked_to() -> None:
    tags = {"aws:cloudformation:stack-name": "shop", "created-by": "lambda-deno-spawn"}
    current = replace(THERE, function=replace(FUNCTION, tags=tags))
    with pytest.raises(
        UsageError, match=r"the CloudFormation stack 'shop' owns it.*change it there"
    ):
        plan_deploy(WANTED, current)
    assert plan_deploy(replace(WANTED, changes_runtime=True), current).steps == ()


@pytest.mark.parametrize(
    ("wanted", "function", "loses"),
    [
        ({"variables": {"STAGE": "b"}}, {"variables": {**WRAPPER, "STAGE": "a"}},
         False),
        ({"memory_mb": 512}, {}, False),
        ({"runtime": "python3.13"}, {"runtime": "python3.12"}, False),
        ({"package": replace(PACKAGE, sha256="cd" * 32)}, {}, False),
        ({"layers": ARNS}, {"layers": (ARNS[0] + "0", ARNS[1])}, False),
        ({"variables": {}, "replaces_env": True},
         {"variables": {**WRAPPER, "OLD": "1"}}, True),
        ({"layers": ARNS}, {"layers": (*ARNS, "arn:aws:lambda:r:1:layer:x:1")}, True),
        ({"handler": "a.b"}, {}, True),
        ({"package": replace(PACKAGE, sha256="cd" * 32), "changes_runtime": True},
         {"variables": {}, "layers": ()}, True),
    ],
    ids=[
        "variable-changed", "memory", "python", "code", "layer-version",
        "variable-removed", "layer-removed", "handler", "code-of-others",
    ],
)  # fmt: skip
def test_a_change_loses_something_if_it_cannot_be_restored(
    wanted: dict[str, Any], function: dict[str, Any], loses: bool
) -> None:
    layers = {version.arn: version for version in LAYERS.values() if version}
    current = replace(
        THERE, function=replace(FUNCTION, **function), layers={**LAYERS, **layers}
    )
    assert plan_deploy(replace(WANTED, **wanted), current).loses is loses


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"name": "a b"}, r"Cannot use the name 'a b': Lambda accepts 1 to 64"),
        ({"name": "x" * 65}, "Lambda accepts 1 to 64"),
        ({"runtime": "python3.11"}, "Cannot use the runtime 'python3.11'"),
        ({"memory_mb": 64}, "Cannot use memory 64: Lambda accepts 128 to 10240 MB"),
        ({"timeout_s": 901}, "Cannot use timeout 901"),
        ({"alias": "1"}, "but not digits alone"),
        ({"retention_days": 2}, "Cannot keep logs for 2 days"),
        ({"role": "arn:aws:iam::1:user/a"}, "neither a role name nor an ARN"),
        ({"tags": {"aws:a": "b"}}, "AWS reserves them"),
        ({"description": "x" * 257}, "it has 257 characters"),
        ({"layers": ("lambda-deno-spawn-deno",)}, "it is not the ARN"),
        ({"layers": ARNS * 3}, "Cannot use 6 layers: Lambda accepts 5"),
        ({"layers": ("arn:aws:lambda:us-east-1:123456789012:layer:deno:1",)},
         "it is in us-east-1, and the function in eu-central-1; publish it there with "
         "`lambda-deno-spawn layer publish --region eu-central-1`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_values_that_aws_rejects_are_rejected_first(
    wanted: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        check_wanted(replace(WANTED, **wanted), "eu-central-1")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"archs": ("arm64",)}, "it is for arm64, and the function for x86_64"),
        ({"runtimes": ("python3.12",)}, "it is for python3.12, and the function for"),
    ],
)
def test_a_layer_for_another_kind_of_function_is_refused(
    fields: dict[str, Any], match: str
) -> None:
    version = layer_version("deno", **fields)
    current = replace(THERE, layers={**LAYERS, version.name: version})
    with pytest.raises(DeployError, match=match):
        plan_deploy(WANTED, current)
    given = replace(WANTED, layers=(version.arn,))
    with pytest.raises(DeployError, match=match):
        plan_deploy(given, replace(THERE, layers={version.arn: version}))


def test_layers_that_are_built_but_not_published_are_published() -> None:
    built = {layer.name: layer for layer in map(layer_zip, ("deno", "runtime"))}
    none = dict.fromkeys(LAYERS)
    plan = plan_deploy(WANTED, replace(NOTHING, layers=none, built=built))
    assert calls(plan).count("lambda:PublishLayerVersion") == 2
    layers = parameters(plan, "CreateFunction")["Layers"]
    assert [str(layer) for layer in layers] == [
        f"<LayerVersionArn of {name}>" for name in built
    ]


OTHERS = tuple(f"arn:aws:lambda:eu-central-1:1:layer:{name}:7" for name in "abcd")


@pytest.mark.parametrize(
    ("there", "then"),
    [
        ((OTHERS[0], ARNS[0] + "0", OTHERS[1], ARNS[1]),
         (OTHERS[0], ARNS[0], OTHERS[1], ARNS[1])),
        ((ARNS[1], OTHERS[0]), (ARNS[1], OTHERS[0], ARNS[0])),
        ((OTHERS[1], OTHERS[0]), (OTHERS[1], OTHERS[0], *ARNS)),
        ((layer_version("python").arn, *ARNS), ARNS),
    ],
    ids=["in-place", "appended", "all-new", "no-longer-needed"],
)  # fmt: skip
def test_layers_of_others_stay_where_they_are(
    there: tuple[str, ...], then: tuple[str, ...]
) -> None:
    function = replace(FUNCTION, layers=there)
    wanted = replace(WANTED, changes_runtime=True)
    plan = plan_deploy(wanted, replace(THERE, function=function))
    given = parameters(plan, "UpdateFunctionConfiguration")["Layers"]
    assert tuple(given) == then
    assert not any(OTHERS[0] in change for change in changes(plan))


def test_given_layers_replace_all_others() -> None:
    layers = {version.arn: version for version in LAYERS.values() if version}
    function = replace(FUNCTION, layers=(OTHERS[0], *ARNS))
    current = replace(THERE, function=function, layers=dict(layers))
    plan = plan_deploy(replace(WANTED, layers=ARNS), current)
    assert parameters(plan, "UpdateFunctionConfiguration")["Layers"] == list(ARNS)
    assert plan.loses


def test_more_layers_than_lambda_takes_are_refused_with_those_of_others() -> None:
    function = replace(FUNCTION, layers=OTHERS)
    with pytest.raises(
        UsageError,
        match="Cannot use 6 layers: the runtime needs 2, the function has 4 others",
    ):
        plan_deploy(WANTED, replace(THERE, function=function))


def test_missing_layers_are_reported_with_the_build_command() -> None:
    with pytest.raises(
        DeployError, match="build --kind deno --kind runtime --arch x86_64"
    ):
        plan_deploy(WANTED, replace(NOTHING, layers={}))


def test_the_os_only_runtime_also_needs_an_interpreter() -> None:
    wanted = replace(WANTED, runtime="provided.al2023")
    with pytest.raises(DeployError, match="lambda-deno-spawn-python-x86_64"):
        plan_deploy(wanted, NOTHING)


@pytest.mark.parametrize(
    ("zipped_bytes", "bucket", "target"),
    [
        (50 * 1024 * 1024 - 64 * 1024, None, None),
        (50 * 1024 * 1024, None, "lambda-deno-spawn-123456789012-eu-central-1"),
        (10, "mine", "mine"),
    ],
)
def test_large_packages_go_by_a_bucket(
    zipped_bytes: int, bucket: str | None, target: str | None
) -> None:
    package = replace(PACKAGE, zipped_bytes=zipped_bytes)
    plan = plan_deploy(replace(WANTED, package=package, bucket=bucket), NOTHING)
    uploads = [step.action for step in plan.steps if isinstance(step.action, Upload)]
    code = parameters(plan, "CreateFunction")["Code"]
    if target is None:
        assert uploads == []
        assert set(code) == {"ZipFile"}
    else:
        assert [upload.bucket for upload in uploads] == [target]
        assert [upload.is_ours for upload in uploads] == [bucket is None]
        key = f"lambda-deno-spawn/{DIGEST}.zip"
        assert code == {"S3Bucket": target, "S3Key": key}


def test_an_alias_moves_after_everything_else() -> None:
    wanted = replace(WANTED, alias="live", memory_mb=512)
    plan = plan_deploy(wanted, THERE)
    assert calls(plan) == [
        "lambda:UpdateFunctionConfiguration", "lambda:PublishVersion",
        "lambda:CreateAlias",
    ]  # fmt: skip
    assert parameters(plan, "PublishVersion")["CodeSha256"] == CODE


def test_an_alias_that_points_to_the_current_state_stays() -> None:
    wanted = replace(WANTED, alias="live")
    current = replace(THERE, alias=AliasState("7", FUNCTION))
    assert calls(plan_deploy(wanted, current)) == []


def test_an_alias_that_an_interrupted_run_left_behind_moves() -> None:
    wanted = replace(WANTED, alias="live")
    old = AliasState("7", replace(FUNCTION, memory_mb=64), has_weights=True)
    plan = plan_deploy(wanted, replace(THERE, alias=old))
    assert calls(plan) == ["lambda:PublishVersion", "lambda:UpdateAlias"]
    routing = parameters(plan, "UpdateAlias")["RoutingConfig"]
    assert routing == {"AdditionalVersionWeights": {}}
    assert plan.loses


def revisions(plan: Plan) -> dict[str, str]:
    return {
        step.action.operation: step.action.parameters["RevisionId"]
        for step in plan.steps
        if isinstance(step.action, Call) and "RevisionId" in step.action.parameters
    }


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ({"memory_mb": 512, "package": replace(PACKAGE, sha256="cd" * 32)},
         {"UpdateFunctionConfiguration": "r1"}),
        ({"package": replace(PACKAGE, sha256="cd" * 32)}, {"UpdateFunctionCode": "r1"}),
        ({}, {"PublishVersion": "r1"}),
        ({"tags": {"team": "a"}}, {}),
    ],
    ids=["configuration", "code", "version", "tags"],
)  # fmt: skip
def test_only_the_first_write_depends_on_what_was_read(
    wanted: dict[str, Any], first: dict[str, str]
) -> None:
    """Lambda creates more revisions while it applies a write: the next would fail."""
    alias = AliasState("7", replace(FUNCTION, memory_mb=64), revision="a1")
    current = replace(THERE, function=replace(FUNCTION, revision="r1"), alias=alias)
    plan = plan_deploy(replace(WANTED, alias="live", **wanted), current)
    assert revisions(plan) == {**first, "UpdateAlias": "a1"}
    for step in plan.steps:
        for back in step.undo:
            call = back if isinstance(back, Call) else back.call
            assert "RevisionId" not in call.parameters


def test_a_url_is_for_aws_accounts_unless_told_otherwise() -> None:
    plan = plan_deploy(replace(WANTED, url=True), THERE)
    assert calls(plan) == ["lambda:CreateFunctionUrlConfig"]
    assert parameters(plan, "CreateFunctionUrlConfig") == {
        "FunctionName": "fn", "AuthType": "AWS_IAM", "InvokeMode": "BUFFERED",
    }  # fmt: skip


def test_a_public_url_takes_both_permissions_of_its_alias() -> None:
    """AWS "Control access to Lambda function URLs": both, since October 2025."""
    wanted = replace(WANTED, url=True, url_auth="NONE", alias="live")
    current = replace(THERE, alias=AliasState("7", FUNCTION))
    plan = plan_deploy(wanted, current)
    added = [
        dict(step.action.parameters)
        for step in plan.steps
        if isinstance(step.action, Call) and step.action.operation == "AddPermission"
    ]
    common = {"FunctionName": "fn", "Qualifier": "live", "Principal": "*"}
    assert added == [
        {
            **common,
            "StatementId": "FunctionURLAllowPublicAccess",
            "Action": "lambda:InvokeFunctionUrl",
            "FunctionUrlAuthType": "NONE",
        },
        {
            **common,
            "StatementId": "FunctionURLInvokeAllowPublicAccess",
            "Action": "lambda:InvokeFunction",
            "InvokedViaFunctionUrl": True,
        },
    ]


PUBLIC = (
    {
        "Sid": "one",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:InvokeFunctionUrl",
        "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
    },
    {
        "Sid": "two",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "lambda:InvokeFunction",
        "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
    },
    {
        "Sid": "of-s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
    },
)
URL = UrlState("https://x.lambda-url.eu-central-1.on.aws/", "NONE", "BUFFERED")


def test_a_public_url_stays_as_it_is_and_public() -> None:
    current = replace(THERE, url=URL, statements=PUBLIC)
    assert calls(plan_deploy(replace(WANTED, url=True), current)) == []


@pytest.mark.parametrize(
    ("wanted", "operation"),
    [
        ({"url": True, "url_auth": "AWS_IAM"}, "UpdateFunctionUrlConfig"),
        ({"url": False}, "DeleteFunctionUrlConfig"),
    ],
)
def test_the_permissions_of_a_public_url_are_removed_with_it(
    wanted: dict[str, Any], operation: str
) -> None:
    current = replace(THERE, url=URL, statements=PUBLIC)
    plan = plan_deploy(replace(WANTED, **wanted), current)
    assert calls(plan) == [f"lambda:{operation}", *["lambda:RemovePermission"] * 2]
    assert plan.loses


def test_an_unrelated_statement_keeps_its_name() -> None:
    other = {"Sid": "FunctionURLAllowPublicAccess", "Principal": {"AWS": "1"}}
    current = replace(THERE, statements=(other,))
    plan = plan_deploy(replace(WANTED, url=True, url_auth="NONE"), current)
    given = parameters(plan, "AddPermission")
    assert given["StatementId"] == "FunctionURLAllowPublicAccess-1"


def test_the_permissions_of_a_public_url_are_removed_even_without_it() -> None:
    """After a run interrupted between the two, the next URL would be public."""
    current = replace(THERE, statements=PUBLIC)
    plan = plan_deploy(replace(WANTED, url=False), current)
    assert calls(plan) == ["lambda:RemovePermission"] * 2


def test_a_streaming_function_has_a_streaming_url() -> None:
    wanted = replace(WANTED, url=True, invoke_mode="RESPONSE_STREAM")
    plan = plan_deploy(wanted, THERE)
    mode = parameters(plan, "CreateFunctionUrlConfig")["InvokeMode"]
    assert mode == "RESPONSE_STREAM"


def test_another_log_group_is_left_alone() -> None:
    function = replace(FUNCTION, log_group="/shared")
    current = replace(THERE, function=function, log_retention_days=None)
    assert calls(plan_deploy(WANTED, current)) == []


def test_a_state_is_read_from_a_response_of_lambda() -> None:
    """Configuration as in GetFunction of the Lambda API reference."""
    answer = {
        "FunctionName": "fn",
        "FunctionArn": "arn",
        "Runtime": "python3.13",
        "Role": "role",
        "Handler": "a.b",
        "CodeSha256": "abc",
        "MemorySize": 256,
        "Timeout": 5,
        "Description": "",
        "Layers": [{"Arn": "layer:1", "CodeSize": 1}],
        "Environment": {"Variables": {"A": "b"}},
        "State": "Active",
        "LastUpdateStatus": "Failed",
        "LastUpdateStatusReason": "why",
        "PackageType": "Zip",
        "Architectures": ["arm64"],
        "EphemeralStorage": {"Size": 1024},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/shared"},
        "RevisionId": "b2d1",
    }
    state = FunctionState.from_response(answer, {"team": "a"})
    assert (state.arch, state.storage_mb, state.failure) == ("arm64", 1024, "why")
    assert (state.layers, state.log_group) == (("layer:1",), "/shared")
    assert state.revision == "b2d1"


def test_a_layer_is_published_once_for_the_same_bytes() -> None:
    layer = layer_zip("deno")
    same = layer_version("deno", 3, code_sha256=CODE)
    assert calls(plan_publish(layer, same, PLACE)) == []
    other = layer_version("deno", 3, code_sha256="other")
    for newest in (None, other):
        plan = plan_publish(layer, newest, PLACE)
        assert calls(plan) == ["lambda:PublishLayerVersion"]


def test_a_layer_is_made_public_once() -> None:
    layer = layer_zip("deno")
    same = layer_version("deno", 3, code_sha256=CODE)
    plan = plan_publish(layer, same, PLACE, is_public=True)
    assert calls(plan) == ["lambda:AddLayerVersionPermission"]
    assert parameters(plan, "AddLayerVersionPermission") == {
        "LayerName": layer.name,
        "VersionNumber": 3,
        "StatementId": "public",
        "Action": "lambda:GetLayerVersion",
        "Principal": "*",
    }
    shared = plan_publish(layer, same, PLACE, is_public=True, is_shared=True)
    assert calls(shared) == []


@pytest.mark.parametrize(
    ("left", "operations", "note"),
    [
        ({"role_policies": ("logs-eu-central-1", "logs-us-east-1")},
         ["iam:DeleteRolePolicy"], "used by functions in us-east-1"),
        ({"role_policies": ("logs-eu-central-1", "logs-to-siem")},
         ["iam:DeleteRolePolicy"], "it also has the policies logs-to-siem;"),
        ({"role_policies": ("logs-eu-central-1",),
          "attached": ("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess",)},
         ["iam:DeleteRolePolicy"],
         "policies arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess;"),
        ({"role_policies": ("logs-eu-central-1",), "role_users": ("other",)},
         [], "used by other"),
        ({"role_policies": ("logs-eu-central-1",), "role_users": None},
         [], "allow lambda:ListFunctions"),
    ],
    ids=["another-region", "inline", "attached", "another-function", "unknown"],
)  # fmt: skip
def test_a_role_stays_while_anything_else_may_need_it(
    left: dict[str, Any], operations: list[str], note: str
) -> None:
    plan = plan_delete("fn", Leftovers(FUNCTION, role="fn-role", **left), PLACE)
    assert calls(plan) == ["lambda:DeleteFunction", *operations]
    assert plan.notes[0].startswith("the role fn-role stays: ")
    assert note in plan.notes[0]


@pytest.mark.parametrize("region", ["us-gov-west-1", "eusc-de-east-1", "ap-south-1"])
def test_a_policy_of_any_region_is_known_as_ours(region: str) -> None:
    found = Leftovers(None, role="fn-role", role_policies=(f"logs-{region}",))
    with pytest.raises(UsageError, match=f"used by functions in {region}"):
        plan_delete("fn", found, PLACE)


def test_a_role_of_ours_goes_with_its_function() -> None:
    found = Leftovers(
        None,
        role="fn-role",
        role_policies=("logs-eu-central-1",),
        log_group="/aws/lambda/fn",
    )
    plan = plan_delete("fn", found, PLACE)
    assert calls(plan) == [
        "iam:DeleteRolePolicy", "iam:DeleteRole", "logs:DeleteLogGroup",
    ]  # fmt: skip
    assert plan.notes == ()


def test_deleting_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="there is no such function, and nothing"):
        plan_delete("fn", Leftovers(None), PLACE)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_since(text) == seconds


@pytest.mark.parametrize("text", ["10", "m", "-1m", "1.5h", "1w", ""])
def test_another_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a number and s, m, h or d"):
        parse_since(text)


def test_a_request_id_is_looked_for_as_a_phrase() -> None:
    assert filter_pattern(None, "8f5-1") == '"8f5-1"'
    assert filter_pattern("ERROR", None) == "ERROR"
    with pytest.raises(UsageError, match="CloudWatch accepts one pattern"):
        filter_pattern("ERROR", "8f5-1")
    with pytest.raises(UsageError, match="expected a request id such as"):
        filter_pattern(None, 'a" b')

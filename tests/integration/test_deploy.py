"""Deploying and deleting, against moto's server; a relay in front of it answers where
moto cannot fail, or does not know what Lambda knows."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.aws.execute import Executor
from lambda_deno_spawn.dev.aws.plan import Call, Plan, Step
from lambda_deno_spawn.dev.aws.read import Leftovers, plan_delete
from lambda_deno_spawn.dev.aws.session import Aws
from tests.fixtures.cloud import (
    ACCOUNT,
    OTHER_REGION,
    REGION,
    Cloud,
    Relay,
    Reply,
    write_zip,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CREATE = "POST /2015-03-31/functions$"
CONFIGURATION = "PUT /2015-03-31/functions/fn/configuration"
CODE = "PUT /2015-03-31/functions/fn/code"
GET = "GET /2015-03-31/functions/fn$"
FAILED = {
    "LastUpdateStatus": "Failed",
    "LastUpdateStatusReason": "The role may not use the KMS key",
    "LastUpdateStatusReasonCode": "KMSKeyAccessDenied",
}


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    empty_cloud.build_layers()
    return empty_cloud


def test_a_first_deployment_makes_all_that_a_function_needs(cloud: Cloud) -> None:
    cloud.write_project(
        'name = "fn"\nmemory = 256\n[env]\nSTAGE = "test"\n[tags]\nteam = "a"\n'
    )
    result = cloud.deployed()
    assert result["function"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:fn"
    assert [arn.split(":")[6] for arn in result["layers"]] == [
        "lambda-deno-spawn-deno-x86_64",
        "lambda-deno-spawn-runtime-x86_64",
    ]
    found = cloud.function()
    assert found["MemorySize"] == 256
    assert found["Environment"]["Variables"] == {
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/lambda-deno-spawn",
        "STAGE": "test",
    }
    role = cloud.client("iam").get_role(RoleName="fn-role")["Role"]
    assert role["Arn"] == found["Role"]
    (group,) = cloud.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/aws/lambda/fn", 30)
    tags = cloud.client("lambda").list_tags(Resource=result["function"])["Tags"]
    assert tags == {"team": "a", "created-by": "lambda-deno-spawn"}


def test_a_second_deployment_of_the_same_writes_nothing(cloud: Cloud) -> None:
    cloud.deployed("--alias", "live")
    with cloud.relay() as relay:
        finished = cloud.deploy("--alias", "live")
    assert finished.exit_code == 0
    assert finished.stderr == "Nothing to do.\n"
    assert relay.writes == []


def test_an_update_says_what_changes_before_it_does(cloud: Cloud) -> None:
    cloud.deployed("--env", "OLD=1")
    finished = cloud.deploy("--memory", "1024", "--env", "API_KEY=hush", code="2")
    lines = finished.stderr.splitlines()
    assert lines[:2] == ["~ memory: 512 MB -> 1024 MB", "+ env API_KEY: ***"]
    assert lines[2].startswith("~ code: ")
    assert lines[3].startswith("lambda:UpdateFunctionConfiguration ")
    assert "hush" not in finished.stderr + finished.stdout
    assert f"function: arn:aws:lambda:{REGION}" in finished.stdout
    found = cloud.function()
    assert found["MemorySize"] == 1024
    assert set(found["Environment"]["Variables"]) >= {"OLD", "API_KEY"}


def test_a_dry_run_prints_calls_and_makes_none(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        finished = cloud.deploy("--dry-run", "-o", "json")
    assert "lambda:CreateFunction arn:aws:lambda" in " ".join(finished.json["calls"])
    assert relay.writes == []
    assert cloud.client("iam").list_roles()["Roles"] == []


def test_an_alias_moves_with_each_change(cloud: Cloud) -> None:
    first = cloud.deployed("--alias", "live")
    second = cloud.deployed("--alias", "live", code="2")
    assert (first["version"], second["version"]) == ("1", "2")
    assert second["alias"].endswith(":function:fn:live")
    alias = cloud.client("lambda").get_alias(FunctionName="fn", Name="live")
    assert alias["FunctionVersion"] == "2"


def test_a_layer_that_was_built_anew_is_pointed_out(cloud: Cloud) -> None:
    cloud.deployed()
    cloud.build_layers(content="2")
    finished = cloud.deploy()
    assert finished.exit_code == 0
    assert "Note: dist contains another build of lambda-deno-spawn-deno-x86_64 " in (
        finished.stderr
    )
    assert "`lambda-deno-spawn layer publish`" in finished.stderr


def test_tags_are_merged(cloud: Cloud) -> None:
    result = cloud.deployed()
    cloud.write_project('name = "fn"\n[tags]\nteam = "b"\n')
    cloud.deployed()
    tags = cloud.client("lambda").list_tags(Resource=result["function"])["Tags"]
    assert tags == {"team": "b", "created-by": "lambda-deno-spawn"}


def test_a_function_url_is_given_and_taken_away(cloud: Cloud) -> None:
    """moto knows a function's own URL, and no conditions in policies."""
    result = cloud.deployed("--function-url-auth", "NONE")
    assert ".lambda-url." in result["url"]
    policy = cloud.client("lambda").get_policy(FunctionName="fn")["Policy"]
    assert "lambda:InvokeFunctionUrl" in policy
    assert "InvokedViaFunctionUrl" in policy
    finished = cloud.deploy("--no-function-url", "--yes")
    assert finished.exit_code == 0, finished.stderr
    assert f"- function url: {result['url']}" in finished.stderr


def test_a_package_goes_over_a_bucket_of_ours_once(cloud: Cloud) -> None:
    bucket = f"lambda-deno-spawn-{ACCOUNT}-{REGION}"
    path = cloud.folder / "large.zip"
    write_zip(path, "function.js", "1", padding_bytes=50 * 1024 * 1024)
    arguments = ("deploy", "project", "--package", str(path))
    with cloud.relay() as relay:
        finished = cloud.run(*arguments)
    assert finished.exit_code == 0, finished.stderr
    of_bucket = [
        line for line, _ in relay.seen if line.partition("?")[0].endswith(f"/{bucket}")
    ]
    # Looked for, made, and waited for; that it is private is S3's own doing.
    assert of_bucket == [f"{method} /{bucket}" for method in ("HEAD", "PUT", "HEAD")]
    s3 = cloud.client("s3")
    (item,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert item["Size"] == path.stat().st_size
    with cloud.relay():
        cloud.deployed()
        again = cloud.run(*arguments)
    assert again.exit_code == 0, again.stderr
    assert "  uploaded before" in again.stderr


def test_an_upload_that_breaks_off_is_finished_by_the_same_command(
    cloud: Cloud,
) -> None:
    cloud.client("s3").create_bucket(
        Bucket="mine", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    with cloud.relay() as relay:
        relay.answers("PUT /mine/", Reply(status=0, times=99))
        finished = cloud.deploy("--bucket", "mine")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("Cannot complete s3:PutObject arn:aws:s3:::mine/")
    assert "the connection broke" in last
    with cloud.relay():
        cloud.deployed("--bucket", "mine")
    assert cloud.function()["CodeSize"] > 0


def test_a_layer_that_its_list_does_not_describe_is_refused(cloud: Cloud) -> None:
    """As after a `layer build` that was killed before it wrote layers.json."""
    [path, *_] = sorted((cloud.folder / "dist").glob("*.zip"))
    write_zip(path, "other", "build")
    with cloud.relay() as relay:
        finished = cloud.deploy()
    assert finished.exit_code == 3
    assert "it differs from its digest in layers.json; build it again" in (
        finished.stderr
    )
    assert relay.writes == []


def test_a_package_that_is_written_again_is_not_sent_under_its_old_name(
    cloud: Cloud,
) -> None:
    """Two commands with one --out: the object was poisoned for all later ones."""
    cloud.client("s3").create_bucket(
        Bucket="mine", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    path = Path(cloud.package())
    key = f"lambda-deno-spawn/{hashlib.sha256(path.read_bytes()).hexdigest()}.zip"

    def rewrite() -> None:
        write_zip(path, "function.js", "2")

    with before(cloud, f"HEAD /mine/{key}", rewrite):
        finished = cloud.deploy("--bucket", "mine")
    assert finished.exit_code == 3
    assert f"Cannot send {str(path)!r}: it has changed since" in finished.stderr
    listed = cloud.client("s3").list_objects_v2(Bucket="mine", Prefix=key)
    assert listed["KeyCount"] == 0
    with cloud.relay():
        cloud.deployed("--bucket", "mine")
    code = cloud.function()["CodeSha256"]
    path = Path(cloud.package("3"))
    with before(cloud, GET, rewrite):
        finished = cloud.deploy("--memory", "1024", code="3")
    assert finished.exit_code == 3
    assert finished.stderr.endswith(
        "run the command again; the earlier changes to the function were reverted\n"
    )
    found = cloud.function()
    assert (found["CodeSha256"], found["MemorySize"]) == (code, 512)


def test_a_bucket_that_is_given_is_never_made(cloud: Cloud) -> None:
    finished = cloud.deploy("--bucket", "none-of-that-name")
    assert finished.exit_code == 3
    assert "it does not exist; create it, or leave out --bucket" in finished.stderr


def test_a_role_that_is_new_is_waited_for(cloud: Cloud) -> None:
    """moto knows a role at once; Lambda takes some seconds."""
    pauses: list[float] = []
    with cloud.relay() as relay:
        for _ in range(3):
            relay.refuses(
                CREATE,
                "InvalidParameterValueException",
                "The role defined for the function cannot be assumed by Lambda.",
            )
        plan = _creation(cloud)
        Executor(Aws(REGION), io.StringIO(), sleep=pauses.append).run(plan)
    assert pauses == [1.0, 2.0, 4.0]


def _creation(cloud: Cloud) -> Plan:
    role = cloud.client("iam").create_role(
        RoleName="fn-role", AssumeRolePolicyDocument="{}"
    )
    parameters: dict[str, Any] = {
        "FunctionName": "fn",
        "Runtime": "python3.13",
        "Role": role["Role"]["Arn"],
        "Handler": "function.handler",
        "Code": {"ZipFile": (cloud.folder / cloud.package()).read_bytes()},
    }
    call = Call("lambda", "CreateFunction", "arn", parameters)
    step = Step(call, retry_while=("cannot be assumed by Lambda",))
    return Plan((), (step,))


def test_a_role_that_cannot_be_assumed_is_one_sentence(cloud: Cloud) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/not-for-lambda"
    with cloud.relay() as relay:
        relay.refuses(
            CREATE,
            "InvalidParameterValueException",
            "The role defined for the function cannot be assumed by Lambda.",
        )
        finished = cloud.deploy("--role", role)
    assert finished.exit_code == 3
    assert "allow sts:AssumeRole to the service" in finished.stderr
    assert relay.writes.count("POST /2015-03-31/functions") == 1


def test_a_refused_code_update_restores_the_configuration(cloud: Cloud) -> None:
    cloud.deployed("--alias", "live")
    with cloud.relay() as relay:
        relay.refuses(
            CODE,
            "InvalidParameterValueException",
            "Unzipped size must be smaller than 262144000 bytes",
        )
        finished = cloud.deploy("--memory", "1024", "--alias", "live", code="2")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert "Unzipped size must be smaller" in last
    assert last.endswith("; the earlier changes to the function were reverted")
    assert cloud.function()["MemorySize"] == 512
    alias = cloud.client("lambda").get_alias(FunctionName="fn", Name="live")
    assert alias["FunctionVersion"] == "1"
    with cloud.relay():
        result = cloud.deployed("--memory", "1024", "--alias", "live", code="2")
    assert result["version"] == "2"
    assert cloud.function()["MemorySize"] == 1024


def test_a_failed_update_gives_aws_s_reason_and_is_taken_back(cloud: Cloud) -> None:
    """moto's updates never fail: the relay puts the state into its answer."""
    cloud.deployed()
    with cloud.relay() as relay:
        # The first two read what is there, the third waits for the update.
        relay.answers(GET, Reply(merged={}, times=2))
        relay.answers(GET, Reply(merged=FAILED))
        finished = cloud.deploy("--memory", "1024")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert "AWS could not apply the update (KMSKeyAccessDenied)" in last
    assert "The role may not use the KMS key" in last
    assert cloud.function()["MemorySize"] == 512


def test_a_code_update_that_was_accepted_is_never_taken_back(cloud: Cloud) -> None:
    """It used to restore the configuration before, under the new code."""
    cloud.deployed()
    with cloud.relay() as relay:
        # Two reads, and the wait for the configuration; then the one for the code.
        relay.answers(GET, Reply(merged={}, times=3))
        relay.answers(GET, Reply(merged=FAILED))
        finished = cloud.deploy("--memory", "1024", code="2")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert "AWS could not apply the update (KMSKeyAccessDenied)" in last
    assert "reverted" not in last
    assert [line.rpartition("/")[2] for line in relay.writes] == [
        "configuration",
        "code",
    ]
    assert cloud.function()["MemorySize"] == 1024
    with cloud.relay() as relay:
        relay.answers(GET, Reply(merged=FAILED, times=2))
        again = cloud.deploy("--memory", "1024", code="2")
    assert again.exit_code == 0, again.stderr
    assert len(relay.writes) == 2


def test_a_code_update_whose_answer_is_lost_may_have_been_accepted(
    cloud: Cloud,
) -> None:
    cloud.deployed()
    with cloud.relay() as relay:
        # Two reads and a wait; then the code is there, whatever the answer was.
        relay.answers(GET, Reply(merged={}, times=3))
        relay.answers(GET, Reply(merged={"CodeSha256": "bmV3"}))
        relay.answers(CODE, Reply(504, b"", times=99))
        finished = cloud.deploy("--memory", "1024", code="2")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert last.endswith(
        "; what was created stays, and the same command continues from there"
    )
    assert cloud.function()["MemorySize"] == 1024


def test_an_update_that_failed_before_is_done_again(cloud: Cloud) -> None:
    cloud.deployed()
    with cloud.relay() as relay:
        relay.answers(GET, Reply(merged=FAILED, times=2))
        finished = cloud.deploy()
    assert finished.exit_code == 0, finished.stderr
    assert "~ last update: failed, The role may not use the KMS key" in finished.stderr
    assert [line.rpartition("/")[2] for line in relay.writes] == [
        "configuration",
        "code",
    ]


def test_a_function_that_could_not_be_set_up_is_removed_again(cloud: Cloud) -> None:
    failed = {"State": "Failed", "StateReason": "no subnet", "StateReasonCode": "X"}
    with cloud.relay() as relay:
        relay.refuses(GET, "ResourceNotFoundException", "Function not found", 404)
        # The wait sees it, and so does who decides whether it has to go.
        relay.answers(GET, Reply(merged=failed, times=2))
        finished = cloud.deploy()
    assert finished.exit_code == 3
    assert "AWS could not set it up (X), no subnet" in finished.stderr
    assert cloud.client("lambda").list_functions()["Functions"] == []
    with cloud.relay():
        cloud.deployed()


def test_a_function_that_could_not_be_waited_for_stays(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        relay.refuses(GET, "ResourceNotFoundException", "Function not found", 404)
        relay.refuses(GET, "AccessDeniedException", "not now", 403)
        finished = cloud.deploy()
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert last.endswith(
        "; what was created stays, and the same command continues from there"
    )
    assert not any(line.startswith("DELETE") for line in relay.writes)
    with cloud.relay() as relay:
        cloud.deployed()
    assert relay.writes == []


def test_a_denied_call_names_the_statement(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        relay.refuses(
            CREATE,
            "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:user/a is not authorized to perform: "
            f"lambda:CreateFunction on resource: arn:aws:lambda:{REGION}:{ACCOUNT}:"
            "function:fn because no identity-based policy allows it",
            403,
        )
        finished = cloud.deploy()
    assert finished.exit_code == 3
    assert (
        '{"Effect": "Allow", "Action": "lambda:CreateFunction", "Resource": '
        f'"arn:aws:lambda:{REGION}:{ACCOUNT}:function:fn"}}'
    ) in finished.stderr
    assert "Done before this failed: iam:CreateRole" in finished.stderr


def test_a_change_by_somebody_else_is_not_overwritten(cloud: Cloud) -> None:
    """moto has no revisions: the relay answers as Lambda does."""
    cloud.deployed("--alias", "live")
    with cloud.relay() as relay:
        relay.answers(GET, Reply(merged={"RevisionId": "r1"}, times=2))
        relay.refuses(
            CONFIGURATION,
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the "
            "GetFunction/GetAlias API to retrieve the latest Revision Id",
            412,
        )
        finished = cloud.deploy("--memory", "1024", "--alias", "live", code="2")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert "it has changed since it was read; another user changed it" in last
    assert last.endswith("run the command again, which compares anew")
    ((_, body),) = [item for item in relay.seen if item[0].startswith("PUT ")]
    assert json.loads(body)["RevisionId"] == "r1"


def test_an_update_by_somebody_else_is_waited_for(cloud: Cloud) -> None:
    cloud.deployed()
    log, pauses = io.StringIO(), list[float]()
    call = Call(
        "lambda",
        "UpdateFunctionConfiguration",
        "arn",
        {"FunctionName": "fn", "Timeout": 9},
    )
    with cloud.relay() as relay:
        relay.refuses(
            CONFIGURATION,
            "ResourceConflictException",
            "The operation cannot be performed at this time. An update is in progress "
            "for resource: fn",
            409,
        )
        Executor(Aws(REGION), log, sleep=pauses.append).run(Plan((), (Step(call),)))
    assert pauses == [1.0]
    assert cloud.function()["Timeout"] == 9


@pytest.mark.parametrize(
    "call",
    [
        Call("lambda", "DeleteFunction", "arn", {"FunctionName": "none"}),
        Call("iam", "DeleteRole", "arn", {"RoleName": "none"}),
        Call("lambda", "RemovePermission", "arn",
             {"FunctionName": "none", "StatementId": "a"}),
        Call("logs", "DeleteLogGroup", "arn", {"logGroupName": "none"}),
    ],
    ids=lambda call: call.operation,
)  # fmt: skip
def test_what_is_gone_already_counts_as_removed(cloud: Cloud, call: Call) -> None:
    """botocore repeats a call whose answer was lost, and finds nothing."""
    executor = Executor(Aws(REGION), io.StringIO())
    executor.run(Plan((), (Step(call),)))
    assert executor.done == [str(call)]


def test_a_layer_is_never_published_twice_by_itself(cloud: Cloud) -> None:
    """A lost answer ends the command, which finds the version when it is run again."""
    with cloud.relay() as relay:
        relay.answers("POST /2018-10-31/layers/", Reply(status=0))
        finished = cloud.deploy()
    assert finished.exit_code == 3
    assert "the connection broke" in finished.stderr.splitlines()[-1]
    assert sum("/layers/" in line for line in relay.writes) == 1
    with cloud.relay() as relay:
        relay.refuses("POST /2018-10-31/layers/", "TooManyRequestsException", "no", 429)
        log, pauses = io.StringIO(), list[float]()
        content = (cloud.folder / cloud.package()).read_bytes()
        call = Call(
            "lambda",
            "PublishLayerVersion",
            "arn",
            {"LayerName": "a", "Content": {"ZipFile": content}},
        )
        Executor(Aws(REGION), log, sleep=pauses.append).run(Plan((), (Step(call),)))
    assert pauses == [1.0]


def test_a_function_that_exists_now_is_compared_anew(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        relay.refuses(
            CREATE, "ResourceConflictException", "Function already exist: fn", 409
        )
        finished = cloud.deploy()
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert last.endswith("; run the command again, which compares anew")
    assert not any(line.startswith("DELETE") for line in relay.writes)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("line", "operation", "answer"),
    [
        (CREATE, "CreateFunction", {"CodeSha256": "b3RoZXI="}),
        (CODE, "UpdateFunctionCode", {"CodeSha256": "b3RoZXI="}),
        ("POST /2018-10-31/layers/", "PublishLayerVersion",
         {"Content": {"CodeSha256": "b3RoZXI="}}),
    ],
    ids=["new-function", "code", "layer"],
)  # fmt: skip
def test_other_bytes_than_were_sent_are_a_failure(
    cloud: Cloud, line: str, operation: str, answer: dict[str, Any]
) -> None:
    if operation == "UpdateFunctionCode":
        cloud.deployed()
    with cloud.relay() as relay:
        relay.answers(line, Reply(201, answer))
        finished = cloud.deploy("--memory", "1024", code="2")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    assert last.startswith(f"Cannot continue after lambda:{operation} arn:aws:lambda:")
    assert "AWS received other bytes than were sent, their SHA-256 is b3RoZXI=" in last
    assert "reverted" not in last


@pytest.mark.cases(1)
@pytest.mark.parametrize(("state", "asked"), [("Active", 0), ("Pending", 1)])
def test_a_version_is_waited_for_only_if_it_has_to_be(
    cloud: Cloud, state: str, asked: int
) -> None:
    cloud.deployed()
    version = {"Version": "$LATEST", "State": state}  # any that moto has
    with cloud.relay() as relay:
        relay.answers("POST /2015-03-31/functions/fn/versions", Reply(201, version))
        finished = cloud.deploy("--alias", "live")
    assert finished.exit_code == 0, finished.stderr
    lines = [line for line, _ in relay.seen]
    assert len([line for line in lines if "/configuration?" in line]) == asked
    assert ("wait published_version_active" in finished.stderr) == bool(asked)


class Doing(Relay):
    """Does something, once, before a request is answered."""

    def __init__(self, upstream: str, line: str, does: Callable[[], object]) -> None:
        super().__init__(upstream)
        self._line = re.compile(line)
        self._does = [does]

    def take_reply(self, line: str) -> Reply | None:
        if self._does and self._line.search(line):
            self._does.pop()()
        return super().take_reply(line)


def before(cloud: Cloud, line: str, does: Callable[[], object]) -> Doing:
    return cloud.through(Doing(cloud.environ["AWS_ENDPOINT_URL"], line, does))


def signalling(number: signal.Signals) -> Callable[[], object]:
    main = threading.main_thread().ident
    assert main is not None
    return lambda: signal.pthread_kill(main, number)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["ctrl-c", "terminated", "terminal-closed"],
)
def test_interrupting_says_what_was_done(
    cloud: Cloud, number: signal.Signals, exit_code: int
) -> None:
    """While CreateFunction waits: the role and the log group are there."""
    with before(cloud, CREATE, signalling(number)) as relay:
        relay.answers(CREATE, Reply(409, {"Message": "update is in progress"},
                                    "ResourceConflictException", times=99))  # fmt: skip
        finished = cloud.deploy()
    assert finished.exit_code == exit_code
    assert "Interrupted after: " in finished.stderr
    assert "iam:CreateRole" in finished.stderr
    assert "Run the same command again to continue from here." in finished.stderr
    with cloud.relay():
        cloud.deployed()


@pytest.mark.parametrize(
    ("toml", "arguments", "exit_code", "part"),
    [
        ("", ("--name", "a b"), 2, "Cannot use the name 'a b'"),
        (
            "",
            ("--layer", f"arn:aws:lambda:{OTHER_REGION}:{ACCOUNT}:layer:deno:1"),
            2,
            f"it is in {OTHER_REGION}, and the function in {REGION}",
        ),
        ("", ("--runtime", "nodejs20.x"), 2, "Cannot use the runtime 'nodejs20.x'"),
        ("", ("--role", "none-of-that-name"), 3, "it does not exist in IAM"),
        (
            "",
            ("--layer", f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:deno:1"),
            3,
            "there is no such version",
        ),
        ("", ("--package", "nowhere.zip"), 2, "no such file or directory"),
        ("", ("--profile", "nobody"), 3, "Cannot use the profile 'nobody'"),
        ("", ("--region", ""), 3, "Cannot use --region '': it is empty"),
    ],
    ids=[
        "name", "region-of-layer", "runtime", "role", "layer", "package", "profile",
        "no-region",
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_changes_nothing(
    cloud: Cloud, toml: str, arguments: tuple[str, ...], exit_code: int, part: str
) -> None:
    with cloud.relay() as relay:
        finished = cloud.deploy(*arguments)
    assert finished.exit_code == exit_code
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stderr.startswith("Cannot ")
    assert part in finished.stderr
    assert relay.writes == []


def test_a_function_with_another_runtime_is_not_replaced(cloud: Cloud) -> None:
    role = cloud.client("iam").create_role(
        RoleName="other", AssumeRolePolicyDocument="{}"
    )["Role"]["Arn"]
    code = {"ZipFile": (cloud.folder / cloud.package()).read_bytes()}
    cloud.client("lambda").create_function(
        FunctionName="fn", Runtime="nodejs20.x", Role=role, Handler="a.b", Code=code
    )
    finished = cloud.deploy()
    assert finished.exit_code == 2
    assert "its runtime is nodejs20.x; choose another --name" in finished.stderr
    cloud.deployed("--change-runtime", "--yes")
    found = cloud.function()
    assert (found["Runtime"], found["Role"]) == ("python3.13", role)


def test_missing_credentials_are_one_sentence(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    finished = cloud.deploy()
    assert finished.exit_code == 3
    assert "there are no credentials; set AWS_PROFILE" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_missing_region_is_one_sentence(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    finished = cloud.deploy()
    assert finished.exit_code == 3
    assert finished.stderr.startswith("Cannot choose a region: none is given")


def test_an_expired_token_is_one_sentence(cloud: Cloud) -> None:
    body = (
        b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>'
        b"<Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token "
        b"included in the request is expired</Message></Error></ErrorResponse>"
    )
    with cloud.relay() as relay:
        relay.answers("POST /$", Reply(403, body))
        finished = cloud.deploy()
    assert finished.exit_code == 3
    assert "the credentials have expired; sign in again" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_deleting_takes_the_role_and_says_so(cloud: Cloud) -> None:
    cloud.deployed()
    finished = cloud.run("delete", "fn", "--yes")
    assert finished.exit_code == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        f"deleted function: arn:aws:lambda:{REGION}:{ACCOUNT}:function:fn",
        f"deleted role policy: logs-{REGION} of fn-role",
        "deleted role: fn-role",
    ]
    assert cloud.client("lambda").list_functions()["Functions"] == []
    assert cloud.client("iam").list_roles()["Roles"] == []
    assert len(cloud.client("logs").describe_log_groups()["logGroups"]) == 1
    logs = cloud.run("delete", "fn", "--yes", "--delete-logs")
    assert logs.stdout == "deleted log group: /aws/lambda/fn\n"
    again = cloud.run("delete", "fn", "--yes")
    assert again.exit_code == 2
    assert "there is no such function, and nothing of it is left" in again.stderr


def test_deleting_without_a_terminal_needs_yes(cloud: Cloud) -> None:
    cloud.deployed()
    finished = cloud.run("delete", "fn")
    assert finished.exit_code == 2
    assert "- role: fn-role" in finished.stderr
    assert "use --yes" in finished.stderr.splitlines()[-1]
    dry = cloud.run("delete", "fn", "--dry-run")
    assert "lambda:DeleteFunction" in dry.stdout
    assert cloud.function()["FunctionName"] == "fn"


@pytest.mark.cases(1)
@pytest.mark.parametrize(("answer", "exit_code"), [("n\n", 2), ("y\n", 0)])
def test_on_a_terminal_what_removes_something_is_asked_about(
    cloud: Cloud, answer: str, exit_code: int
) -> None:
    cloud.deployed("--env", "OLD=1")
    arguments = ("deploy", "project", "--package", cloud.package(), "--replace-env")
    finished = cloud.run(*arguments, answer=answer)
    assert finished.exit_code == exit_code
    assert "- env OLD: ***" in finished.stderr
    assert "Continue?" in finished.stderr
    variables = cloud.function()["Environment"]["Variables"]
    assert ("OLD" in variables) == (exit_code == 2)


def test_without_a_terminal_what_removes_something_needs_yes(cloud: Cloud) -> None:
    cloud.deployed("--env", "OLD=1", "--env", "STAGE=a")
    arguments = ("--replace-env", "--env", "STAGE=b")
    with cloud.relay() as relay:
        refused = cloud.deploy(*arguments)
    assert refused.exit_code == 2
    assert relay.writes == []
    *shown, last = refused.stderr.splitlines()
    assert shown == ["- env OLD: ***", "~ env STAGE: a -> b"]
    assert last == (
        "Cannot deploy 'fn': it would remove or replace env OLD, and there is "
        "no terminal to ask on; nothing was changed; use --yes"
    )
    with cloud.relay():
        cloud.deployed(*arguments, "--yes")
    assert "OLD" not in cloud.function()["Environment"]["Variables"]


def test_without_a_terminal_an_update_goes_on(cloud: Cloud) -> None:
    cloud.deployed("--env", "STAGE=a", "--alias", "live")
    cloud.deployed("--env", "STAGE=b", "--alias", "live", "--memory", "256", code="2")
    assert cloud.function()["Environment"]["Variables"]["STAGE"] == "b"


def test_layers_of_others_are_kept_and_shown(cloud: Cloud) -> None:
    ours = cloud.deployed()["layers"]
    content = {"ZipFile": (cloud.folder / cloud.package()).read_bytes()}
    other = cloud.client("lambda").publish_layer_version(
        LayerName="other", Content=content
    )["LayerVersionArn"]
    cloud.client("lambda").update_function_configuration(
        FunctionName="fn", Layers=[other, *ours]
    )
    assert cloud.deployed("--memory", "256")["layers"] == [other, *ours]
    found = [layer["Arn"] for layer in cloud.function()["Layers"]]
    assert found == [other, *ours]


def test_on_a_terminal_what_only_adds_is_not_asked_about(cloud: Cloud) -> None:
    arguments = ("deploy", "project", "--package", cloud.package())
    finished = cloud.run(*arguments, answer="")
    assert finished.exit_code == 0, finished.stderr
    assert "Continue?" not in finished.stderr


@pytest.mark.parametrize("first", ["delete", "detach all"])
def test_a_role_goes_once_iam_knows_that_its_policies_are_gone(
    cloud: Cloud, first: str
) -> None:
    cloud.client("iam").create_role(RoleName="fn-role", AssumeRolePolicyDocument="{}")
    aws, pauses = Aws(REGION), list[float]()
    plan = plan_delete("fn", Leftovers(None, role="fn-role"), aws.place)
    body = (
        '<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>'
        "Sender</Type><Code>DeleteConflict</Code><Message>Cannot delete entity, must "
        f"{first} policies first.</Message></Error></ErrorResponse>"
    )
    with cloud.relay() as relay:
        relay.answers("POST /$", Reply(409, body.encode(), times=2))
        Executor(Aws(REGION), io.StringIO(), sleep=pauses.append).run(plan)
    assert pauses == [1.0, 2.0]
    assert cloud.client("iam").list_roles()["Roles"] == []


def test_deleting_keeps_a_role_that_another_function_uses(cloud: Cloud) -> None:
    role = cloud.deployed() and cloud.function()["Role"]
    code = {"ZipFile": (cloud.folder / cloud.package()).read_bytes()}
    cloud.client("lambda").create_function(
        FunctionName="other", Runtime="python3.13", Role=role, Handler="a", Code=code
    )
    finished = cloud.run("delete", "fn", "--yes")
    assert finished.exit_code == 0, finished.stderr
    assert "Note: the role fn-role stays: used by other\n" in finished.stderr
    assert len(finished.stdout.splitlines()) == 1
    (policy,) = cloud.client("iam").list_role_policies(RoleName="fn-role")[
        "PolicyNames"
    ]
    assert policy == f"logs-{REGION}"


def test_deleting_keeps_a_role_whose_users_are_not_shown(cloud: Cloud) -> None:
    cloud.deployed()
    with cloud.relay() as relay:
        relay.refuses(
            r"GET /2015-03-31/functions(/?\?.*|/?)$", "AccessDenied", "no", 403
        )
        finished = cloud.run("delete", "fn", "--yes")
    assert finished.exit_code == 0, finished.stderr
    assert "allow lambda:ListFunctions and run the command again" in finished.stderr
    with cloud.relay():
        again = cloud.run("delete", "fn", "--yes")
    assert "deleted role: fn-role" in again.stdout


def test_deleting_keeps_a_role_that_is_not_ours(cloud: Cloud) -> None:
    role = cloud.client("iam").create_role(
        RoleName="mine", AssumeRolePolicyDocument="{}"
    )
    cloud.deployed("--role", "mine")
    cloud.run("delete", "fn", "--yes")
    roles = cloud.client("iam").list_roles()["Roles"]
    assert [found["Arn"] for found in roles] == [role["Role"]["Arn"]]


def test_a_function_that_a_stack_owns_is_not_changed(cloud: Cloud) -> None:
    cloud.deployed()
    cloud.client("lambda").tag_resource(
        Resource=cloud.function()["FunctionArn"],
        Tags={"aws:cloudformation:stack-name": "shop"},
    )
    with cloud.relay() as relay:
        finished = cloud.deploy(code="2")
    assert finished.exit_code == 2
    assert "the CloudFormation stack 'shop' owns it" in finished.stderr
    assert relay.writes == []


def test_a_function_that_a_stack_owns_is_not_deleted(cloud: Cloud) -> None:
    cloud.deployed()
    function = cloud.function()
    cloud.client("lambda").tag_resource(
        Resource=function["FunctionArn"], Tags={"aws:cloudformation:stack-name": "shop"}
    )
    finished = cloud.run("delete", "fn", "--yes")
    assert finished.exit_code == 2
    assert "the CloudFormation stack 'shop' owns it" in finished.stderr
    assert cloud.function()["FunctionName"] == "fn"


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", ["DATABASE_URL", "PGPASS", "SLACK_WEBHOOK", "DSN"])
def test_a_value_that_may_be_a_secret_is_not_printed(cloud: Cloud, name: str) -> None:
    finished = cloud.deploy("--env", f"{name}=a-secret", "--env", "STAGE=test")
    assert finished.exit_code == 0, finished.stderr
    assert "a-secret" not in finished.stdout + finished.stderr
    assert "+ env STAGE: test" in finished.stderr


@pytest.fixture
def two(cloud: Cloud) -> Cloud:
    """AWS has ``orders`` and ``orders-api``; the folder ``orders`` holds the latter."""
    cloud.deployed("--name", "orders")
    cloud.deployed("--name", "orders-api")
    shutil.copytree(cloud.folder / "project", cloud.folder / "orders")
    (cloud.folder / "orders" / "lambda.toml").write_text('name = "orders-api"\n')
    return cloud


def names_in_aws(cloud: Cloud) -> list[str]:
    functions = cloud.client("lambda").list_functions()["Functions"]
    return sorted(function["FunctionName"] for function in functions)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "orders", "--yes"),
        ("delete", "orders", "--dry-run"),
        ("logs", "orders"),
        ("deploy", "orders", "--package"),
    ],
    ids=["delete", "dry-run", "logs", "deploy"],
)
def test_an_argument_that_means_two_functions_is_refused(
    two: Cloud, arguments: tuple[str, ...]
) -> None:
    """`delete orders` removed `orders`, `deploy orders` updated `orders-api`."""
    package = [two.package("2")] if arguments[-1] == "--package" else []
    with two.relay() as relay:
        finished = two.run(*arguments, *package)
    assert finished.exit_code == 2
    (sentence,) = finished.stderr.splitlines()
    assert sentence.startswith("Cannot tell which function 'orders' means: ")
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders"
    for part in ("'orders-api'", "'./orders'", arn):
        assert part in sentence
    assert ("--name orders" in sentence) == (arguments[0] != "deploy")
    assert relay.writes == []
    assert names_in_aws(two) == ["orders", "orders-api"]


def test_a_function_that_may_not_be_looked_for_may_be_there(two: Cloud) -> None:
    with two.relay() as relay:
        relay.refuses(
            "GET .*/functions/orders$", "AccessDeniedException", "no", status=403
        )
        finished = two.run("delete", "orders", "--yes")
    assert finished.exit_code == 2
    assert "may not see whether there is a function 'orders'" in finished.stderr
    assert relay.writes == []


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["./orders"], "orders"),
        (["orders/function.js"], "orders"),
        (["orders-api"], "orders"),
        (["--name", "orders"], "orders-api"),
        ([f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders"], "orders-api"),
        ([f"{ACCOUNT}:function:orders"], "orders-api"),
    ],
    ids=["folder", "file", "name", "option", "arn", "partial-arn"],
)
def test_each_of_two_functions_can_be_meant(
    two: Cloud, arguments: list[str], left: str
) -> None:
    finished = two.run("delete", *arguments, "--yes")
    assert finished.exit_code == 0, finished.stderr
    assert names_in_aws(two) == [left]


def test_a_folder_means_its_function_while_there_is_no_other(two: Cloud) -> None:
    two.client("lambda").delete_function(FunctionName="orders")
    finished = two.run("delete", "orders", "--yes")
    assert finished.exit_code == 0, finished.stderr
    assert names_in_aws(two) == []


@pytest.mark.cases(1)
@pytest.mark.parametrize("command", ["delete", "logs", "deploy"])
def test_a_function_of_another_account_is_refused(two: Cloud, command: str) -> None:
    arn = f"arn:aws:lambda:{REGION}:999999999999:function:orders-api"
    package = ["--package", two.package()] if command == "deploy" else []
    china = f"arn:aws-cn:lambda:{REGION}:{ACCOUNT}:function:orders-api"
    with two.relay() as relay:
        finished = two.run(command, arn, *package)
        elsewhere = two.run(command, china, *package)
    assert finished.exit_code == elsewhere.exit_code == 2
    assert "belongs to the account 999999999999" in finished.stderr
    assert "it is in the partition aws-cn" in elsewhere.stderr
    assert relay.writes == []


def test_an_arn_brings_its_region(two: Cloud) -> None:
    arn = f"arn:aws:lambda:{OTHER_REGION}:{ACCOUNT}:function:orders"
    finished = two.run("delete", arn, "--yes")
    assert finished.exit_code == 2
    assert f"Cannot delete 'orders' in {OTHER_REGION}: " in finished.stderr
    both = two.run("delete", arn, "--yes", "--region", REGION)
    assert both.exit_code == 2
    assert f"is in {OTHER_REGION}; leave out --region" in both.stderr
    assert names_in_aws(two) == ["orders", "orders-api"]


def test_a_name_deploys_the_project_here_that_has_it(two: Cloud) -> None:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders-api"
    for argument, memory in (("orders-api", "256"), (arn, "512")):
        package = two.package(memory)
        finished = two.run(
            "deploy", argument, "--package", package, "--memory", memory, "-o", "json"
        )
        assert finished.exit_code == 0, finished.stderr
        assert finished.json["function"] == arn
        assert two.function("orders-api")["MemorySize"] == int(memory)


def test_an_arn_is_not_deployed_under_another_name(two: Cloud) -> None:
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders-api"
    finished = two.run("deploy", arn, "--name", "orders", "--package", two.package())
    assert finished.exit_code == 2
    assert "Cannot use --name orders with " in finished.stderr

"""Settings of lambda.toml for AWS: created, changed, removed, and compared again.

moto accepts most of these parameters and forgets them. A relay in front of it records
the requests and describes the function as Lambda would, so that a second deployment has
something to compare with; what is asserted is the request that was sent. botocore
itself checks each request against Lambda's model before it is sent.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.aws.execute import Executor
from lambda_deno_spawn.dev.aws.plan import Call, Plan, Step, Wait
from lambda_deno_spawn.dev.aws.session import Aws
from tests.fixtures.cloud import Reply

if TYPE_CHECKING:
    from tests.fixtures.cloud import Cloud, Remembering

ACCOUNT = "123456789012"
PLACE = f"eu-central-1:{ACCOUNT}"
KEY = f"arn:aws:kms:{PLACE}:key/4d2f6c1e-7a0b-4c8e-9f55-0d1c2b3a4e5f"
QUEUE = f"arn:aws:sqs:{PLACE}:failed"
POINT = f"arn:aws:elasticfilesystem:{PLACE}:access-point/fsap-0123456789abcdef0"
PROVIDER = f"arn:aws:lambda:{PLACE}:capacity-provider:mine"
TAG = "lambda-deno-spawn-keys"
HEAD = 'name = "fn"\n'
VPC = '[vpc]\nsubnets = ["subnet-2", "subnet-1"]\nsecurity_groups = ["sg-1"]\n'
TOP = (
    f'{HEAD}tracing = "active"\nkms_key = "{KEY}"\ndead_letter = "{QUEUE}"\n'
    'reserved_concurrency = 9\nprovisioned_concurrency = 3\nalias = "live"\n'
)
TABLES = (
    f'{VPC}[file_system]\narn = "{POINT}"\npath = "/mnt/a"\n'
    '[logs]\nformat = "json"\nlevel = "DEBUG"\ngroup = "/my/group"\nretention = 7\n'
    "[durable]\ntimeout = 3600\n"
)
ALL = TOP + TABLES
URL = (
    '[url]\nauth = "AWS_IAM"\n[url.cors]\norigins = ["https://b.example", '
    '"https://a.example"]\nmethods = ["POST", "GET"]\nheaders = ["X-Key"]\n'
)


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    empty_cloud.build_layers()
    return empty_cloud


def deploy(
    cloud: Cloud, relay: Remembering, toml: str, *more: str, code: str = "1"
) -> Any:
    cloud.write_project(toml)
    return cloud.deployed(*more, code=code)


def policy(cloud: Cloud) -> dict[str, Any]:
    found = cloud.client("iam").get_role_policy(
        RoleName="fn-role", PolicyName="logs-eu-central-1"
    )
    return {
        item.get("Sid", "Log"): item for item in found["PolicyDocument"]["Statement"]
    }


def tags(cloud: Cloud) -> dict[str, str]:
    arn = f"arn:aws:lambda:{PLACE}:function:fn"
    found: dict[str, str] = cloud.client("lambda").list_tags(Resource=arn)["Tags"]
    return found


def test_every_setting_is_sent_once_and_then_there_is_nothing_to_do(
    cloud: Cloud,
) -> None:
    with cloud.remembering() as relay:
        result = deploy(cloud, relay, ALL)
    (created,) = relay.sent
    assert {
        name: created[name]
        for name in (
            "TracingConfig", "KMSKeyArn", "DeadLetterConfig", "VpcConfig",
            "FileSystemConfigs", "LoggingConfig", "DurableConfig",
        )
    } == {
        "TracingConfig": {"Mode": "Active"},
        "KMSKeyArn": KEY,
        "DeadLetterConfig": {"TargetArn": QUEUE},
        "VpcConfig": {
            "SubnetIds": ["subnet-1", "subnet-2"],
            "SecurityGroupIds": ["sg-1"],
        },
        "FileSystemConfigs": [{"Arn": POINT, "LocalMountPath": "/mnt/a"}],
        "LoggingConfig": {
            "LogFormat": "JSON",
            "ApplicationLogLevel": "DEBUG",
            "LogGroup": "/my/group",
        },
        "DurableConfig": {"ExecutionTimeout": 3600},
    }  # fmt: skip
    assert relay.provisioned == {"live": 3}
    assert result["alias"].endswith(":live")
    client = cloud.client("lambda")
    found = client.get_function_concurrency(FunctionName="fn")
    assert found["ReservedConcurrentExecutions"] == 9
    (group,) = cloud.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/my/group", 7)
    assert set(policy(cloud)) == {
        "Log", "Network", "NetworkOfLambdaOnly", "Tracing", "DeadLetter", "FileSystem",
        "Durable",
    }  # fmt: skip
    assert policy(cloud)["Log"]["Resource"].endswith(":log-group:/my/group:*")
    with cloud.through(relay.again()) as second:
        finished = cloud.deploy()
    assert finished.stderr == "Nothing to do.\n"
    assert second.writes == []


def test_an_update_sends_only_what_changes(cloud: Cloud) -> None:
    with cloud.remembering() as relay:
        deploy(cloud, relay, ALL)
    changed = ALL.replace('"active"', '"pass-through"').replace("3600", "7200")
    with cloud.through(relay.again()) as second:
        deploy(cloud, second, changed)
    (update,) = second.sent
    assert update == {
        "TracingConfig": {"Mode": "PassThrough"},
        "DurableConfig": {"ExecutionTimeout": 7200, "RetentionPeriodInDays": 14},
    } or update == {
        "TracingConfig": {"Mode": "PassThrough"},
        "DurableConfig": {"ExecutionTimeout": 7200},
    }
    # The role loses what it does not need any more.
    assert "Tracing" not in policy(cloud)


def test_a_removed_key_resets_only_what_a_deployment_has_set(cloud: Cloud) -> None:
    with cloud.remembering() as relay:
        deploy(cloud, relay, ALL.replace("[durable]\ntimeout = 3600\n", ""))
        assert tags(cloud)[TAG].split() == sorted(
            {
                "dead_letter", "file_system", "kms_key", "logs.format", "logs.group",
                "logs.level", "provisioned_concurrency", "reserved_concurrency",
                "tracing", "vpc",
            }
        )  # fmt: skip
        # SnapStart is set by somebody else, and stays.
        relay.settings["SnapStart"] = {"ApplyOn": "PublishedVersions"}
        relay.sent.clear()
        deploy(cloud, relay, f'{HEAD}alias = "live"\n')
        (update,) = relay.sent
        assert update == {
            "TracingConfig": {"Mode": "PassThrough"},
            "KMSKeyArn": "",
            "DeadLetterConfig": {"TargetArn": ""},
            "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
            "FileSystemConfigs": [],
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/fn"},
        }
        assert relay.provisioned == {}
        assert TAG not in tags(cloud)
        assert set(policy(cloud)) == {"Log"}
        found = cloud.client("lambda").get_function_concurrency(FunctionName="fn")
        assert "ReservedConcurrentExecutions" not in found
        assert cloud.deploy().stderr == "Nothing to do.\n"
    # The log that exists stays.
    groups = cloud.client("logs").describe_log_groups()["logGroups"]
    assert {group["logGroupName"] for group in groups} == {
        "/my/group", "/aws/lambda/fn",
    }  # fmt: skip


def test_a_setting_of_an_option_stays_without_the_option(cloud: Cloud) -> None:
    with cloud.remembering() as relay:
        options = ("--tracing", "active", "--reserved-concurrency", "2")
        deploy(cloud, relay, HEAD, *options)
        assert relay.sent[0]["TracingConfig"] == {"Mode": "Active"}
        assert TAG not in tags(cloud)
        # Without the option the role keeps what the setting needs.
        assert cloud.deploy().stderr == "Nothing to do.\n"
        assert "Tracing" in policy(cloud)


def test_a_url_of_the_project_file_has_its_cors_and_goes_with_its_table(
    cloud: Cloud,
) -> None:
    with cloud.relay():
        first = cloud_url(cloud, HEAD + URL)
        cors = cloud.client("lambda").get_function_url_config(FunctionName="fn")["Cors"]
        assert cors == {
            "AllowOrigins": ["https://a.example", "https://b.example"],
            "AllowMethods": ["GET", "POST"],
            "AllowHeaders": ["x-key"],
        }
        assert cloud.deploy().stderr == "Nothing to do.\n"
        assert first
        changed = URL.replace('methods = ["POST", "GET"]\n', "")
        cloud_url(cloud, HEAD + changed)
        found = cloud.client("lambda").get_function_url_config(FunctionName="fn")
        assert "AllowMethods" not in found["Cors"]
        cloud.write_project(HEAD)
        refused = cloud.deploy()
        assert refused.exit_code == 2
        assert "it would remove or replace function url" in refused.stderr
        removed = cloud.deploy("--yes")
        assert removed.exit_code == 0, removed.stderr
        assert f"- function url: {first}" in removed.stderr
        assert cloud.deploy().stderr == "Nothing to do.\n"


def cloud_url(cloud: Cloud, toml: str) -> str:
    cloud.write_project(toml)
    url: str = cloud.deployed()["url"]
    return url


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ('tenancy = "per-tenant"\n', "tenancy"),
        ("[durable]\ntimeout = 60\n", "durable"),
        (f'[managed_instances]\ncapacity_provider = "{PROVIDER}"\n',
         "managed_instances"),
    ],
    ids=["tenancy", "durable", "managed_instances"],
)  # fmt: skip
def test_what_aws_accepts_only_at_creation_is_said_before_anything_is_done(
    cloud: Cloud, table: str, names: str
) -> None:
    with cloud.remembering() as relay:
        deploy(cloud, relay, HEAD)
    with cloud.through(relay.again()) as second:
        cloud.write_project(HEAD + table)
        added = cloud.deploy(code="2")
    assert added.exit_code == 2
    assert f"AWS accepts {names} only when it creates a function" in added.stderr
    assert "delete it with `lambda-deno-spawn delete fn`" in added.stderr
    assert second.writes == []
    cloud.client("lambda").delete_function(FunctionName="fn")
    with cloud.remembering() as relay:
        deploy(cloud, relay, HEAD + table)
        assert cloud.deploy().stderr == "Nothing to do.\n"
    with cloud.through(relay.again()) as second:
        cloud.write_project(HEAD)
        removed = cloud.deploy(code="2")
    assert removed.exit_code == 2
    assert f"Cannot remove {names} from 'fn'" in removed.stderr
    assert "put the key back, or delete it" in removed.stderr
    assert second.writes == []


def test_a_function_on_managed_instances_is_published_for_its_callers(
    cloud: Cloud,
) -> None:
    table = (
        f'[managed_instances]\ncapacity_provider = "{PROVIDER}"\nconcurrency = 16\n'
        "memory_per_vcpu = 4\n"
    )
    with cloud.remembering() as relay:
        # Lambda says so as long as nothing is published, and botocore's waiter for
        # new functions never ends with it.
        relay.settings["State"] = "ActiveNonInvocable"
        deploy(cloud, relay, HEAD + table)
        (created,) = relay.sent
        assert created["MemorySize"] == 2048
        assert created["CapacityProviderConfig"] == {
            "LambdaManagedInstancesCapacityProviderConfig": {
                "CapacityProviderArn": PROVIDER,
                "PerExecutionEnvironmentMaxConcurrency": 16,
                "ExecutionEnvironmentMemoryGiBPerVCpu": 4,
            }
        }
        published = [
            json.loads(body)
            for line, body in relay.seen
            if line.endswith("POST /2015-03-31/functions/fn/versions")
        ]
        assert [item["PublishTo"] for item in published] == ["LATEST_PUBLISHED"]
        relay.settings["State"] = "Active"
        assert cloud.deploy().stderr == "Nothing to do.\n"
        relay.sent.clear()
        deploy(cloud, relay, HEAD + table.replace("16", "32"))
        (update,) = relay.sent
        assert list(update) == ["CapacityProviderConfig"]


class Killed(BaseException):
    """Ends a command like SIGKILL: nothing in it catches this."""


def killing(last: list[str]) -> Any:
    """Return what replaces ``Aws.call``, and ends a command after a call that writes.

    A call that ended a run before does not end another one: Lambda publishes no second
    version of the same code, but moto does.

    Args:
        last: Gets the calls that have ended runs.
    """
    real = Aws.call

    def call(self: Aws, made: Call, **given: Any) -> Any:
        response = real(self, made, **given)
        is_read = made.operation.startswith(("Get", "List", "Describe", "Head"))
        if not is_read and str(made) not in last:
            last.append(str(made))
            raise Killed
        return response

    return call


@pytest.mark.parametrize("toml", ["created", "removed"])
def test_killed_after_each_call_the_same_command_finishes(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, toml: str
) -> None:
    """Each run is killed after its first call that writes, until none is left.

    What one run has done is not done again, and what it has not done is done.
    """
    full = ALL.replace("[durable]\ntimeout = 3600\n", "") + '[url]\nauth = "AWS_IAM"\n'
    with cloud.remembering() as relay:
        cloud.write_project(full)
        if toml == "removed":
            cloud.deployed()
            cloud.write_project(f'{HEAD}alias = "live"\n')
        killed: list[str] = []
        finished = None
        with monkeypatch.context() as patch:
            patch.setattr(Aws, "call", killing(killed))
            while finished is None:
                with contextlib.suppress(Killed):
                    finished = cloud.deploy("--yes")
        assert finished.exit_code == 0, finished.stderr
        assert len(killed) >= (12 if toml == "created" else 6), killed
        assert cloud.deploy().stderr == "Nothing to do.\n"
        assert relay.provisioned == ({"live": 3} if toml == "created" else {})
        found = relay.settings["TracingConfig"]
        assert found == {"Mode": "Active" if toml == "created" else "PassThrough"}
        client = cloud.client("lambda")
        versions = client.list_versions_by_function(FunctionName="fn")["Versions"]
        # $LATEST, one for each deployment, and one more: killed before its alias moved.
        assert len(versions) <= (3 if toml == "created" else 4)


def test_two_deployments_at_once_end_in_one_that_is_complete(cloud: Cloud) -> None:
    """Each of two processes ends well, or says that the command has to be repeated."""
    cloud.write_project(f'{HEAD}alias = "live"\nreserved_concurrency = 3\n')
    command = [
        sys.executable, "-m", "lambda_deno_spawn", "deploy", "project", "--yes",
        "--package", cloud.package(),
    ]  # fmt: skip
    with cloud.relay():
        running = [
            subprocess.Popen(
                command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
            )
            for _ in range(2)
        ]
        ended = [(process.communicate(timeout=120)[1], process) for process in running]
        for stderr, process in ended:
            assert process.returncode in (0, 3), stderr
            if process.returncode == 3:
                assert "run the command again" in stderr.splitlines()[-1]
        assert cloud.deploy("--yes").exit_code == 0
        assert cloud.deploy().stderr == "Nothing to do.\n"


def test_a_wait_goes_on_when_aws_does_not_answer_for_a_while(cloud: Cloud) -> None:
    """It used to be a failure, and the change was reverted."""
    pauses: list[float] = []
    cloud.deployed()
    call = Call("lambda", "GetFunction", "arn", {"FunctionName": "fn"})
    plan = Plan((), (Step(Wait("function_updated_v2", call)),))
    with cloud.relay() as relay:
        relay.answers("GET /2015-03-31/functions/fn$", Reply(429, {"Message": "slow"},
                      "TooManyRequestsException", times=4))  # fmt: skip
        Executor(Aws("eu-central-1"), io.StringIO(), sleep=pauses.append).run(plan)
    assert pauses == [1.0]


def test_a_call_that_is_throttled_for_long_is_repeated(cloud: Cloud) -> None:
    pauses: list[float] = []
    cloud.deployed()
    given = {"FunctionName": "fn", "Timeout": 9}
    call = Call("lambda", "UpdateFunctionConfiguration", "arn", given)
    with cloud.relay() as relay:
        relay.answers("PUT .*/configuration", Reply(429, {"Message": "Rate exceeded"},
                      "TooManyRequestsException", times=4))  # fmt: skip
        plan = Plan((), (Step(call),))
        Executor(Aws("eu-central-1"), io.StringIO(), sleep=pauses.append).run(plan)
    assert pauses == [1.0]
    assert cloud.function()["Timeout"] == 9


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"State": "Deleting"}, "that function is being deleted"),
        ({"State": "Failed", "StateReason": "no subnet"}, "AWS could not set up that"),
    ],
    ids=["deleting", "failed"],
)
def test_a_function_that_cannot_be_changed_is_said_before_anything_is_done(
    cloud: Cloud, state: dict[str, str], says: str
) -> None:
    with cloud.remembering() as relay:
        cloud.deployed()
        relay.settings |= state
        before = len(relay.writes)
        finished = cloud.deploy("--memory", "1024")
        assert finished.exit_code == 3
        assert says in finished.stderr
        assert len(relay.writes) == before


def test_a_function_that_is_pending_is_waited_for(cloud: Cloud) -> None:
    cloud.deployed()
    with cloud.relay() as relay:
        relay.answers("GET /2015-03-31/functions/fn$",
                      Reply(merged={"State": "Pending"}))  # fmt: skip
        finished = cloud.deploy("--memory", "1024")
    assert finished.exit_code == 0, finished.stderr


def test_a_package_too_large_with_its_layers_is_refused_before_anything_is_made(
    cloud: Cloud,
) -> None:
    layers = json.loads((cloud.folder / "dist" / "layers.json").read_text())
    for layer in layers:
        layer["unzippedBytes"] = 125 * 1024 * 1024
    (cloud.folder / "dist" / "layers.json").write_text(json.dumps(layers))
    with cloud.relay() as relay:
        new = cloud.deploy()
    assert new.exit_code == 2
    assert "its layers 250.0 MB, and Lambda accepts 250 MB together" in new.stderr
    assert relay.writes == []
    assert cloud.client("iam").list_roles()["Roles"] == []


def test_options_that_contradict_each_other_are_refused(cloud: Cloud) -> None:
    finished = cloud.deploy("--no-function-url", "--function-url-auth", "NONE")
    assert finished.exit_code == 2
    assert "leave out one of them" in finished.stderr
    finished = cloud.deploy("--bucket", "UPPER")
    assert finished.exit_code == 2
    assert "S3 accepts 3 to 63 lowercase" in finished.stderr
    finished = cloud.deploy("--subnet", "net-1", "--security-group", "sg-1")
    assert finished.exit_code == 2
    assert "Cannot use ['net-1'] for vpc.subnets" in finished.stderr


def test_a_plan_says_by_its_exit_code_whether_something_differs(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        first = cloud.deploy("--plan", "-o", "json")
        assert relay.writes == []
        assert first.exit_code == 4
        assert (first.json["isNew"], first.json["changed"]) == (True, True)
        assert first.json["calls"]
        cloud.deployed("--env", "OLD=1")
        none = cloud.deploy("--plan", "-o", "json")
        assert none.exit_code == 0
        assert (none.json["changed"], none.json["changes"]) == (False, [])
        some = cloud.deploy("--plan", "-o", "json", "--replace-env")
        assert some.exit_code == 4
        assert some.json["needsConfirmation"]
        assert some.json["changes"] == [
            {"what": "env OLD", "before": "***", "after": None, "loses": True}
        ]
        text = cloud.deploy("--plan")
        assert (text.exit_code, text.stdout) == (0, "Nothing to do.\n")


EVENTS = (
    '[[events]]\nsource = "{queue}"\nbatch_size = 5\nreport_failures = true\n'
    "max_concurrency = 4\n"
    '[[events]]\nschedule = "rate(5 minutes)"\ninput = \'{{"kind": "hourly"}}\'\n'
)


def sources_of(cloud: Cloud) -> tuple[list[dict[str, Any]], list[str]]:
    found = cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    rules = cloud.client("events").list_rules()["Rules"]
    return found, [rule["ScheduleExpression"] for rule in rules]


def test_queues_and_schedules_are_made_changed_and_removed(cloud: Cloud) -> None:
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    given = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    queue = given["Attributes"]["QueueArn"]
    toml = HEAD + EVENTS.format(queue=queue)
    with cloud.remembering() as relay:
        deploy(cloud, relay, toml)
        ((mapping,), schedules) = sources_of(cloud)
        assert (mapping["BatchSize"], schedules) == (5, ["rate(5 minutes)"])
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert policy(cloud)["Queues"]["Resource"] == [queue]
        (rule,) = cloud.client("events").list_rules()["Rules"]
        targets = cloud.client("events").list_targets_by_rule(Rule=rule["Name"])
        (target,) = targets["Targets"]
        assert target["Arn"].endswith(":function:fn")
        assert json.loads(target["Input"]) == {"kind": "hourly"}
        permission = next(
            json.loads(body) for line, body in relay.seen if "/policy" in line and body
        )
        assert permission["Principal"] == "events.amazonaws.com"
        assert permission["SourceArn"] == rule["Arn"]
        second = cloud.deploy()
        assert second.stderr == "Nothing to do.\n"
        changed = toml.replace("batch_size = 5", "batch_size = 7")
        changed = changed.replace("rate(5 minutes)", "rate(1 hour)")
        cloud.write_project(changed)
        assert cloud.deploy().exit_code == 2  # a rule would be removed
        assert cloud.deploy("--yes").exit_code == 0
        ((mapping,), schedules) = sources_of(cloud)
        assert (mapping["BatchSize"], schedules) == (7, ["rate(1 hour)"])
        assert cloud.deploy().stderr == "Nothing to do.\n"
        deploy(cloud, relay, HEAD, "--yes")
        assert sources_of(cloud) == ([], [])
        assert "Queues" not in policy(cloud)
        assert cloud.deploy().stderr == "Nothing to do.\n"


def test_deleting_takes_the_event_sources_that_deploy_has_made(cloud: Cloud) -> None:
    sqs = cloud.client("sqs")
    for name in ("orders", "others"):
        sqs.create_queue(QueueName=name)
    queue = f"arn:aws:sqs:{PLACE}:orders"
    with cloud.remembering() as relay:
        deploy(cloud, relay, HEAD + EVENTS.format(queue=queue))
        cloud.client("lambda").create_event_source_mapping(
            EventSourceArn=queue.replace("orders", "others"), FunctionName="fn"
        )
        finished = cloud.run("delete", "project", "--yes")
        assert finished.exit_code == 0, finished.stderr
        ((left,), schedules) = sources_of(cloud)
        assert left["EventSourceArn"].endswith(":others")
        assert schedules == []

"""Settings of lambda.toml for AWS: created, changed, removed, and compared again.

moto accepts most of these parameters and forgets them. A relay in front of it records
the requests and describes the function as Lambda would, so that a second deployment has
something to compare with; what is asserted is the request that was sent. botocore
itself checks each request against Lambda's model before it is sent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

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
        # SnapStart is set by another tool, and stays.
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


def test_a_url_whose_keys_are_removed_is_not_left_open_or_streaming(
    cloud: Cloud,
) -> None:
    """moto does not change the invoke mode: what is asserted is the request."""
    cloud.write_project(f'{HEAD}response_mode = "stream"\n[url]\nauth = "NONE"\n')
    with cloud.relay() as relay:
        cloud.deployed()
        client = cloud.client("lambda")
        found = client.get_function_url_config(FunctionName="fn")
        assert (found["AuthType"], found["InvokeMode"]) == ("NONE", "RESPONSE_STREAM")
        cloud.write_project(f"{HEAD}[url]\n")
        assert cloud.deploy().exit_code == 2
        assert cloud.deploy("--yes", "--replace-env").exit_code == 0
        (sent,) = [
            json.loads(body)
            for line, body in relay.seen
            if line.startswith("PUT ") and line.endswith("/url")
        ]
        assert sent == {"AuthType": "AWS_IAM", "InvokeMode": "BUFFERED"}


def cloud_url(cloud: Cloud, toml: str) -> str:
    cloud.write_project(toml)
    url: str = cloud.deployed()["url"]
    return url


@pytest.mark.cases(1)
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
        replaced = cloud.deploy()  # a rule takes the place of the other
        assert replaced.exit_code == 0, replaced.stderr
        ((mapping,), schedules) = sources_of(cloud)
        assert (mapping["BatchSize"], schedules) == (7, ["rate(1 hour)"])
        assert cloud.deploy().stderr == "Nothing to do.\n"
        cloud.write_project(HEAD)
        asked = cloud.deploy()
        assert asked.exit_code == 2
        assert "it would remove or replace events of " in asked.stderr
        assert cloud.deploy("--yes").exit_code == 0
        assert sources_of(cloud) == ([], [])
        assert "Queues" not in policy(cloud)
        assert cloud.deploy().stderr == "Nothing to do.\n"


@pytest.mark.parametrize(
    ("rest", "start", "missing"),
    [
        (f"sqs:{PLACE}:orders", "", "queue 'orders'"),
        (f"kinesis:{PLACE}:stream/clicks", 'start = "latest"\n', "stream 'clicks'"),
        (
            f"dynamodb:{PLACE}:table/t/stream/2026-01-01T00:00:00.000",
            'start = "latest"\n',
            "such stream of the table 't'",
        ),
    ],
)
def test_source_that_does_not_exist_is_refused_before_anything_is_made(
    cloud: Cloud, rest: str, start: str, missing: str
) -> None:
    cloud.write_project(f'{HEAD}[[events]]\nsource = "arn:aws:{rest}"\n{start}')
    refused = cloud.deploy()
    assert refused.exit_code == 3
    assert f"there is no {missing} in eu-central-1; " in refused.stderr
    assert cloud.client("iam").list_roles()["Roles"] == []
    assert cloud.client("lambda").list_functions()["Functions"] == []


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


def test_another_alias_takes_url_and_schedules_with_it(cloud: Cloud) -> None:
    toml = f'{HEAD}alias = "live"\n[[events]]\nschedule = "rate(1 hour)"\n'
    with cloud.remembering() as relay:
        deploy(cloud, relay, toml)
        (first,) = cloud.client("events").list_rules()["Rules"]
        cloud.write_project(toml.replace('alias = "live"\n', ""))
        moved = cloud.deploy("--yes")
        assert moved.exit_code == 0, moved.stderr
        (second,) = cloud.client("events").list_rules()["Rules"]
        assert first["Name"] != second["Name"]
        targets = cloud.client("events").list_targets_by_rule(Rule=second["Name"])
        assert targets["Targets"][0]["Arn"].endswith(":function:fn")
        assert cloud.deploy().stderr == "Nothing to do.\n"

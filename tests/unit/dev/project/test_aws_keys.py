"""Keys of lambda.toml for AWS: what they accept, and what excludes what."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from lambda_deno_spawn.dev.project.aws_keys import (
    TOP_KEYS,
    check_aws_options,
    conflict,
)
from lambda_deno_spawn.errors import UsageError

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:orders"
STREAM = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders"
TABLE = (
    "arn:aws:dynamodb:eu-central-1:123456789012:table/a/stream/2026-01-01T00:00:00.000"
)
KEY = "arn:aws:kms:eu-central-1:123456789012:key/4d2f6c1e"
POINT = (
    "arn:aws:elasticfilesystem:eu-central-1:123456789012:access-point/"
    "fsap-0123456789abcdef0"
)
PROVIDER = "arn:aws:lambda:eu-central-1:123456789012:capacity-provider:a"
VPC = '[vpc]\nsubnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]\n'
FILES = f'[file_system]\narn = "{POINT}"\npath = "/mnt/a"\n'
MANAGED = f'[managed_instances]\ncapacity_provider = "{PROVIDER}"\n'
DURABLE = "[durable]\ntimeout = 60\n"


def keys(text: str) -> dict[str, Any]:
    return check_aws_options(tomllib.loads(text))


def test_a_table_gives_dotted_names() -> None:
    assert keys(f'tracing = "active"\n{VPC}[logs]\nlevel = "WARN"\n') == {
        "tracing": "active",
        "vpc.subnets": ("subnet-1",),
        "vpc.security_groups": ("sg-1",),
        "logs.level": "WARN",
    }


def test_an_empty_table_url_asks_for_a_url() -> None:
    assert keys("[url]\n") == {"url.enabled": True}
    assert keys("[url]\nenabled = false\n") == {"url.enabled": False}
    assert keys("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('tenancy = "shared"', "tenancy; expected one of per-tenant"),
        ('snapstart = "on"', "snapstart; expected true or false"),
        ('tracing = "Active"', "tracing; expected one of active, pass-through"),
        ('kms_key = "alias/mine"', "kms_key; expected the ARN of a KMS key"),
        (f'kms_key = "{KEY.replace("key/", "alias/")}"', "the ARN of a KMS key"),
        ('dead_letter = "failed"', "the ARN of an SQS queue or an SNS topic"),
        ("reserved_concurrency = -1", "reserved_concurrency; expected a whole number"),
        ("provisioned_concurrency = 0", "a whole number of environments from 1"),
        ("provisioned_concurrency = true", "a whole number of environments from 1"),
        ('alias = "7"', "not digits alone"),
        ('bucket = "Mine"', "the name of a bucket"),
        ("vpc = 1", "expected a table: [vpc] and lines KEY = value"),
        ('[vpc]\nsubnets = ["subnet-1"]', "subnets and security_groups in [vpc]"),
        ('[vpc]\nsubnets = []\nsecurity_groups = ["sg-1"]', "a list of 1 to 16 subnet"),
        ('[vpc]\nsubnets = "subnet-1"\nsecurity_groups = ["sg-1"]', "a list of 1 to"),
        ('[vpc]\nsubnet = ["subnet-1"]', "subnets and security_groups in [vpc]"),
        (f"{VPC}sgs = 1", "vpc.sgs; expected no such key"),
        ('[logs]\nlevel = "info"', "logs.level; expected one of TRACE, DEBUG, INFO"),
        ('[logs]\nformat = "JSON"', "logs.format; expected one of json, text"),
        ("[logs]\nretention = 31", "logs.retention; expected one of 1, 3, 5"),
        ('[logs]\ngruop = "/a"', "did you mean group?"),
        ('[url]\nauth = "none"', "url.auth; expected one of AWS_IAM, NONE"),
        ("[url.cors]\nmax_age = 1", "origins in [url.cors]"),
        ('[url.cors]\norigins = ["example.com"]', "origins such as https://"),
        ('[url.cors]\norigins = ["*"]\nmethods = ["get"]', "methods: GET, PUT"),
        ('[url.cors]\norigins = ["*"]\ncredential = true', "did you mean credentials?"),
        ("[durable]\nretention = 3", "timeout in [durable]"),
        ("[durable]\ntimeout = 31622401", "from 1 to 31622400"),
        ("[managed_instances]\nconcurrency = 3", "capacity_provider in [managed_"),
        (f"{MANAGED}concurrency = 1601", "from 1 to 1600"),
        ('[file_system]\npath = "/mnt/a"', "arn and path in [file_system]"),
        (f'[file_system]\narn = "{POINT}"\npath = "/data"', "a path such as /mnt/data"),
        ("events = 1", "events; expected tables: [[events]]"),
        ("[[events]]\nbatch_size = 1", "either source or schedule"),
        (f'[[events]]\nsource = "{QUEUE}"\nschedule = "rate(1 day)"', "either source"),
        ('[[events]]\nsource = "orders"', "the ARN of an SQS queue, a Kinesis"),
        ('[[events]]\nschedule = "rate(5 minute)"', "rate(5 minutes) or cron("),
        ('[[events]]\nschedule = "every day"', "rate(5 minutes) or cron("),
        ('[[events]]\nschedule = "rate(1 day)"\ninput = "{"', "input; expected JSON"),
        ('[[events]]\nschedule = "rate(1 day)"\nbatch_size = 2', "beside schedule"),
        (f"[[events]]\nsource = \"{QUEUE}\"\ninput = '1'", "no such key beside source"),
        (f'[[events]]\nsource = "{QUEUE}"\nstart = "latest"', "key for a queue"),
        (f'[[events]]\nsource = "{QUEUE}"\nbatch_size = 11', "batch_window = 1 or"),
        (f'[[events]]\nsource = "{QUEUE}.fifo"\nbatch_size = 11\nbatch_window = 1',
         "at most 10, for a FIFO queue"),
        (f'[[events]]\nsource = "{STREAM}"\nmax_concurrency = 3', "a queue beside it"),
        (f'[[events]]\nsource = "{STREAM}"\nfilters = ["{{"]', "expected JSON"),
        (f'[[events]]\nsource = "{QUEUE}"\nbatch = 1', "did you mean batch_"),
        (f'[[events]]\nsource = "{QUEUE}"\n[[events]]\nsource = "{QUEUE}"\n',
         "a source that is not there twice"),
    ],
)  # fmt: skip
def test_what_a_key_does_not_accept_is_said_with_what_it_does(
    text: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        keys(text)
    assert says in str(caught.value)


def test_sources_say_where_they_are_read_first() -> None:
    found = keys(
        f'[[events]]\nsource = "{QUEUE}"\n[[events]]\nsource = "{STREAM}"\n'
        f'[[events]]\nsource = "{TABLE}"\nstart = "oldest"\n'
    )["events"]
    assert [item.start for item in found] == [None, "LATEST", "TRIM_HORIZON"]


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        ('tenancy = "per-tenant"\n[url]', {"url": True}, "tenancy cannot be used with"),
        ('tenancy = "per-tenant"\nsnapstart = true', {}, "with snapstart"),
        ('tenancy = "per-tenant"\nprovisioned_concurrency = 1', {"alias": "a"},
         "with provisioned_concurrency"),
        (f'tenancy = "per-tenant"\n[[events]]\nsource = "{QUEUE}"', {}, "[[events]]"),
        ("snapstart = true\nprovisioned_concurrency = 1", {"alias": "a"}, "snapstart"),
        (f"snapstart = true\n{VPC}{FILES}", {}, "snapstart cannot be used with file"),
        ("snapstart = true", {"storage_mb": 513}, "storage = 513: AWS accepts 512 MB"),
        ("snapstart = true", {"runtime": "provided.al2023"}, "choose python3.12"),
        (DURABLE, {"runtime": "python3.12"}, "choose python3.13 or python3.14"),
        (DURABLE, {"runtime": "provided.al2023"}, "durable cannot be used with"),
        (f"snapstart = true\n{MANAGED}", {}, "managed_instances cannot be used with"),
        (f'tenancy = "per-tenant"\n{MANAGED}', {}, "managed_instances cannot be used"),
        (f"provisioned_concurrency = 1\n{MANAGED}", {"alias": "a"}, "always ready"),
        (MANAGED, {"runtime": "python3.12"}, "choose python3.13, python3.14, provided"),
        (f"{MANAGED}{VPC}", {}, "the capacity provider has the network"),
        (MANAGED, {"memory_mb": 1024}, "memory = 1024: AWS accepts 2048 to 32768 MB"),
        ('[logs]\nformat = "text"\nlevel = "INFO"', {}, 'levels need format = "json"'),
        (FILES, {}, "EFS is reached through a VPC"),
        ('[url.cors]\norigins = ["*"]\ncredentials = true', {}, "name the origins"),
        ('[url]\nenabled = false\nauth = "NONE"', {}, "with url.enabled = false"),
        ("provisioned_concurrency = 1", {}, "AWS provides it for an alias"),
        ("reserved_concurrency = 1\nprovisioned_concurrency = 2", {"alias": "a"},
         "it may not be larger"),
    ],
)  # fmt: skip
def test_what_aws_refuses_together_is_refused(
    text: str, given: dict[str, Any], says: str
) -> None:
    options = {"runtime": "python3.13", **given}
    problem = conflict(keys(text), **options)
    assert problem is not None
    assert says in problem


@pytest.mark.parametrize(
    "text",
    [f'tenancy = "per-tenant"\n{VPC}{FILES}', f"{MANAGED}[url]\n", f"{DURABLE}[url]\n",
     f"snapstart = true\n{VPC}", 'tracing = "active"\n[logs]\nlevel = "INFO"\n'],
)  # fmt: skip
def test_what_aws_accepts_together_is_accepted(text: str) -> None:
    url = True if "[url]" in text else None
    assert conflict(keys(text), runtime="python3.13", url=url) is None


def test_every_top_key_is_read() -> None:
    for key in TOP_KEYS:
        with pytest.raises(UsageError):
            check_aws_options({key: 1.5})

"""Deployments that are killed, that meet each other, that AWS slows down or refuses.

A relay in front of moto answers where moto cannot fail, and remembers the settings that
moto forgets.
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
    from tests.fixtures.cloud import Cloud

HEAD = 'name = "fn"\n'
LIVE = f'{HEAD}alias = "live"\n'
FULL = (
    f'{LIVE}tracing = "active"\nreserved_concurrency = 9\n'
    'provisioned_concurrency = 3\n[url]\nauth = "AWS_IAM"\n'
    '[logs]\nformat = "json"\n[[events]]\nschedule = "rate(1 hour)"\n'
)


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    empty_cloud.build_layers()
    return empty_cloud


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


@pytest.mark.long
@pytest.mark.parametrize("what", ["created", "removed", "deleted"])
def test_killed_after_each_call_the_same_command_finishes(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each run is killed after its first call that writes, until none is left.

    What one run has done is not done again, and what it has not done is done.
    """
    command = ["deploy", "project", "--package", cloud.package(), "--yes"]
    if what == "deleted":
        command = ["delete", "project", "--delete-logs", "--yes"]
    with cloud.remembering() as relay:
        cloud.write_project(FULL)
        if what != "created":
            cloud.deployed()
        if what == "removed":
            cloud.write_project(LIVE)
        killed: list[str] = []
        finished = None
        with monkeypatch.context() as patch:
            patch.setattr(Aws, "call", killing(killed))
            while finished is None:
                with contextlib.suppress(Killed):
                    finished = cloud.run(*command)
        assert len(killed) >= (5 if what == "deleted" else 8), killed
        client = cloud.client("lambda")
        rules = cloud.client("events").list_rules()["Rules"]
        assert len(rules) == (1 if what == "created" else 0)
        if what == "deleted":
            # The last run was killed after its last call, and nothing is left to do.
            assert "nothing of it is left" in finished.stderr
            assert client.list_functions()["Functions"] == []
            assert cloud.client("iam").list_roles()["Roles"] == []
            return
        assert finished.exit_code == 0, finished.stderr
        assert cloud.deploy().stderr == "Nothing to do.\n"
        assert relay.provisioned == ({"live": 3} if what == "created" else {})
        found = relay.settings["TracingConfig"]
        assert found == {"Mode": "Active" if what == "created" else "PassThrough"}
        versions = client.list_versions_by_function(FunctionName="fn")["Versions"]
        # $LATEST, one for each deployment, and one more: killed before its alias moved.
        assert len(versions) <= (3 if what == "created" else 4)


@pytest.mark.long
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
        ended = [(process.communicate(timeout=400)[1], process) for process in running]
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


@pytest.mark.cases(1)
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


def test_a_plan_is_not_made_for_a_state_that_is_not_known(cloud: Cloud) -> None:
    """AWS said only that it is asked too often while a change was in progress."""
    cloud.deployed()
    with cloud.relay() as relay:
        relay.answers("GET /2015-03-31/functions/fn$",
                      Reply(merged={"LastUpdateStatus": "InProgress"}))  # fmt: skip
        relay.answers("GET /2015-03-31/functions/fn$", Reply(429, {"Message": "slow"},
                      "TooManyRequestsException", times=4))  # fmt: skip
        finished = cloud.deploy("--memory", "1024")
        assert finished.exit_code == 3
        assert "AWS accepts no more calls right now" in finished.stderr
        assert relay.writes == []


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
    finished = cloud.deploy("--subnet", "subnet-0a1b2c3d")
    assert finished.exit_code == 2
    assert "--subnet without --security-group" in finished.stderr
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


def test_a_bucket_of_another_region_is_refused_before_anything_is_made(
    cloud: Cloud,
) -> None:
    """Lambda refused it after the role and the log group had been made."""
    cloud.client("s3", "us-west-2").create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    with cloud.relay() as relay:
        finished = cloud.deploy("--bucket", "far-away")
    assert finished.exit_code == 3
    assert "it is in us-west-2, and Lambda reads packages of eu-central-1" in (
        finished.stderr
    )
    assert relay.writes == []
    assert cloud.client("iam").list_roles()["Roles"] == []

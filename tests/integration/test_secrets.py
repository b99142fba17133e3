"""Secrets by reference: fetched from a stand-in for AWS, and from a server with faults.

The last part runs the real runtime under ``invoke``.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from lambda_deno_spawn.config import SecretReference
from lambda_deno_spawn.errors import SecretError
from lambda_deno_spawn.runtime_api.secrets import fetch_secrets
from tests.fixtures.aws import aws_stand_in
from tests.fixtures.command import run_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.fixtures.cloud import Cloud

SECRET = "hunter2 = ü"
NAMES = [f"/orders/{number}" for number in range(12)]


@pytest.fixture(scope="module")
def aws() -> Iterator[Mapping[str, str]]:
    """Parameters and secrets, more of them than one call returns."""
    with aws_stand_in() as environ:
        arguments = {
            "endpoint_url": environ["AWS_ENDPOINT_URL"],
            "region_name": environ["AWS_REGION"],
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
        }
        ssm = boto3.client("ssm", **arguments)
        for name in NAMES:
            ssm.put_parameter(Name=name, Value=f"of {name}", Type="SecureString")
        ssm.put_parameter(
            Name=NAMES[0], Value=SECRET, Type="SecureString", Overwrite=True
        )
        manager = boto3.client("secretsmanager", **arguments)
        members = json.dumps({"user": "ada", "password": SECRET, "port": 5432})
        manager.create_secret(Name="orders/db", SecretString=members)
        manager.create_secret(Name="binary", SecretBinary=b"\x00")
        yield environ


def fetch(environ: Mapping[str, str], *references: str) -> dict[str, str]:
    found = []
    for number, text in enumerate(references):
        store, _, place = text.partition(":")
        name, _, key = place.partition("#")
        found.append(SecretReference(f"V{number}", store, name, key))
    return fetch_secrets(found, environ, sleep=lambda _: None)


def test_values_come_from_both_services(aws: Mapping[str, str]) -> None:
    found = fetch(
        aws,
        "ssm:/orders/0:1",
        *(f"ssm:{name}" for name in NAMES),
        "secretsmanager:orders/db#password",
        "secretsmanager:orders/db#port",
    )
    assert list(found.values()) == [
        "of /orders/0", SECRET, *(f"of {name}" for name in NAMES[1:]), SECRET, "5432"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("ssm:/nowhere", "Cannot fetch the parameter '/nowhere': there is none of this "
         "name in eu-central-1"),
        ("secretsmanager:nowhere", "Cannot fetch the secret 'nowhere': AWS refused: "
         "ResourceNotFoundException"),
        ("secretsmanager:binary", "Cannot use the secret 'binary': it is binary"),
        ("secretsmanager:orders/db#nobody", "the member 'nobody' is missing"),
    ],
)  # fmt: skip
def test_secret_that_is_not_there_is_named(
    aws: Mapping[str, str], reference: str, problem: str
) -> None:
    with pytest.raises(SecretError) as caught:
        fetch(aws, reference)
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


OK = {"Parameters": [{"Name": "/a", "Value": "fine"}]}
Reply = tuple[int, Any]


@contextmanager
def server(*replies: Reply) -> Iterator[tuple[dict[str, str], list[Any]]]:
    """Serve replies in their order; the last one again and again."""
    seen: list[Any] = []
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.headers["X-Amz-Target"], json.loads(body)))
            status, answer = left.pop(0) if len(left) > 1 else left[0]
            if status == 0:  # half a body
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"Parameters"')
                self.close_connection = True
                return
            text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield (
                {
                    "AWS_ENDPOINT_URL_SSM": f"http://127.0.0.1:{found.server_port}",
                    "AWS_REGION": "eu-central-1",
                    "AWS_ACCESS_KEY_ID": "local",
                    "AWS_SECRET_ACCESS_KEY": "local",
                },
                seen,
            )
        finally:
            found.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "fault",
    [
        (500, b"oops"),
        (503, {}),
        (429, {}),
        (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}),
        (200, b"<html>"),
        (0, b""),
    ],
    ids=["500", "503", "429", "throttled", "not-json", "half-a-body"],
)
def test_passing_fault_is_overcome(fault: Reply) -> None:
    with server(fault, fault, (200, OK)) as (environ, seen):
        assert fetch(environ, "ssm:/a") == {"V0": "fine"}
    call = ("AmazonSSM.GetParameters", {"Names": ["/a"], "WithDecryption": True})
    assert seen == [call] * 3


@pytest.mark.parametrize(
    ("fault", "calls", "problem"),
    [
        ((500, {}), 3, "status 500; a function in a VPC"),
        ((400, {"__type": "x#AccessDeniedException", "Message": "not authorized to "
                "perform: ssm:GetParameters"}), 1,
         "AWS refused: AccessDeniedException: not authorized to perform: ssm:GetPar"),
        ((200, {"Parameters": None, "InvalidParameters": ["/a"]}), 1, "there is none"),
        ((200, {"Parameters": [1, {"Name": "/a", "Value": 7}]}), 1, "there is none"),
        ((200, b'"' + b"x" * 2_000_000 + b'"'), 3, "the answer is too large"),
    ],
    ids=["500", "denied", "missing", "odd", "large"],
)  # fmt: skip
def test_lasting_fault_is_reported(fault: Reply, calls: int, problem: str) -> None:
    with server(fault) as (environ, seen), pytest.raises(SecretError) as caught:
        fetch(environ, "ssm:/a")
    assert problem in str(caught.value)
    assert len(seen) == calls


def test_start_waits_no_longer_than_its_limit() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 2.0
        return now[0]

    references = [SecretReference("V0", "ssm", "/a")]
    with server((500, {})) as (environ, seen), pytest.raises(SecretError):
        fetch_secrets(references, environ, clock, lambda _: None)
    assert len(seen) == 1


def test_server_that_is_not_there_is_named() -> None:
    environ = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    with pytest.raises(SecretError, match=r"from 127\.0\.0\.1:9: Connection refused"):
        fetch(environ, "ssm:/a")
    with pytest.raises(SecretError, match="there are no credentials"):
        fetch({"AWS_REGION": "eu-central-1"}, "ssm:/a")
    with pytest.raises(SecretError, match="there is no region"):
        fetch({}, "ssm:/a")


FUNCTION = """
export const handler = () => ({
  password: Deno.env.get("PASSWORD"),
  port: Deno.env.get("PORT"),
  setting: Deno.env.get("LAMBDA_DENO_SECRETS"),
});
if (Deno.env.get("PASSWORD") === undefined) throw new Error("not while it loads");
"""
TOML = """
[env]
PASSWORD = { from = "ssm", name = "/orders/0" }
PORT = { from = "secretsmanager", name = "orders/db", key = "port" }
[stage.wrong.env]
PORT = { from = "ssm", name = "/nowhere" }
"""


@pytest.mark.deno
def test_handler_has_the_values_and_the_log_does_not(
    aws: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "function.js").write_text(FUNCTION)
    (tmp_path / "lambda.toml").write_text(TOML)
    environ = {**os.environ, **aws, "AWS_LAMBDA_LOG_LEVEL": "DEBUG"}
    arguments = ("invoke", ".", "-v", "-o", "json")
    done = run_command(*arguments, cwd=tmp_path, environ=environ)
    result = json.loads(done.stdout)["result"]
    assert result == {"password": SECRET, "port": "5432"}, done.stderr
    assert SECRET not in done.stderr.decode()

    # What is given takes its place, so it takes no AWS.
    given = ("--env", "PASSWORD=local", "--env", "PORT=1")
    done = run_command(*arguments, *given, cwd=tmp_path)
    result = json.loads(done.stdout)["result"]
    assert result == {"password": "local", "port": "1"}, done.stderr

    done = run_command(*arguments, "--stage", "wrong", cwd=tmp_path, environ=environ)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["errorType"] == "Runtime.SecretUnavailable"
    assert "Cannot fetch the parameter '/nowhere'" in error["errorMessage"]


def test_deployed_role_may_read_the_secrets(empty_cloud: Cloud) -> None:
    empty_cloud.build_layers()
    empty_cloud.write_project(f'name = "fn"\n{TOML}')
    empty_cloud.deployed()
    variables = empty_cloud.function()["Environment"]["Variables"]
    assert variables["LAMBDA_DENO_SECRETS"] == (
        "PASSWORD=ssm:/orders/0 PORT=secretsmanager:orders/db#port"
    )
    policy = empty_cloud.client("iam").get_role_policy(
        RoleName="fn-role", PolicyName="logs-eu-central-1"
    )["PolicyDocument"]
    actions = [action for one in policy["Statement"] for action in one["Action"]]
    assert actions[2:] == ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
    finished = empty_cloud.deploy()
    assert finished.stderr == "Nothing to do.\n"

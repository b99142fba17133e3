"""Credentials of a profile, for a function that runs here. No network."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.aws.credentials import function_environ

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[profile keys]
aws_access_key_id = AKIDKEYS
aws_secret_access_key = secret
region = eu-west-3
[profile sso]
sso_start_url = https://example.awsapps.com/start
sso_region = eu-central-1
sso_account_id = 123456789012
sso_role_name = dev
[profile role]
role_arn = arn:aws:iam::123456789012:role/dev
source_profile = keys
region = eu-central-1
[profile program]
credential_process = false
[default]
region = eu-north-1
"""
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configuration files of AWS, and nothing else that botocore looks at."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "config"
    path.write_text(CONFIG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    # Nothing answers there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    return path


def resolve() -> tuple[dict[str, str], list[str]]:
    notes: list[str] = []
    return dict(function_environ(os.environ, notes.append)), notes


def test_profile_becomes_variables(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "keys")
    environ, notes = resolve()
    assert (environ["AWS_ACCESS_KEY_ID"], environ["AWS_REGION"]) == (
        "AKIDKEYS", "eu-west-3",
    )  # fmt: skip
    # An SDK that sees the name of a profile looks for files that it may not read.
    assert "AWS_PROFILE" not in environ
    assert notes == []
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert resolve()[0]["AWS_REGION"] == "us-west-2"


def test_variables_of_the_caller_come_first(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "keys")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDMINE")
    assert resolve() == (dict(os.environ), [])


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("sso", "aws sso login"),
        ("role", "nothing answers at http://127.0.0.1:9"),
        ("program", "check where the profile gets them from"),
        ("typo", "Cannot use the profile 'typo'"),
    ],
)
def test_profile_without_credentials_is_said_and_the_handler_runs(
    config: Path, monkeypatch: pytest.MonkeyPatch, profile: str, says: str
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    environ, (note,) = resolve()
    assert note.startswith("the handler gets no credentials: ")
    assert says in note
    assert not set(NAMES) & set(environ)


def test_an_instance_s_role_is_not_asked_for(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from AWS, that would delay each invocation."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        environ, notes = resolve()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert notes == [], "no profile was chosen, so none is missed"
    assert not set(NAMES) & set(environ)
    config.unlink()
    assert resolve()[0] == dict(os.environ)

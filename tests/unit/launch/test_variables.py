"""The variables that a process gets, and those that are withheld."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.launch.variables import withheld_credentials
from tests.unit.launch.function import RUNTIME_API, Function

pytestmark = pytest.mark.as_lambda


def test_the_runtime_s_own_variables_are_withheld(function: Function) -> None:
    environ = {
        "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
        "_X_AMZN_TRACE_ID": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        "_LAMBDA_TELEMETRY_LOG_FD": "62",
        "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET": "/tmp/s",
        "_LAMBDA_CONTROL_SOCKET": "15",
        "LAMBDA_DENO_WARM": "off",
        "LAMBDA_DENO_WRAM": "off",
        "_HANDLER": "function.handler",
        "AWS_SESSION_TOKEN": "token",
        "AWS_LAMBDA_METADATA_TOKEN": "m",
        "TABLE": "t",
    }
    assert function.command(environ).environ == {
        "_HANDLER": "function.handler",
        "AWS_SESSION_TOKEN": "token",
        "AWS_LAMBDA_METADATA_TOKEN": "m",
        "TABLE": "t",
        "DENO_DISABLE_NODE_SHIM": "1",
        "DENO_NO_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
    }


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ("", []),
        ("TABLE", ["TABLE"]),
        ("AWS_*", ["AWS_REGION"]),
        ("AWS_* TABLE", ["AWS_REGION", "TABLE"]),
        ("*", ["AWS_REGION", "TABLE"]),
        ("AWS_SESSION_TOKEN", ["AWS_SESSION_TOKEN"]),
        ("AWS_SESSION_T*", []),
        ("AWS_* @credentials", ["AWS_REGION", "AWS_SESSION_TOKEN"]),
        ("AWS", []),
        ("MISSING", []),
        ("AWS_LAMBDA_RUNTIME_API,_X_AMZN_TRACE_ID", []),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
def test_an_allow_list_hands_on_what_it_names(
    function: Function, names: str, kept: list[str]
) -> None:
    environ = {
        "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
        "_X_AMZN_TRACE_ID": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        "AWS_REGION": "eu-central-1",
        "AWS_SESSION_TOKEN": "token",
        "TABLE": "t",
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "LD_LIBRARY_PATH": "/lib64",
    }
    command = function.command(environ, LAMBDA_DENO_ENV=names)
    always = ["PATH", "LANG", "TZ", "LD_LIBRARY_PATH"]
    always += ["DENO_DISABLE_NODE_SHIM", "DENO_NO_UPDATE_CHECK", "NO_COLOR"]
    assert sorted(command.environ) == sorted([*kept, *always])


def test_home_and_tmpdir_are_the_process_s_own(function: Function) -> None:
    command = function.command({"HOME": "/root", "TMPDIR": "/tmp"})
    environ = command.process_environ("/tmp/private", "/tmp/cache")
    assert environ["DENO_DIR"] == "/tmp/cache"
    assert (environ["HOME"], environ["TMPDIR"]) == ("/tmp/private", "/tmp/private")
    assert command.environ["HOME"] == "/root"


ALL_CREDENTIALS = [
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY", "AWS_SECURITY_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_LAMBDA_METADATA_TOKEN",
]  # fmt: skip


@pytest.mark.parametrize("name", ALL_CREDENTIALS)
def test_no_wildcard_matches_credentials(function: Function, name: str) -> None:
    environ = {name: "secret"}

    def hands_on(names: str | None) -> bool:
        variables = {} if names is None else {"LAMBDA_DENO_ENV": names}
        command = function.command(environ, **variables)
        hints = command.facts["permissions"]
        assert isinstance(hints, dict)
        assert hints["credentialsWithheld"] is (name not in command.environ)
        return name in command.environ

    assert hands_on(None)
    assert hands_on(name)
    assert hands_on("@credentials")
    assert hands_on("* @credentials")
    assert not hands_on("")
    assert not hands_on("*")
    assert not hands_on("AWS_*")
    assert not hands_on(f"{name}*")


@pytest.mark.parametrize(
    ("names", "withheld"),
    [
        (None, []),
        ("@credentials", []),
        ("AWS_SESSION_TOKEN", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
        ("*", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]),
    ],
)
def test_what_leads_to_fetched_credentials_is_withheld(
    function: Function, names: str | None, withheld: list[str]
) -> None:
    """It leads to the Runtime API's address, which no process may reach."""
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{RUNTIME_API}/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
        "TABLE": "t",
    }
    variables = {} if names is None else {"LAMBDA_DENO_ENV": f"TABLE {names}"}
    command = function.command(environ, **environ, **variables)
    settings = function.settings(**environ, **variables)
    assert command.environ.keys() & environ.keys() == {"TABLE"}
    assert sorted(withheld_credentials(settings)) == withheld
    hints = command.facts["permissions"]
    assert isinstance(hints, dict)
    assert hints["credentialsWithheld"] is bool(withheld)

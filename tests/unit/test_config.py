"""Every variable: its default, what is accepted, and what the refusal says."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.config import (
    LogFormat,
    LogLevel,
    Metrics,
    ResponseMode,
    Settings,
    Sigterm,
    Strategy,
    Warm,
)
from lambda_deno_spawn.errors import ConfigError
from lambda_deno_spawn.permissions import Mode, Permissions

REQUIRED = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001", "_HANDLER": "function.handler"}
PERMISSIONS = (
    "none, all, default, or Deno's permission flags such as --allow-net=example.com"
)
NAMES = (
    "names of variables separated by spaces or commas, with * only as the last "
    "character, or @credentials"
)
V8_FLAGS = "V8 flags such as --max-old-space-size=256"


def parse(**variables: str) -> Settings:
    return Settings.from_environ({**REQUIRED, **variables}, "/cwd")


def test_defaults_need_no_more_than_an_address_and_a_handler() -> None:
    assert Settings.from_environ(REQUIRED, "/cwd") == Settings(
        runtime_api="127.0.0.1:9001",
        handler="function.handler",
        task_root="/cwd",
        function_name="",
        function_version="",
        memory_mb=None,
        log_group_name="",
        log_stream_name="",
        strategy=Strategy.FRESH,
        warm=Warm.BACKGROUND,
        warm_max_age_s=None,
        stop_margin_s=0.2,
        response_mode=ResponseMode.BUFFERED,
        permissions=Permissions(),
        env_names=None,
        v8_flags=(),
        deno_bin=None,
        deno_dir=None,
        temp_root="/tmp",
        log_format=LogFormat.TEXT,
        log_level=LogLevel.INFO,
        metrics=Metrics.OFF,
        sigterm=Sigterm.OFF,
        close_grace_s=0.1,
        last_words_s=2.0,
        is_snap_start=False,
        credentials_uri=None,
        credentials_token="",
        telemetry_fd=None,
        unknown=(),
    )


def test_an_environment_of_lambda_s_is_read() -> None:
    settings = parse(
        LAMBDA_TASK_ROOT="/var/task",
        AWS_LAMBDA_FUNCTION_NAME="hello",
        AWS_LAMBDA_FUNCTION_VERSION="$LATEST",
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1769",
        AWS_LAMBDA_LOG_GROUP_NAME="/aws/lambda/hello",
        AWS_LAMBDA_LOG_STREAM_NAME="2026/11/23/[$LATEST]0123",
        AWS_LAMBDA_INITIALIZATION_TYPE="on-demand",
        AWS_LAMBDA_LOG_FORMAT="JSON",
        AWS_LAMBDA_LOG_LEVEL="DEBUG",
        AWS_REGION="eu-central-1",
    )
    assert settings == Settings(
        runtime_api="127.0.0.1:9001",
        handler="function.handler",
        task_root="/var/task",
        function_name="hello",
        function_version="$LATEST",
        memory_mb=1769,
        log_group_name="/aws/lambda/hello",
        log_stream_name="2026/11/23/[$LATEST]0123",
        warm=Warm.READY,
        log_format=LogFormat.JSON,
        log_level=LogLevel.DEBUG,
    )


def test_the_telemetry_descriptor_is_not_for_managed_instances() -> None:
    """There it must not be used (AWS's own clients connect to a socket instead)."""
    settings = parse(
        _LAMBDA_TELEMETRY_LOG_FD="62",
        _LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET="/tmp/socket",
    )
    assert settings.telemetry_fd is None


GOOD = [
    ("LAMBDA_DENO_METRICS", "off", "metrics", Metrics.OFF),
    ("LAMBDA_DENO_METRICS", "json", "metrics", Metrics.JSON),
    ("LAMBDA_DENO_METRICS", "EMF", "metrics", Metrics.EMF),
    ("LAMBDA_DENO_SIGTERM", "ON", "sigterm", Sigterm.ON),
    ("LAMBDA_DENO_SIGTERM", "off", "sigterm", Sigterm.OFF),
    ("LAMBDA_DENO_CLOSE_GRACE_MS", "0", "close_grace_s", 0.0),
    ("LAMBDA_DENO_CLOSE_GRACE_MS", "550", "close_grace_s", 0.55),
    ("LAMBDA_DENO_LAST_WORDS_MS", "0", "last_words_s", 0.0),
    ("LAMBDA_DENO_LAST_WORDS_MS", "2500", "last_words_s", 2.5),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start", "is_snap_start", True),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand", "is_snap_start", False),
    ("_LAMBDA_TELEMETRY_LOG_FD", "62", "telemetry_fd", 62),
    ("_LAMBDA_TELEMETRY_LOG_FD", "none", "telemetry_fd", None),
    ("LAMBDA_DENO_STRATEGY", "fresh", "strategy", Strategy.FRESH),
    ("LAMBDA_DENO_STRATEGY", "Server", "strategy", Strategy.SERVER),
    ("LAMBDA_DENO_STRATEGY", "fresh", "invocations", 1),
    ("LAMBDA_DENO_STRATEGY", "server", "invocations", 0),
    ("LAMBDA_DENO_MAX_INVOCATIONS", "20", "invocations", 20),
    ("AWS_LAMBDA_MAX_CONCURRENCY", "16", "concurrency", 16),
    ("LAMBDA_DENO_WARM", "ready", "warm", Warm.READY),
    ("LAMBDA_DENO_WARM", "background", "warm", Warm.BACKGROUND),
    ("LAMBDA_DENO_WARM", "OFF", "warm", Warm.OFF),
    ("LAMBDA_DENO_WARM_MAX_AGE_S", "0", "warm_max_age_s", 0.0),
    ("LAMBDA_DENO_WARM_MAX_AGE_S", "2.5", "warm_max_age_s", 2.5),
    ("LAMBDA_DENO_STOP_MARGIN_MS", "0", "stop_margin_s", 0.0),
    ("LAMBDA_DENO_STOP_MARGIN_MS", "350", "stop_margin_s", 0.35),
    ("LAMBDA_DENO_STOP_MARGIN_MS", "1e3", "stop_margin_s", 1.0),
    (
        "LAMBDA_DENO_RESPONSE_MODE",
        "buffered",
        "response_mode",
        ResponseMode.BUFFERED,
    ),
    ("LAMBDA_DENO_RESPONSE_MODE", "Stream", "response_mode", ResponseMode.STREAM),
    ("LAMBDA_DENO_PERMISSIONS", "  ", "permissions", Permissions()),
    (
        "LAMBDA_DENO_PERMISSIONS",
        " none ",
        "permissions",
        Permissions("none", Mode.NONE, is_cached_only=True),
    ),
    ("LAMBDA_DENO_ENV", "A,B_*  C", "env_names", ("A", "B_*", "C")),
    ("LAMBDA_DENO_ENV", "*", "env_names", ("*",)),
    ("LAMBDA_DENO_ENV", "A,@credentials", "env_names", ("A", "@credentials")),
    ("LAMBDA_DENO_V8_FLAGS", "--a --b=1,--c", "v8_flags", ("--a", "--b=1", "--c")),
    ("LAMBDA_DENO_BIN", "/opt/other/deno", "deno_bin", "/opt/other/deno"),
    ("DENO_DIR", "/var/task/cache", "deno_dir", "/var/task/cache"),
    ("TMPDIR", "/mnt/tmp", "temp_root", "/mnt/tmp"),
    ("LAMBDA_TASK_ROOT", "/var/task", "task_root", "/var/task"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128", "memory_mb", 128),
    ("AWS_LAMBDA_LOG_FORMAT", "JSON", "log_format", LogFormat.JSON),
    ("AWS_LAMBDA_LOG_FORMAT", "json", "log_format", LogFormat.JSON),
    ("AWS_LAMBDA_LOG_FORMAT", "Text", "log_format", LogFormat.TEXT),
    ("AWS_LAMBDA_LOG_LEVEL", "TRACE", "log_level", LogLevel.TRACE),
    ("AWS_LAMBDA_LOG_LEVEL", "debug", "log_level", LogLevel.DEBUG),
    ("AWS_LAMBDA_LOG_LEVEL", "Info", "log_level", LogLevel.INFO),
    ("AWS_LAMBDA_LOG_LEVEL", "WARN", "log_level", LogLevel.WARN),
    ("AWS_LAMBDA_LOG_LEVEL", "ERROR", "log_level", LogLevel.ERROR),
    ("AWS_LAMBDA_LOG_LEVEL", "FATAL", "log_level", LogLevel.FATAL),
]


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "expected"),
    [pytest.param(*case, id=f"{case[0]}={case[1]}") for case in GOOD],
)
def test_a_good_value_is_accepted(
    variable: str, value: str, attribute: str, expected: object
) -> None:
    found = getattr(parse(**{variable: value}), attribute)
    assert found == expected
    assert type(found) is type(expected)


BAD = [
    ("LAMBDA_DENO_STRATEGY", "pool", "fresh or server"),
    ("LAMBDA_DENO_MAX_INVOCATIONS", "0", "a whole number, one or more"),
    ("LAMBDA_DENO_MAX_INVOCATIONS", "many", "a whole number, one or more"),
    ("AWS_LAMBDA_MAX_CONCURRENCY", "-1", "a whole number, one or more"),
    ("LAMBDA_DENO_WARM", "hot", "ready or background or off"),
    ("LAMBDA_DENO_WARM", " ready", "ready or background or off"),
    ("LAMBDA_DENO_WARM_MAX_AGE_S", "-1", "a number of seconds, zero or more"),
    ("LAMBDA_DENO_WARM_MAX_AGE_S", "1h", "a number of seconds, zero or more"),
    ("LAMBDA_DENO_WARM_MAX_AGE_S", "inf", "a number of seconds, zero or more"),
    ("LAMBDA_DENO_STOP_MARGIN_MS", "-0.1", "a number of milliseconds, zero or more"),
    ("LAMBDA_DENO_STOP_MARGIN_MS", "nan", "a number of milliseconds, zero or more"),
    ("LAMBDA_DENO_STOP_MARGIN_MS", "1e999", "a number of milliseconds, zero or more"),
    ("LAMBDA_DENO_SIGTERM", "yes", "off or on"),
    ("LAMBDA_DENO_CLOSE_GRACE_MS", "-1", "a number of milliseconds, zero or more"),
    ("LAMBDA_DENO_LAST_WORDS_MS", "soon", "a number of milliseconds, zero or more"),
    ("LAMBDA_DENO_RESPONSE_MODE", "streaming", "buffered or stream"),
    ("LAMBDA_DENO_PERMISSIONS", "allow-net", PERMISSIONS),
    ("LAMBDA_DENO_ENV", "A B=c", f"{NAMES}; not 'B=c'"),
    ("LAMBDA_DENO_ENV", "A_*_B", f"{NAMES}; not 'A_*_B'"),
    ("LAMBDA_DENO_ENV", "**", f"{NAMES}; not '**'"),
    ("LAMBDA_DENO_ENV", "@secrets", f"{NAMES}; not '@secrets'"),
    ("LAMBDA_DENO_V8_FLAGS", "max-old-space-size=64", V8_FLAGS),
    ("LAMBDA_DENO_V8_FLAGS", "--a b", V8_FLAGS),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0", "a whole number of megabytes"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "-128", "a whole number of megabytes"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128.5", "a whole number of megabytes"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128 MB", "a whole number of megabytes"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "12\uff18", "a whole number of megabytes"),
    ("AWS_LAMBDA_LOG_FORMAT", "xml", "text or json"),
    (
        "AWS_LAMBDA_LOG_LEVEL",
        "WARNING",
        "TRACE or DEBUG or INFO or WARN or ERROR or FATAL",
    ),
]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [pytest.param(*case, id=f"{case[0]}={case[1]}") for case in BAD],
)
def test_a_bad_value_is_refused_by_variable_value_and_what_is_expected(
    variable: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**{variable: value})
    error = caught.value
    assert (error.variable, error.value, error.expected) == (variable, value, expected)
    assert str(error) == (
        f"Cannot use {variable}: its value is {value!r}; expected {expected}"
    )


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("AWS_LAMBDA_RUNTIME_API", "host:port"), ("_HANDLER", "file.export")],
)
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_a_required_variable_has_to_hold_something(
    variable: str, value: str | None, expected: str
) -> None:
    environ = {name: text for name, text in REQUIRED.items() if name != variable}
    if value is not None:
        environ[variable] = value
    with pytest.raises(ConfigError) as caught:
        Settings.from_environ(environ, "/cwd")
    assert caught.value.variable == variable
    assert caught.value.value == value
    assert caught.value.expected == expected


@pytest.mark.parametrize(
    ("initialization_type", "warm"),
    [
        ("on-demand", Warm.READY),
        ("provisioned-concurrency", Warm.READY),
        ("snap-start", Warm.READY),
        ("lambda-managed-instances", Warm.BACKGROUND),
        ("anything-new", Warm.BACKGROUND),
        ("", Warm.BACKGROUND),
    ],
    ids=lambda value: str(value) or "empty",
)
def test_the_next_process_is_awaited_where_environments_freeze(
    initialization_type: str, warm: Warm
) -> None:
    found = parse(AWS_LAMBDA_INITIALIZATION_TYPE=initialization_type)
    assert found.warm is warm


def test_a_choice_of_warm_counts_more_than_the_environment() -> None:
    settings = parse(AWS_LAMBDA_INITIALIZATION_TYPE="on-demand", LAMBDA_DENO_WARM="off")
    assert settings.warm is Warm.OFF


@pytest.mark.parametrize(
    "variable",
    [
        "LAMBDA_TASK_ROOT",
        "LAMBDA_DENO_STRATEGY",
        "LAMBDA_DENO_WARM",
        "LAMBDA_DENO_WARM_MAX_AGE_S",
        "LAMBDA_DENO_STOP_MARGIN_MS",
        "LAMBDA_DENO_CLOSE_GRACE_MS",
        "LAMBDA_DENO_SIGTERM",
        "LAMBDA_DENO_RESPONSE_MODE",
        "LAMBDA_DENO_PERMISSIONS",
        "LAMBDA_DENO_V8_FLAGS",
        "LAMBDA_DENO_BIN",
        "DENO_DIR",
        "TMPDIR",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_LOG_FORMAT",
        "AWS_LAMBDA_LOG_LEVEL",
    ],
)
def test_an_empty_variable_is_as_good_as_none(variable: str) -> None:
    assert parse(**{variable: ""}) == parse()


def test_an_empty_list_of_names_hands_nothing_on() -> None:
    assert parse(LAMBDA_DENO_ENV="").env_names == ()


def test_variables_of_ours_that_mean_nothing_are_listed() -> None:
    settings = parse(
        LAMBDA_DENO_WRAM="ready",
        LAMBDA_DENO_BINARY="x",
        LAMBDA_DENO_WARM="off",
        LAMBDA_DENOX="not ours",
        XLAMBDA_DENO_A="not ours",
    )
    assert settings.unknown == ("LAMBDA_DENO_BINARY", "LAMBDA_DENO_WRAM")


@pytest.mark.parametrize(
    "name",
    [
        "BIN", "CLOSE_GRACE_MS", "ENV", "MAX_INVOCATIONS", "PERMISSIONS",
        "RESPONSE_MODE", "SIGTERM", "STOP_MARGIN_MS", "STRATEGY",
        "V8_FLAGS", "WARM", "WARM_MAX_AGE_S",
    ],
)  # fmt: skip
def test_every_variable_of_ours_is_known(name: str) -> None:
    values = {"STOP_MARGIN_MS": "1", "WARM_MAX_AGE_S": "1"}
    assert parse(**{f"LAMBDA_DENO_{name}": values.get(name, "")}).unknown == ()


@pytest.mark.parametrize(
    ("runtime_api", "uri"),
    [
        ("127.0.0.1:9001", "http://127.0.0.1:9001/2021-04-23/credentials"),
        ("127.0.0.1:9001", "http://localhost:9001/"),
        ("169.254.100.1:9001", "http://127.0.0.1:9001/2021-04-23/credentials"),
        ("169.254.100.1:9001", "http://169.254.100.1:9001/credentials?a=b"),
        ("[::1]:9001", "http://[::1]:9001/credentials"),
    ],
)
def test_credentials_behind_the_runtime_api_s_address_are_fetched(
    runtime_api: str, uri: str
) -> None:
    settings = parse(
        AWS_LAMBDA_RUNTIME_API=runtime_api,
        AWS_CONTAINER_CREDENTIALS_FULL_URI=uri,
        AWS_CONTAINER_AUTHORIZATION_TOKEN="token",
    )
    assert settings.credentials_uri == uri
    assert settings.credentials_token == "token"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://127.0.0.1:9002/credentials",
        "http://192.0.2.1:9001/credentials",
        "https://127.0.0.1:9001/credentials",
        "http://127.0.0.1:9001",
        "http://user@127.0.0.1:9001/credentials",
        "http://127.0.0.1/credentials",
        "127.0.0.1:9001/credentials",
        "http://127.0.0.1:99999/credentials",
    ],
)
def test_credentials_elsewhere_are_the_processes_own_affair(uri: str) -> None:
    assert parse(AWS_CONTAINER_CREDENTIALS_FULL_URI=uri).credentials_uri is None


def test_under_snapstart_they_are_fetched_behind_a_proxy_too() -> None:
    """An extension may stand between us and the API, whose port is then another."""
    uri = "http://127.0.0.1:9001/2021-04-23/credentials"
    settings = parse(
        AWS_LAMBDA_RUNTIME_API="127.0.0.1:9009",
        AWS_LAMBDA_INITIALIZATION_TYPE="snap-start",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=uri,
    )
    assert settings.credentials_uri == uri


def test_keys_of_the_environment_come_first() -> None:
    uri = "http://127.0.0.1:9001/2021-04-23/credentials"
    settings = parse(AWS_CONTAINER_CREDENTIALS_FULL_URI=uri, AWS_ACCESS_KEY_ID="key")
    assert settings.credentials_uri is None

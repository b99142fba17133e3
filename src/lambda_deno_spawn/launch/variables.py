"""The environment of a process: which variables it gets, and which are withheld."""

from __future__ import annotations

from lambda_deno_spawn.config import CREDENTIALS_GROUP
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.config import Settings

# Always handed on, whatever LAMBDA_DENO_ENV says: without them programs cannot run.
ESSENTIAL_VARIABLES = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
# AWS's SDKs read credentials from these; no wildcard of LAMBDA_DENO_ENV matches them.
CREDENTIALS = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECRET_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }
)
# The address from which the supervisor fetches credentials, and its secret.
FETCHED_FROM = frozenset(
    {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}
)
# The variables in which it hands fetched credentials on.
FETCHED_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
)  # fmt: skip
# A handler that polled the Runtime API would steal events. The trace id of the
# environment, if there is one, is not that of the invocation to come.
WITHHELD = frozenset({"AWS_LAMBDA_RUNTIME_API", "_X_AMZN_TRACE_ID"})
WITHHELD_PREFIXES = ("_LAMBDA_", "LAMBDA_DENO_")


def process_variables(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process, without those of its own folders."""
    kept = handed_on(settings, environ)
    kept["DENO_NO_UPDATE_CHECK"] = "1"
    kept["NO_COLOR"] = "1"  # a log shows escape sequences, not colours
    # Deno would make a link named node in its cache and put it first on PATH.
    kept["DENO_DISABLE_NODE_SHIM"] = "1"
    return kept


def console_records(variables: Mapping[str, str]) -> str:
    """Return where the records of the console go: ``log``, ``telemetry`` or ``both``.

    As Deno itself decides it for its own console (``otel_config`` in its source).
    """
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "log"
    match variables.get("OTEL_DENO_CONSOLE"):
        case "replace":
            return "telemetry"
        case "capture":
            return "both"
        case "ignore":
            return "log"
    return "both" if variables.get("OTEL_DENO", "").lower() == "true" else "log"


def withheld_credentials(settings: Settings) -> set[str]:
    """Return which variables of fetched credentials a process does not get."""
    names = dict.fromkeys(FETCHED_CREDENTIALS, "")
    return names.keys() - handed_on(settings, names).keys()


def handed_on(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return those of these variables that a process gets."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in WITHHELD and not name.startswith(WITHHELD_PREFIXES)
    }
    if settings.env_names is None:
        return kept
    exact = {*settings.env_names, *ESSENTIAL_VARIABLES}
    if CREDENTIALS_GROUP in exact:
        exact |= CREDENTIALS
    prefixes = tuple(name[:-1] for name in settings.env_names if name.endswith("*"))
    return {
        name: value
        for name, value in kept.items()
        if name in exact or (name.startswith(prefixes) and name not in CREDENTIALS)
    }

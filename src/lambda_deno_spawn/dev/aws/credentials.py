"""Credentials for a function that runs on this machine.

Lambda gives each function the temporary credentials of its role, as variables. Here the
caller's profile takes the role's place: single sign-on, an assumed role, a program,
keys in a file. Knows how botocore finds them. Does not know how a function is run.
Specification: AWS SDKs and Tools Reference Guide, "Standardized credential providers".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
# Each of these makes an SDK look for credentials elsewhere than in the variables.
FILES = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
# A network that does not answer must not delay an invocation for minutes.
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0


def function_environ(
    environ: Mapping[str, str], note: Callable[[str], None]
) -> Mapping[str, str]:
    """Return the caller's environment, with credentials as Lambda would set them.

    An instance's role is not asked for: away from AWS, that address does not answer.

    Args:
        environ: The caller's environment.
        note: Called with a sentence if there are none although a profile is chosen.
    """
    if "AWS_ACCESS_KEY_ID" in environ or not _may_have_profile(environ):
        return environ
    try:
        found = _resolved(environ)
    except DeployError as error:
        if any(environ.get(name) for name in PROFILES):
            note(f"the handler gets no credentials: {error}")
        return environ
    # With the name of a profile, SDKs would look for its files instead.
    kept = {name: value for name, value in environ.items() if name not in PROFILES}
    return {**kept, **found}


def _may_have_profile(environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in PROFILES) or any(
        _is_file(environ.get(variable) or usual) for variable, usual in FILES.items()
    )


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError):  # a home that is closed to the user, or none
        return False


def _resolved(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with the credentials and the region of the profile.

    Raises:
        DeployError: The profile has none, or they cannot be had now.
    """
    import botocore.exceptions
    import botocore.session
    from botocore.config import Config

    from lambda_deno_spawn.dev.aws.errors import translate

    session = botocore.session.Session()
    profile = next((environ[name] for name in PROFILES if environ.get(name)), None)
    what = f"the profile {profile or 'default'!r}"
    session.set_default_client_config(
        Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 2},
        )
    )
    try:
        session.get_component("credential_provider").remove("iam-role")
        credentials = session.get_credentials()
        if credentials is None:
            raise botocore.exceptions.NoCredentialsError
        keys = credentials.get_frozen_credentials()
        region = session.get_config_variable("region")
    except (
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
    ) as error:
        raise translate(error, what) from error
    except (EOFError, OSError, ValueError) as error:
        reason = str(error) or "it asks for something, and there is no terminal"
        raise DeployError(f"Cannot use {what}: {reason}") from error
    found = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token,
        "AWS_REGION": environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or region,
    }
    return {name: value for name, value in found.items() if value}

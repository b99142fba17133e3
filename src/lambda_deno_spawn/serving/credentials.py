"""Credentials that the supervisor fetches, because no process may.

Under SnapStart they are behind the Runtime API's address, which is denied to every
process. Knows when they have to be fetched again and which of them a process may have;
keeps them out of the supervisor's environment and out of the log. Refuses to know
sockets. Decision 0023; AWS SDKs and Tools Reference Guide, "Container credential
provider".
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import orjson

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.launch.variables import (
    FETCHED_CREDENTIALS,
    handed_on,
    withheld_credentials,
)
from lambda_deno_spawn.log.writer import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.launch.command import DenoCommand

# They come from the memory of a process on this machine.
FETCH_LIMIT_S = 0.5


class Source(Protocol):
    """Where credentials come from."""

    async def credentials(self, uri: str, token: str) -> bytes:
        """Fetch them as JSON.

        Raises:
            RuntimeApiError: There are none.
        """


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of the function's role.

    Attributes:
        variables: As an SDK looks for them.
        expires_epoch_s: When they are of no use any more; Unix time, as the monotonic
            clock stands still in a snapshot. None: never.
    """

    variables: dict[str, str] = field(repr=False)
    expires_epoch_s: float | None = None

    @classmethod
    def from_json(cls, body: bytes) -> Credentials:
        """Read what the platform sends.

        Raises:
            ValueError: It is something else; the message quotes nothing of it.
        """
        try:
            members = orjson.loads(body)
            values = [members[name] for name in MEMBERS]
            expires = members.get("Expiration")
            expires_epoch_s = None if expires is None else _epoch_s(expires)
        except (ValueError, KeyError, TypeError, AttributeError):
            values = []
        if not values or not all(map(_is_key, values)):
            raise ValueError("the answer holds no credentials")
        variables = dict(zip(FETCHED_CREDENTIALS, values, strict=True))
        return cls(variables, expires_epoch_s)

    def lasts(self, needed_s: float, now_epoch_s: float) -> bool:
        """Tell whether they are of use for so long from now."""
        expires_epoch_s = self.expires_epoch_s
        return expires_epoch_s is None or now_epoch_s + needed_s < expires_epoch_s


def _is_key(value: object) -> bool:
    """Tell whether it can be the value of a variable, and is something."""
    if not isinstance(value, str) or not value:
        return False
    return value.isascii() and value.isprintable()


def _epoch_s(timestamp: str) -> float:
    moment = datetime.fromisoformat(timestamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# In the order of the variables that they become.
MEMBERS = ("AccessKeyId", "SecretAccessKey", "Token")


class CredentialsKeeper:
    """Has credentials for processes that are started, while they last.

    Attributes:
        current: Those for the next process; None: none.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take where they come from and what tells Unix time; fetches none yet."""
        self._clock = clock
        self.current: Credentials | None = None
        self._settings = settings
        self._source = source
        # For nobody they need not be fetched.
        withheld = withheld_credentials(settings)
        self._is_needed = len(withheld) < len(FETCHED_CREDENTIALS)

    async def refresh(self, needed_s: float) -> None:
        """Fetch credentials unless there are some that last so long.

        Where that fails it is logged, and what there was stays: a handler may need
        none.
        """
        uri = self._settings.credentials_uri
        if uri is None or not self._is_needed:
            return
        if self.current is not None and self.lasts(self.current, needed_s):
            return
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                body = await self._source.credentials(
                    uri, self._settings.credentials_token
                )
            fetched = Credentials.from_json(body)
        except TimeoutError:
            self._warn(f"no answer within {FETCH_LIMIT_S} s")
        except (RuntimeApiError, ValueError) as error:
            self._warn(str(error))
        else:
            if fetched != self.current:
                logger.debug("Credentials of the function's role were fetched")
            self.current = fetched

    def lasts(self, credentials: Credentials, needed_s: float) -> bool:
        """Tell whether some are of use for so long from now."""
        return credentials.lasts(needed_s, self._clock())

    def forget(self) -> None:
        """Have none, so that no snapshot holds those that there were."""
        self.current = None

    def command(self, command: DenoCommand) -> DenoCommand:
        """Return how to start a process that has what it may have of them."""
        if self.current is None:
            return command
        given = handed_on(self._settings, self.current.variables)
        return command._replace(environ={**command.environ, **given})

    def _warn(self, reason: str) -> None:
        logger.warning(
            "Cannot fetch the credentials of the function's role: %s", reason
        )

"""Credentials that the supervisor fetches, because no process may.

Under SnapStart they are behind the Runtime API's address, which is denied to every
process. Knows when they have to be fetched again; keeps them out of the supervisor's
environment and out of the log. Does not know sockets. Decision 0023; AWS SDKs and Tools
Reference Guide, "Container credential provider".
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.launch.variables import FETCHED_CREDENTIALS
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.records import Protocol
from lambda_deno_spawn.strict_json import loads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# The endpoint is a process on this machine, which has them in memory.
FETCH_LIMIT_S = 0.5


class Source(Protocol):
    """The source of credentials."""

    async def credentials(self, uri: str, token: str) -> bytes:
        """Return them as JSON.

        Raises:
            RuntimeApiError: There are none.
        """


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of the function's role.

    Attributes:
        variables: As an SDK looks for them.
        expires_epoch_s: When they expire; Unix time, because the monotonic clock stands
            still in a snapshot. None: never.
    """

    variables: dict[str, str] = field(repr=False)
    expires_epoch_s: float | None = None

    @classmethod
    def from_json(cls, body: bytes) -> Credentials:
        """Read what the platform sends.

        Raises:
            ValueError: It is something else; the message quotes none of it.
        """
        try:
            members = loads(body)
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
        """Tell whether they are valid for so long from now."""
        expires_epoch_s = self.expires_epoch_s
        return expires_epoch_s is None or now_epoch_s + needed_s < expires_epoch_s


def _is_key(value: object) -> bool:
    """Tell whether it can be the value of a variable, and is not empty."""
    if not isinstance(value, str) or not value:
        return False
    return value.isascii() and value.isprintable()


def _epoch_s(timestamp: str) -> float:
    moment = datetime.fromisoformat(timestamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# In the order of ``FETCHED_CREDENTIALS``, the variables that they become.
MEMBERS = ("AccessKeyId", "SecretAccessKey", "Token")


class CredentialsKeeper:
    """Has credentials for processes that are started, while they last.

    Attributes:
        current: Credentials for the next process; None: there are none.
    """

    def __init__(
        self,
        source: Source,
        uri: str,
        token: str,
        permitted: Callable[[Mapping[str, str]], dict[str, str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Fetch none yet.

        Args:
            source: Where they come from.
            uri: Where to ask for them there.
            token: What to show there.
            permitted: Returns which of some variables a process may have.
            clock: Tells Unix time in seconds.
        """
        self.current: Credentials | None = None
        self._clock = clock
        self._source = source
        self._uri = uri
        self._token = token
        self._permitted = permitted
        # If no process may have any of them, they are not fetched.
        self._are_needed = bool(permitted(dict.fromkeys(FETCHED_CREDENTIALS, "")))

    async def refresh(self, needed_s: float) -> None:
        """Fetch credentials unless there are some that last so long.

        A failure is logged, and the old ones stay: a handler may need none.
        """
        if not self._are_needed:
            return
        if self.current is not None and self.lasts(self.current, needed_s):
            return
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                body = await self._source.credentials(self._uri, self._token)
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
        """Tell whether credentials are valid for so long from now."""
        return credentials.lasts(needed_s, self._clock())

    def forget(self) -> None:
        """Drop them, so that no snapshot holds them."""
        self.current = None

    def given(self) -> dict[str, str]:
        """Return the variables that the next process may have of them."""
        return {} if self.current is None else self._permitted(self.current.variables)

    def _warn(self, reason: str) -> None:
        logger.warning(
            "Cannot fetch the credentials of the function's role: %s", reason
        )

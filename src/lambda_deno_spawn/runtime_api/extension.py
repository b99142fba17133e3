"""The runtime as an extension of itself, for one thing: Lambda then sends SIGTERM.

Without an extension an environment ends by SIGKILL at once. Knows what one without
events has to do. Refuses to know what follows the signal. AWS Lambda Developer Guide,
"Lambda execution environment lifecycle", Shutdown phase; decision 0024.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.log.writer import logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REGISTER_LIMIT_S = 1.0  # loopback; init waits for it


class ExtensionsApi(Protocol):
    """Where extensions register."""

    async def register_extension(self) -> str:
        """Register; return the identifier.

        Raises:
            RuntimeApiError: It was refused.
        """

    async def extension_next(self, identifier: str) -> None:
        """Wait, for ever as there are no events.

        Raises:
            RuntimeApiError: It was refused, or the connection broke.
        """


@contextlib.asynccontextmanager
async def registered(api: ExtensionsApi) -> AsyncIterator[None]:
    """Be an extension for as long as this is entered; a refusal is only logged.

    To be entered before the first ``next``, where registration closes.
    """
    waiting = asyncio.create_task(_take_part(api, await _register(api)))
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _register(api: ExtensionsApi) -> str | None:
    try:
        async with asyncio.timeout(REGISTER_LIMIT_S):
            return await api.register_extension()
    except (RuntimeApiError, TimeoutError) as error:
        _warn(str(error) or f"no answer within {REGISTER_LIMIT_S} s")
        return None


async def _take_part(api: ExtensionsApi, identifier: str | None) -> None:
    """Say once that init is done; that is never answered."""
    if identifier is None:
        return
    try:
        await api.extension_next(identifier)
    except RuntimeApiError as error:
        _warn(str(error))


def _warn(reason: str) -> None:
    logger.warning("Lambda may send no SIGTERM (LAMBDA_DENO_SIGTERM): %s", reason)

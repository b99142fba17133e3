"""The runtime registered as an extension, which makes Lambda send SIGTERM.

Without an extension an execution environment is ended by SIGKILL. Knows the two calls
that an extension without events has to make. Does not know what follows the signal.
Specification: AWS Lambda Developer Guide, "Using the Lambda Extensions API to create
extensions"; "Lambda execution environment lifecycle", Shutdown phase; decision 0024.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import RuntimeApiError
from lambda_deno_spawn.log.writer import logger
from lambda_deno_spawn.runtime_api.calls import Address, call_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXTENSIONS_PATH = "/2020-01-01/extension"
EXTENSION_NAME = "lambda-deno-spawn"
REGISTER_LIMIT_S = 1.0  # the init phase waits for a response from loopback


@contextlib.asynccontextmanager
async def registered(runtime_api: str) -> AsyncIterator[None]:
    """Be an extension inside this context; a refusal is only logged.

    Enter it before the first ``next``, after which Lambda takes no registration.

    Args:
        runtime_api: ``host:port`` of the Runtime API.

    Raises:
        ConfigError: The address is malformed.
    """
    address = Address.of_runtime_api(runtime_api)
    waiting = asyncio.create_task(_take_part(address, await _register(address)))
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _register(address: Address) -> str | None:
    """Register; return the identifier, None if there is none."""
    fields = [
        ("Lambda-Extension-Name", EXTENSION_NAME),
        ("Content-Type", "application/json"),
    ]
    try:
        async with asyncio.timeout(REGISTER_LIMIT_S):
            response = await call_once(
                address, "register extension", "POST", f"{EXTENSIONS_PATH}/register",
                fields, b'{"events":[]}',
            )  # fmt: skip
    except (RuntimeApiError, TimeoutError) as error:
        _warn(str(error) or f"no answer within {REGISTER_LIMIT_S} s")
        return None
    identifier = response.headers.get("lambda-extension-identifier")
    if not identifier:
        _warn("the response has no Lambda-Extension-Identifier")
        return None
    return identifier


async def _take_part(address: Address, identifier: str | None) -> None:
    """Say that init is done, by asking for events: there will be none."""
    if identifier is None:
        return
    fields = [("Lambda-Extension-Identifier", identifier)]
    try:
        await call_once(
            address, "extension next", "GET", f"{EXTENSIONS_PATH}/event/next", fields
        )
    except RuntimeApiError as error:
        _warn(str(error))


def _warn(reason: str) -> None:
    logger.warning("Lambda may send no SIGTERM (LAMBDA_DENO_SIGTERM): %s", reason)

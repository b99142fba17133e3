"""Processes that are hard to end cost no later event anything, and do not stay."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.clinging import KINDS
from tests.integration.harness import LIMIT_S

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SCRIPT = Path(__file__).parent.parent / "fixtures" / "clinging.py"
SOURCE = """
export async function handler(event: any) {
  if (!event.kind) return "served";
  const command = new Deno.Command(event.python, {
    args: ["-S", event.script, event.kind, String(Deno.pid)],
    stdin: "null", stdout: "piped", stderr: "null",
  });
  const reader = command.spawn().stdout.getReader();
  return new TextDecoder().decode((await reader.read()).value);
}
"""


@pytest.mark.long
async def test_no_process_stays_however_it_clings(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_PERMISSIONS="all")

    async def send(event: dict[str, str]) -> object:
        api.deliver(json.dumps(event).encode())
        answer = (await api.answer()).json()
        await api.wait_for_next()
        return answer

    async with runtime:
        await api.wait_for_next()
        for kind in KINDS:
            event = {"kind": kind, "python": sys.executable, "script": str(SCRIPT)}
            assert await send(event) == "left", kind
            async with asyncio.timeout(LIMIT_S):
                # What is to be copied may be loading, beside the one that waits.
                while len(runtime.waiting) != 1:
                    assert await send({}) == "served", kind
            assert await send({}) == "served", kind
            assert "Cannot end" not in runtime.log, kind
            assert "Exception in callback" not in runtime.log, kind

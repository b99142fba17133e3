"""Several invocations at once, as on Lambda Managed Instances."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.deno

ECHO = """
export const handler = async (event, context) => {
  await new Promise((resolve) => setTimeout(resolve, event.wait ?? 0));
  return { event, id: context.awsRequestId, pid: Deno.pid };
};
"""
MANAGED = {
    "AWS_LAMBDA_MAX_CONCURRENCY": "16",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048",
}


@pytest.mark.every_way
async def test_answers_of_events_in_flight_together_are_never_crossed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime({"function.mjs": ECHO}, **MANAGED)
    async with runtime:
        for _ in range(16):
            await api.wait_for_next()
        for round_number in range(3):
            ids = {}
            for n in range(16):
                event = {"n": n, "round": round_number, "wait": 40 * (n % 3)}
                ids[api.deliver(json.dumps(event).encode(), timeout_s=20)] = event
            for _ in range(16):
                answer = await api.answer()
                result = answer.json()
                assert answer.call == "response", result
                assert result["event"] == ids.pop(answer.request_id)
                assert result["id"] == answer.request_id
            assert ids == {}

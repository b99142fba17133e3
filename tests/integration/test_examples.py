"""Every example runs through the real runtime, as its README says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.deno

EXAMPLES = Path(__file__).parents[2] / "examples"


def event(path: str) -> object:
    """Read an example's event."""
    return orjson.loads((EXAMPLES / path).read_bytes())


async def test_hello_greets_and_has_served_nobody_before(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "hello") as runtime:
        for _ in range(2):
            answer = await api.invoke(event("hello/event.json"))
            assert answer.json() == {
                "message": "Hello Lambda",
                "servedByThisProcess": 1,
                "requestId": answer.request_id,
            }
        await api.wait_for_next()
        assert runtime.log.count("Greeting Lambda") == 2


async def test_inventory_lists_reserves_and_fails_with_its_cause(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(EXAMPLES / "inventory"):
        listed = (await api.invoke(event("inventory/events/list.json"))).json()
        assert [item["sku"] for item in listed["items"]] == ["lamp-01", "chair-02"]
        order = (await api.invoke(event("inventory/events/order.json"))).json()
        assert order["total"] == 636
        assert [line["left"] for line in order["lines"]] == [10, 0]
        failed = await api.invoke(event("inventory/events/out-of-stock.json"))
        assert failed.call == "error"
        body = failed.json()
        assert body["errorMessage"] == "The order cannot be fulfilled"
        assert body["cause"]["errorType"] == "OutOfStockError"
        assert body["cause"]["errorMessage"] == "Cannot reserve 1 of mug-03: 0 left"
        assert "/lib/stock.ts:" in body["cause"]["stackTrace"][0]
        again = (await api.invoke(event("inventory/events/list.json"))).json()
        assert again == listed, "what one event took is there for the next"
        await api.wait_for_next()


def commands() -> list[str]:
    """Return every command line in the examples' READMEs."""
    found = []
    for readme in sorted(EXAMPLES.glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        found += re.findall(r"^ {4}lambda-deno-spawn (.*)$", text, re.MULTILINE)
    return found


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readmes_do_what_they_say(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lambda_deno_spawn", *shlex.split(command)],
        cwd=EXAMPLES.parent,
        capture_output=True,
        timeout=30,
        check=False,
    )
    is_error_path = "out-of-stock" in command
    assert done.returncode == (1 if is_error_path else 0), done.stderr.decode()
    result = orjson.loads(done.stdout)
    assert ("errorType" in result) == is_error_path
    assert b"REPORT RequestId: " in done.stderr

"""How many environments are started, and what becomes of those with older code."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lambda_deno_spawn.dev.devserver import fleet as module
from lambda_deno_spawn.dev.devserver.fleet import Fleet, count_to_start
from lambda_deno_spawn.dev.devserver.functions import Overrides
from lambda_deno_spawn.dev.devserver.journal import Journal

made: list[FakeEnvironment] = []


class FakeEnvironment:
    """Gets ready when a test says so."""

    def __init__(self, _: object, number: int, code: int, place: Any) -> None:
        self.number, self.code, self.place = number, code, place
        self.tenant_id, self.has_served, self.failure = None, False, None
        self.is_ready, self.is_finishing = False, False
        self.has_retired = False
        self.took: list[Any] = []
        self._over = asyncio.Event()
        made.append(self)

    @property
    def is_starting(self) -> bool:
        return not (self.is_ready or self.has_retired)

    @property
    def is_idle(self) -> bool:
        return self.is_ready

    def get_ready(self) -> None:
        self.is_ready = not self.has_retired
        self.place.on_change()

    def take(self, job: Any) -> None:
        self.took.append(job)
        asyncio.get_running_loop().call_soon(self.place.on_change)  # answered

    def retire(self) -> None:
        self.has_retired, self.is_ready = True, False
        self._over.set()

    async def run(self) -> None:
        await self._over.wait()


def make_job() -> Any:
    record = SimpleNamespace(facts=SimpleNamespace(tenant_id=None))
    return SimpleNamespace(record=record, received_s=time.monotonic())


@pytest.mark.parametrize(
    ("waiting", "impatient", "starting", "finishing", "room", "expected"),
    [
        (0, 0, 0, 0, 10, 0),
        (1, 0, 0, 0, 10, 1),
        (3, 0, 1, 0, 10, 2),
        (1, 0, 1, 0, 10, 0),
        (1, 0, 0, 1, 10, 0),  # one is free soon
        (1, 1, 0, 1, 10, 1),  # it was not
        (1, 1, 1, 1, 10, 0),
        (20, 0, 0, 0, 4, 4),
        (20, 20, 0, 0, 0, 0),
    ],
)
def test_environments_are_started_for_requests_that_none_will_serve(
    waiting: int,
    impatient: int,
    starting: int,
    finishing: int,
    room: int,
    expected: int,
) -> None:
    count = count_to_start(
        waiting=waiting,
        impatient=impatient,
        starting=starting,
        finishing=finishing,
        room=room,
    )
    assert count == expected


async def test_a_request_is_served_though_files_are_saved_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each save had ended the environment that was being started for it."""
    monkeypatch.setattr(module, "Environment", FakeEnvironment)
    made.clear()
    function = cast("Any", SimpleNamespace(overrides=Overrides(), name="f"))
    fleet = Fleet(function, "arn", {}, Journal())
    early, late = make_job(), make_job()
    fleet.submit(early)
    for _ in range(3):
        fleet.reload(function)
    fleet.submit(late)
    assert [each.code for each in made if each.is_starting] == [1, 4]
    made[0].get_ready()
    assert made[0].took == [early]
    await asyncio.sleep(0)
    assert made[0].has_retired, "it takes no more"
    fleet.reload(function)
    assert [each.code for each in made if each.is_starting] == [4, 5]
    made[-1].get_ready()
    assert made[-1].took == [late], "newer code is as good"
    await asyncio.sleep(0)
    assert made[-2].has_retired
    for each in made:
        each.retire()
    await asyncio.sleep(0)
    await fleet.aclose()

"""Files that events have left: when they are removed, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.serving.leftovers import Leftovers
from tests.unit.workers import FakeState

if TYPE_CHECKING:
    from tests.unit.hand_driven import HandDrivenLoop


def disk(slices: int) -> FakeState:
    return FakeState(has_leftovers=slices > 0, slices=slices)


def test_where_nothing_is_frozen_they_are_removed_beside_events(
    loop: HandDrivenLoop,
) -> None:
    state = disk(3)
    leftovers = Leftovers(state, is_beside_events=True)
    loop.call(leftovers.begin_removal)
    loop.run(leftovers.before_freeze(lambda: 60.0))
    assert (state.slices, loop.now_s) == (2, 0.0), "no event waits"
    loop.advance(1.0)
    assert not leftovers.are_there


def test_before_a_freeze_as_many_are_removed_as_time_allows(
    loop: HandDrivenLoop,
) -> None:
    state = disk(3)
    leftovers = Leftovers(state, is_beside_events=False)
    loop.run(leftovers.before_freeze(lambda: 60.0))
    assert not leftovers.are_there


def test_without_time_they_stay_and_are_removed_later(loop: HandDrivenLoop) -> None:
    state = disk(3)
    leftovers = Leftovers(state, is_beside_events=False)
    loop.run(leftovers.before_freeze(lambda: 0.0))
    loop.advance(60.0)
    assert leftovers.are_there
    assert state.slices == 3
    loop.run(leftovers.end_removal(1.0))
    assert not leftovers.are_there


def test_two_removals_do_not_run_at_once(loop: HandDrivenLoop) -> None:
    state = disk(3)
    leftovers = Leftovers(state, is_beside_events=True)
    loop.call(leftovers.begin_removal)
    loop.call(leftovers.begin_removal)
    assert state.slices == 2
    loop.advance(1.0)
    loop.call(leftovers.begin_removal)
    assert not leftovers.are_there


@pytest.mark.parametrize("is_short", [False, True])
def test_room_is_made_only_if_the_disk_is_short_of_it(
    loop: HandDrivenLoop, is_short: bool
) -> None:
    state = disk(3)
    state.is_short = is_short
    leftovers = Leftovers(state, is_beside_events=False)
    loop.run(leftovers.make_room())
    assert leftovers.are_there is not is_short


def test_room_is_not_made_for_longer_than_there_is_time(loop: HandDrivenLoop) -> None:
    state = disk(1_000_000)
    state.is_short = True
    leftovers = Leftovers(state, is_beside_events=False)
    loop.run(leftovers.make_room(0.0))
    assert leftovers.are_there

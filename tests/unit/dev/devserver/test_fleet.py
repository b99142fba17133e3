"""How many environments are started."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.devserver.fleet import count_to_start


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

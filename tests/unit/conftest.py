"""What unit tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.hand_driven import HandDrivenLoop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[HandDrivenLoop]:
    loop = HandDrivenLoop()
    yield loop
    loop.end()

"""What concerns all tests: their order, and what a busy machine may not change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = Path(__file__).parent / "unit"
# Modules that take longest, in this order. Each is run by one worker of pytest-xdist:
# one that begins late is what the others wait for in the end.
FIRST = (
    "test_as_deployed", "test_soak", "test_native", "test_build", "test_deploy",
    "test_doctor", "test_last_words", "test_bad_handlers", "test_module_loader",
    "test_invoke_cli",
)  # fmt: skip

# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile(
    "whatever the machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("whatever the machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first, and leave the rest in the order of its names."""
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(FIRST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note for each line that is run whether a unit test runs it.

    ``make coverage`` judges by unit tests alone, whatever else runs in the process.
    """
    if item.config.getoption("cov_source", None):
        from coverage import Coverage

        measured = Coverage.current()
        if measured is not None:
            is_unit = UNIT in item.path.parents
            measured.switch_context("unit" if is_unit else "integration")
    return (yield)

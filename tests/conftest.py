"""What concerns all tests: their order, and what a busy machine may not change."""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.short import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coverage import Coverage

UNIT = Path(__file__).parent / "unit"
# Modules that take longest, in this order. Each is run by one worker of pytest-xdist:
# one that begins late is what the others wait for in the end. The first one makes the
# layers, for which a worker would wait that needs them at once. Those in the first line
# have most of the tests that are marked ``long``.
FIRST = (
    "test_soak", "test_deploy_examples", "test_killed", "test_page_commands",
    "test_new_cdk", "test_as_deployed", "test_build", "test_fresh_process",
    "test_deploy", "test_fork",
    "test_new", "test_examples", "test_log", "test_guides", "test_limits",
    "test_permissions", "test_fork_at_once", "test_module_loader", "test_survival",
    "test_runtime_api_faults", "test_deploy_keys", "test_invoke_cli", "test_last_words",
    "test_managed_instances", "test_fork_faults", "test_streaming", "test_bad_handlers",
    "test_native", "test_official_tools", "test_doctor", "test_layer_zip",
    "test_runtime_api_out_of_reach", "test_state_folder", "test_snapstart",
)  # fmt: skip

# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile(
    "whatever the machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("whatever the machine")

# A shell has what it runs in the background ignore Ctrl-C, and so would all programs
# that tests start: a test that presses it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, and keep it off what was collected.

    It would look through thousands of tests, which stay, again and again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first, and leave the rest in the order of its names."""
    shorten(items)
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(FIRST)))


class UnitTestsOnly:
    """Measures coverage while unit tests run, and at no other time.

    ``make coverage`` judges by unit tests alone. Tracing the tests that deploy or build
    as well took two thirds more CPU time, for figures that are not looked at.
    """

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._is_on = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        is_unit = UNIT in item.path.parents
        if is_unit is not self._is_on:
            self._is_on = is_unit
            if is_unit:
                self._coverage.start()
            else:
                self._coverage.stop()
        return (yield)


@pytest.hookimpl(trylast=True)  # after pytest-cov has started
def pytest_collection_finish(session: pytest.Session) -> None:
    """Have only unit tests measured, where coverage is measured."""
    if session.config.getoption("cov_source", None):
        from coverage import Coverage

        measured = Coverage.current()
        if measured is not None:  # the process that only hands out tests has one, too
            session.config.pluginmanager.register(UnitTestsOnly(measured))

"""The steps of a start by snapshot: what is done, in which order, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from lambda_deno_spawn.errors import RefusedError, RuntimeApiError, WorkerSpawnError
from lambda_deno_spawn.invocation import Failure
from lambda_deno_spawn.serving.snapshot import SnapStart

if TYPE_CHECKING:
    from lambda_deno_spawn.log.writer import LogWriter
    from lambda_deno_spawn.serving.workers import Workers
    from lambda_deno_spawn.worker.start import StartedWorker

STARTED = cast("StartedWorker", object())
BROKEN = Failure.of("RangeError", "no")


@dataclass(slots=True)
class Environment:
    """Everything that the steps use; notes each use, and does what it is told."""

    done: list[str] = field(default_factory=list)
    load_failure: Failure | None = None
    is_cleared: bool = True
    refusal: RuntimeApiError | None = None
    spawn_error: WorkerSpawnError | None = None

    async def start(
        self, first: StartedWorker | None, limit_s: float
    ) -> Failure | None:
        """Play the strategy."""
        assert first is STARTED
        self.done.append(f"start within {limit_s:.0f} s")
        return self.load_failure

    async def clear(self) -> bool:
        """Play the strategy."""
        self.done.append("clear")
        return self.is_cleared

    def launch(self) -> StartedWorker:
        """Play what starts workers."""
        if self.spawn_error is not None:
            raise self.spawn_error
        self.done.append("launch")
        return STARTED

    async def drained(self, _: float) -> None:
        """Play the log."""
        self.done.append("log is written")

    async def restore_next(self) -> None:
        """Play the Runtime API."""
        self.done.append("restore/next")
        if self.refusal is not None:
            raise self.refusal

    async def refresh(self, _: float) -> None:
        """Play the keeper of credentials."""
        self.done.append("credentials")

    def forget(self) -> None:
        """Play the keeper of credentials."""
        self.done.append("no credentials")

    @property
    def credentials(self) -> Environment:
        """Play what fetches credentials for workers."""
        return self

    def steps(self, *, starts_ahead: bool = True) -> SnapStart:
        """Return the steps in this environment."""
        workers, log = cast("Workers", self), cast("LogWriter", self)
        return SnapStart(self, self, workers, log, starts_ahead=starts_ahead)


async def test_nothing_of_a_process_is_left_before_the_snapshot() -> None:
    environment = Environment()
    steps = environment.steps()
    assert await steps.load() is None
    assert await steps.suspend() is None
    assert await steps.resume() is None
    assert environment.done == [
        "credentials", "launch", "start within 120 s",
        "clear", "no credentials", "log is written", "restore/next",
        "credentials", "launch", "start within 8 s",
    ]  # fmt: skip


async def test_off_starts_none_after_the_restore() -> None:
    environment = Environment()
    steps = environment.steps(starts_ahead=False)
    assert await steps.load() is None
    assert environment.done[-1] == "start within 120 s"
    assert await steps.resume() is None
    assert environment.done[-1] == "start within 120 s"


@pytest.mark.parametrize("step", ["load", "resume"])
async def test_a_module_that_does_not_load_fails_its_step(step: str) -> None:
    steps = Environment(load_failure=BROKEN).steps()
    assert await getattr(steps, step)() is BROKEN


@pytest.mark.parametrize("step", ["load", "resume"])
async def test_a_process_that_cannot_be_started_fails_its_step(step: str) -> None:
    steps = Environment(spawn_error=WorkerSpawnError("Cannot start")).steps()
    failure = await getattr(steps, step)()
    assert failure.error_type == "Runtime.InvalidEntrypoint"


async def test_with_a_process_that_cannot_be_ended_no_snapshot_is_taken() -> None:
    environment = Environment(is_cleared=False)
    failure = await environment.steps().suspend()
    assert failure is not None
    assert failure.error_type == "Runtime.BeforeSnapshotError"
    assert environment.done == ["clear"]


async def test_a_refused_snapshot_is_an_error_before_it() -> None:
    refusal = RefusedError("restore next", 403, "no")
    failure = await Environment(refusal=refusal).steps().suspend()
    assert failure is not None
    assert failure.error_type == "Runtime.BeforeSnapshotError"
    assert b"403" in failure.body

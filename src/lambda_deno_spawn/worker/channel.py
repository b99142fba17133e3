"""How invocations reach a worker: what its pipes and its socket have in common.

Does not know what the end of a process means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.records import Protocol

if TYPE_CHECKING:
    from lambda_deno_spawn.errors import WorkerError
    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.worker.exchange import Exchange

# A worker whose stdout or connection has ended is given this long to exit, so that its
# exit code can explain it; Deno takes 1-5 ms, a small busy machine longer.
EXIT_GRACE_S = 0.5


class Channel(Protocol):
    """The way to one loaded worker and back.

    Attributes:
        handed_over: How many invocations were handed over; the last one's number.
        on_stdout: The open exchange whose frames come on the worker's stdout, None if
            there is none or frames come elsewhere.
        is_reachable: False once no further invocation can be handed over.
    """

    handed_over: int
    on_stdout: Exchange | None
    is_reachable: bool

    @property
    def open_exchanges(self) -> int:
        """How many were handed over and not closed."""

    async def hand_over(self, invocation: Invocation, abort_epoch_ms: int) -> Exchange:
        """Send an event and the facts that came with it.

        Args:
            invocation: Event and facts.
            abort_epoch_ms: When the handler's ``signal`` aborts; Unix time.

        Raises:
            WorkerUnreachedError: The worker cannot be reached.
            WorkerSpawnError: The system has nothing left to reach it with.
        """

    def has_read_another(self, exchange: Exchange) -> bool:
        """Tell whether the worker has read an open invocation besides, or may have."""

    def close_exchange(self, exchange: Exchange) -> None:
        """Forget an exchange that has ended, or that is no longer awaited."""

    def fail(self, error: WorkerError) -> None:
        """Fail every open exchange: the worker broke off."""

    def close(self) -> None:
        """Give up what the channel has open; the worker has ended."""

"""An event loop whose time a test moves, and that never waits for anything outside."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

T = TypeVar("T")


class _NothingHappens(selectors.BaseSelector):
    """A selector that sees no event, and stops the loop instead of waiting for one."""

    def __init__(self) -> None:
        self.loop: HandDrivenLoop | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(
        self, fileobj: Any, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return self._keys[fd]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self._keys.pop(fd)

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if self.loop is not None and timeout != 0:
            self.loop.next_timer_in_s = timeout
            self.loop.stop()
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class HandDrivenLoop(asyncio.SelectorEventLoop):
    """Runs what can run, and lets time pass only when told to.

    Attributes:
        now_s: The loop's time.
        next_timer_in_s: When the next timer is due, after ``settle``; None: never.
        errors: What a callback or a task has raised without being asked.
    """

    def __init__(self) -> None:
        selector = _NothingHappens()
        super().__init__(selector)
        selector.loop = self
        self.now_s = 0.0
        self.next_timer_in_s: float | None = None
        self.errors: list[Mapping[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.now_s

    def settle(self) -> None:
        """Run until nothing can go on without time, or without the test."""
        self.next_timer_in_s = None
        self.run_forever()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the loop, and run until nothing can go on."""

        async def work() -> T:
            return function(*args)

        task = self.create_task(work())
        self.settle()
        return task.result()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start some work, and run until nothing can go on."""
        task = self.create_task(work)
        self.settle()
        return task

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end_s = self.now_s + seconds
        self.settle()
        while (
            self.next_timer_in_s is not None
            and self.now_s + self.next_timer_in_s <= end_s
        ):
            self._pass_time(self.next_timer_in_s)
        self.now_s = end_s
        self.settle()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end, and let as much time pass as that takes.

        Raises:
            AssertionError: It waits for something that never happens.
        """
        task = self.create_task(work)
        self.settle()
        while not task.done():
            if self.next_timer_in_s is None:
                task.cancel()
                self.settle()
                raise AssertionError(f"this waits for ever: {task}")
            self._pass_time(self.next_timer_in_s)
        return task.result()

    def _pass_time(self, seconds: float) -> None:
        # A timer may be a little later than the sum says.
        self.now_s += max(seconds, 1e-6)
        self.settle()

    def end(self) -> None:
        """Cancel what is left, close the loop, and fail if anything was raised."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.settle()
        self.close()
        assert self.errors == []

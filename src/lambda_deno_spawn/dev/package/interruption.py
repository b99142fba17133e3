"""Interruptions, held back while something is begun that has to be ended.

Between the start of a process, or the creation of a folder, and the statement that
ends it, Ctrl-C would leave it behind; inside ``subprocess.Popen`` it would also close
the same file twice, which may be another one by then. Does not know what is begun.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let signals that end the command take effect at the end of a short block.

    A program that is started in the block gets these signals as usual. In other threads
    than the main one there is nothing to do: no signal interrupts them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {
        number: handler
        for number in HELD_BACK
        # One that is ignored would be inherited by programs, and stays.
        if callable(handler := signal.getsignal(number))
    }
    for number in before:
        signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])

"""What asyncio imports and the supervisor does not use: ssl and inspect.

A third of the time of ``import asyncio`` goes to them; ``inspect`` imports ast, dis and
tokenize. While ``unused_left_out`` lasts, ``ssl`` is missing, as in builds of Python
without it, for which asyncio is made. ``inspect`` is a stand-in that imports the real
module when one of its attributes is first read, so asyncio's reports of errors are what
they always are. If a release of Python uses it at import, only the gain is lost.
Decision 0034.
"""

from __future__ import annotations

import contextlib
import sys
from types import ModuleType

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class _Inspect(ModuleType):
    """Stands in for ``inspect``."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        import inspect

        return getattr(inspect, name)


@contextlib.contextmanager
def unused_left_out() -> Iterator[None]:
    """Import inside it what can do without these modules.

    Afterwards an import of any of them has its ordinary meaning.
    """
    modules: dict[str, Any] = sys.modules
    # None makes an import raise ImportError.
    stand_ins = {"ssl": None, "inspect": _Inspect("inspect")}
    put = {name: it for name, it in stand_ins.items() if name not in modules}
    modules.update(put)
    try:
        yield
    finally:
        for name, stand_in in put.items():
            if name in modules and modules[name] is stand_in:
                del modules[name]

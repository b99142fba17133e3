"""Defers modules that asyncio imports for nothing here: ssl, inspect and locale.

A third of the time of ``import asyncio`` goes to them; ``inspect`` imports ast, dis and
tokenize. While ``unused_left_out`` lasts, ``ssl`` is missing, as in builds of Python
without it, for which asyncio is made. The others are stand-ins that import the real
module when one of its attributes is first read, so asyncio's reports of errors are what
they always are. If a release of Python uses one at import, only the gain is lost.
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


class _StandIn(ModuleType):
    """A module that is imported when an attribute of it is first read."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(self._import(), name)

    def _import(self) -> ModuleType:
        raise NotImplementedError


class _Inspect(_StandIn):
    def _import(self) -> ModuleType:
        import inspect

        return inspect


class _Locale(_StandIn):
    def _import(self) -> ModuleType:
        import locale

        return locale


@contextlib.contextmanager
def unused_left_out() -> Iterator[None]:
    """Inside it, modules are imported that can do without these.

    Afterwards an import of any of them has its ordinary meaning.
    """
    modules: dict[str, Any] = sys.modules
    stand_ins = {
        "ssl": None,  # makes an import raise ImportError
        "inspect": _Inspect("inspect"),
        "locale": _Locale("locale"),
    }
    put = {name: it for name, it in stand_ins.items() if name not in modules}
    modules.update(put)
    try:
        yield
    finally:
        for name, stand_in in put.items():
            if name in modules and modules[name] is stand_in:
                del modules[name]

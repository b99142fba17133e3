"""What asyncio imports and the supervisor does not use.

Half of the time of ``import asyncio`` goes to modules that it imports for other
programs: ``ssl``, and ``inspect``, which imports ast, dis and tokenize. While
``unused_left_out`` lasts, ``ssl`` is missing, as in builds of Python without it, for
which asyncio is made; each module of ``DEFERRED`` is a stand-in that imports the real
one when an attribute is first read. So nothing is ever wrong, only later, and a release
of Python that uses such a module at import merely loses the gain. Decision 0034.
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
        import inspect

        return getattr(inspect, name)


class _Locale(ModuleType):
    """Stands in for ``locale``."""

    def __getattr__(self, name: str) -> Any:
        import locale

        return getattr(locale, name)


DEFERRED = {"inspect": _Inspect, "locale": _Locale}


@contextlib.contextmanager
def unused_left_out() -> Iterator[None]:
    """Let modules that are imported inside do without those they need not have.

    Afterwards an import of any of them has its ordinary meaning.
    """
    put = {
        name: stand_in(name)
        for name, stand_in in DEFERRED.items()
        if name not in sys.modules
    }
    modules: dict[str, Any] = sys.modules
    modules.update(put)
    is_without_ssl = "ssl" not in modules
    if is_without_ssl:
        modules["ssl"] = None  # an import of it raises ImportError
    try:
        yield
    finally:
        for name, stand_in in put.items():
            if modules.get(name) is stand_in:
                del modules[name]
        if is_without_ssl:
            del modules["ssl"]

"""Named tuples and protocols that cost a cold start next to nothing.

Each class that ``typing`` or ``dataclasses`` makes takes 0.1 to 1 ms, and importing
``typing`` alone takes 5 ms before Deno runs (decisions 0020 and 0034). For a type
checker these are ``typing``'s own. One difference: a named tuple equals no tuple of
another type, so two kinds of events with the same content are different.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know it by its name

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
else:
    from collections import namedtuple

    def _equal(self, other):
        return type(other) is type(self) and tuple.__eq__(self, other)

    def _unequal(self, other):
        return not _equal(self, other)

    class _NamedTupleType(type):
        """Makes a named tuple from a class whose annotations are its fields."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace.get("__annotations__", {})
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            module = namespace["__module__"]
            made = namedtuple(name, fields, defaults=defaults, module=module)
            made.__eq__, made.__ne__ = _equal, _unequal
            for key, value in namespace.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTupleType):
        """Base of a named tuple."""

    class Protocol:
        """Base of a class that only describes what others have."""

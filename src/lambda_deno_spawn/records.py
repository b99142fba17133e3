"""Named tuples without the module ``typing``, for code that runs before Deno does.

Importing that module and checking annotations with it takes 5 ms of a cold start
(decision 0020). For a type checker these are ``typing``'s own.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know it by its name

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    class _NamedTupleType(type):
        """Makes a named tuple from a class whose annotations are its fields."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace.get("__annotations__", {})
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            module = namespace["__module__"]
            made = namedtuple(name, fields, defaults=defaults, module=module)
            for key, value in namespace.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTupleType):
        """Base of a named tuple."""

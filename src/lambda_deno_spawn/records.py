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
    try:
        # Faster than a property; collections.namedtuple has it from here.
        from _collections import _tuplegetter
    except ImportError:
        from operator import itemgetter

        def _tuplegetter(index, doc):
            return property(itemgetter(index), doc=doc)

    def _make(cls, values):
        return tuple.__new__(cls, values)

    def _replace(self, **changes):
        made = self._make(map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"Got unexpected field names: {list(changes)!r}")
        return made

    def _asdict(self):
        return dict(zip(self._fields, self, strict=True))

    def _repr(self):
        fields = (f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(fields)})"

    def _equal(self, other):
        return type(other) is type(self) and tuple.__eq__(self, other)

    def _unequal(self, other):
        return not _equal(self, other)

    class _NamedTupleType(type):
        """Makes a named tuple from a class whose annotations are its fields."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            names = "".join(f"{field}, " for field in fields)
            new = eval(  # as collections.namedtuple does: calls are checked, and fast
                f"lambda _cls, {names}: _new(_cls, ({names}))",
                {"_new": tuple.__new__, "__builtins__": {}},
            )
            new.__name__, new.__defaults__ = "__new__", tuple(defaults)
            getters = {
                field: _tuplegetter(index, None) for index, field in enumerate(fields)
            }
            return type.__new__(
                type,
                name,
                (tuple,),
                {
                    "__slots__": (),
                    "__match_args__": fields,
                    "__new__": new,
                    "__repr__": _repr,
                    "__eq__": _equal,
                    "__ne__": _unequal,
                    "__hash__": tuple.__hash__,
                    "_fields": fields,
                    "_make": classmethod(_make),
                    "_replace": _replace,
                    "_asdict": _asdict,
                    **getters,
                    **namespace,
                },
            )

    class NamedTuple(metaclass=_NamedTupleType):
        """Base of a named tuple."""

    class Protocol:
        """Base of a class that only describes what others have."""

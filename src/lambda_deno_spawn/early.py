"""Parts of enum, contextlib and signal for code that runs before Deno, without them.

They import functools, collections, types and operator: a third of what passes between
Python's start and Deno's (decision 0034). All of it behaves as the original does, and
for a type checker it is the original. ``StrEnum`` is the original, too, in a program
that has imported ``enum`` anyway, such as the command line, whose options need it.
"""

from __future__ import annotations

import sys

from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    import signal as signal
    from contextlib import suppress as suppress
else:
    # All of signal's functions and numbers; these numbers are plain integers.
    import _signal as signal  # noqa: F401

    class suppress:  # noqa: N801
        """A context that ends at one of these errors and forgets it."""

        def __init__(self, *errors):
            self._errors = errors

        def __enter__(self):
            pass

        def __exit__(self, kind, *_):
            return kind is not None and issubclass(kind, self._errors)


if TYPE_CHECKING:
    from enum import StrEnum as StrEnum
elif "enum" in sys.modules:
    StrEnum = sys.modules["enum"].StrEnum
else:

    class _StrEnumType(type):
        """Makes members of the class's public attributes, which are texts."""

        def __new__(cls, name, bases, namespace):
            values = {
                key: namespace.pop(key) for key in list(namespace) if key[0] != "_"
            }
            made = super().__new__(cls, name, bases, namespace)
            made._members = {}
            for key, value in values.items():
                member = str.__new__(made, value)
                member.name, member.value = key, value
                made._members[value] = member
                setattr(made, key, member)
            return made

        def __call__(cls, value):
            try:
                return cls._members[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __iter__(cls):
            return iter(cls._members.values())

        def __len__(cls):
            return len(cls._members)

    class StrEnum(str, metaclass=_StrEnumType):
        """Base of an enumeration of texts."""

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

"""Named tuples without ``typing``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lambda_deno_spawn.records import NamedTuple, Protocol


class Point(NamedTuple):
    """A place.

    Attributes:
        x: From the left.
        y: From above.
    """

    x: int
    y: int = 2

    @property
    def both(self) -> tuple[int, int]:
        """Return a plain tuple."""
        return (self.x, self.y)


class Size(NamedTuple):
    """An extent."""

    width: int
    height: int


class Nothing(NamedTuple):
    """No field."""


class NothingElse(NamedTuple):
    """No field either."""


class Named(Protocol):
    """Has a name."""

    name: str


def test_a_record_has_its_fields_defaults_and_methods() -> None:
    point = Point(1)
    assert (point.x, point.y, point.both) == (1, 2, (1, 2))
    assert point._replace(y=3) == Point(1, 3)
    assert repr(point) == "Point(x=1, y=2)"
    assert Point.__doc__ is not None
    assert Point.__doc__.startswith("A place.")
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)
    assert (Point._fields, point._asdict()) == (("x", "y"), {"x": 1, "y": 2})
    assert Point._make([3, 4]) == Point(y=4, x=3)
    assert (*point, len(point), point[0]) == (1, 2, 2, 1)
    assert not hasattr(point, "__dict__")


def test_wrong_fields_are_refused() -> None:
    wrong: list[Callable[[], object]] = [
        Point,  # type: ignore[list-item]
        lambda: Point(1, 2, 3),  # type: ignore[call-arg]
        lambda: Point(1, z=3),  # type: ignore[call-arg]
        lambda: Point(1, x=1),  # type: ignore[misc]
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match="unexpected field names: \\['z'\\]"):
        Point(1)._replace(z=3)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]


def test_records_of_two_types_are_never_equal() -> None:
    def are_equal(one: object, other: object) -> bool:
        assert (one == other) is not (one != other)
        return one == other

    assert are_equal(Point(1, 2), Point(1, 2))
    assert not are_equal(Point(1, 2), Size(1, 2))
    assert not are_equal(Point(1, 2), (1, 2))
    assert are_equal(Nothing(), Nothing())
    assert not are_equal(Nothing(), NothingElse())
    assert len({Point(1, 2), Point(1, 2), Size(1, 2)}) == 2


def test_a_protocol_is_an_ordinary_class_when_it_runs() -> None:
    class Thing(Named):
        name = "thing"

    assert Thing().name == "thing"

"""Ratios beside the recorded ones: what is worse, what is new."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from bench.ratios import (
    Comparison,
    Recorded,
    Verdict,
    compare,
    read,
    report,
    updated,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

RECORDED = {"a": Recorded(1.0, 0.25), "b, p99": Recorded(4.0, 1.0)}


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (1.26, Verdict.WORSE),
        (1.25, Verdict.OK),
        (0.75, Verdict.OK),
        (0.74, Verdict.BETTER),
    ],
)
def test_a_ratio_may_differ_by_what_is_tolerated(
    measured: float, verdict: Verdict
) -> None:
    assert Comparison("a", measured, RECORDED["a"]).verdict is verdict


def test_what_is_worse_comes_first_and_is_the_exit_code() -> None:
    stream = io.StringIO()
    measured = {"new": 1.0, "b, p99": 7.9, "a": 1.5}
    assert report(compare(measured, RECORDED), stream) == 1
    assert stream.getvalue() == (
        "ratio  measured  recorded  tolerated\n"
        "a      1.5       1         1.25       WORSE\n"
        "new    1                              not recorded\n"
        "\n3 ratios, 1 worse than recorded\n"
    )


def test_nothing_worse_is_success() -> None:
    stream = io.StringIO()
    assert report(compare({"a": 1.1}, RECORDED), stream) == 0
    assert stream.getvalue() == "1 ratios, 0 worse than recorded\n"


def test_a_new_record_keeps_tolerances_and_what_was_not_measured(
    tmp_path: Path,
) -> None:
    new = updated(RECORDED, {"a": 2.00004, "c, p99": 1.0, "d": 1.0})
    assert new == {
        "a": Recorded(2.0, 0.25),
        "b, p99": Recorded(4.0, 1.0),
        "c, p99": Recorded(1.0, 1.0),
        "d": Recorded(1.0, 0.25),
    }
    file = tmp_path / "ratios.json"
    assert read(file) == {}
    write(file, new)
    assert read(file) == new

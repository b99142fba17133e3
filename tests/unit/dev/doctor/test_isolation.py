"""Conclusions from the results of the pairs of events."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.doctor.isolation import (
    Case,
    IsolationReport,
    Pair,
    Row,
    compare,
)


def pair(
    leaked: bool | None, *, parents: tuple[int, ...] = (7, 7), is_alive: bool = True
) -> Pair:
    return Pair({"thing": Row("a thing", leaked, "seen")}, parents, is_alive)


def report(
    control: Pair, forked: dict[Case, Pair] | None = None, **pairs: Pair
) -> IsolationReport:
    cases = {Case(name): pair for name, pair in pairs.items()}
    return compare("fresh", control.rows, cases, forked or {})


@pytest.mark.parametrize("leaked", [True, False, None])
@pytest.mark.parametrize("control", [True, False, None])
def test_each_row_stands_beside_the_control_s(
    control: bool | None, leaked: bool | None
) -> None:
    [check] = report(pair(control), all=pair(leaked)).checks
    assert (check.id, check.permissions, check.planted) == ("thing", "all", "a thing")
    assert (check.control, check.leaked, check.evidence) == (control, leaked, "seen")


def test_each_set_of_permissions_has_its_own_rows() -> None:
    result = report(pair(True), all=pair(True), default=pair(False))
    assert [(check.permissions, check.leaked) for check in result.checks] == [
        ("all", True),
        ("default", False),
    ]
    assert (result.leaked, result.is_ok) == (1, False)


@pytest.mark.parametrize("forked", [True, False, None])
def test_each_row_has_that_of_copies_beside_it(forked: bool | None) -> None:
    copies = {Case.ALL: pair(forked)}
    result = report(pair(True), copies, all=pair(False), default=pair(False))
    assert [check.forked for check in result.checks] == [forked, None]
    assert result.leaked == (forked is True)
    starts = [(check.start, check.permissions) for check in result.survival]
    assert (
        starts
        == [("exec", "all")] * 2 + [("exec", "default")] * 2 + [("fork", "all")] * 2
    )


def test_what_a_module_holds_is_a_case_of_all_permissions() -> None:
    [check] = report(pair(True), holding=pair(False)).checks
    assert check.permissions == "all"


def test_row_that_the_control_does_not_have_was_not_tried_there() -> None:
    [check] = report(Pair({}), all=pair(False)).checks
    assert check.control is None


def test_nothing_leaked_is_ok() -> None:
    result = report(pair(True), all=pair(False))
    assert (result.leaked, result.is_ok) == (0, True)
    assert [(check.id, check.ok) for check in result.survival] == [
        ("second-event-answered", True),
        ("same-supervisor", True),
    ]


@pytest.mark.parametrize(
    ("parents", "is_alive", "evidence"),
    [
        ((7, 8), True, "served by 7 and 8, alive"),
        ((7, 7), False, "served by 7 and 7, exited"),
        ((), True, "served by none, alive"),
    ],
    ids=["another", "exited", "none"],
)
def test_supervisor_that_does_not_survive_is_not_ok(
    parents: tuple[int, ...], is_alive: bool, evidence: str
) -> None:
    result = report(pair(True), all=pair(False, parents=parents, is_alive=is_alive))
    assert [check.ok for check in result.survival] == [True, False]
    assert result.survival[1].evidence == evidence
    assert not result.is_ok


def test_second_event_without_a_response_is_not_ok() -> None:
    rows = {"thing": Row("a thing", None, "the second event has no response")}
    broken = Pair(rows, (7,), True, "there was no response in time")
    result = report(pair(True), all=broken)
    assert (result.leaked, result.is_ok) == (0, False)
    assert result.survival[0].evidence == "there was no response in time"

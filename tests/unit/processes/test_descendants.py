"""Whom the kernel ends first, how often it did, and what it does not grant."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.processes import descendants
from lambda_deno_spawn.processes.descendants import (
    TEMPLATE_SCORE,
    WORKER_SCORE,
    OomKills,
    OomScore,
    lose,
    newly_lost,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.as_lambda

VMSTAT = b"nr_free_pages 7\noom_kill %d\nnuma_hit 3\n"


class Vmstat:
    """Stands for ``/proc/vmstat``; counts who looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text = VMSTAT % 0
        self.reads = 0
        monkeypatch.setattr(descendants, "_read", self._read)

    def _read(self, path: str) -> bytes:
        assert path == "/proc/vmstat"
        self.reads += 1
        return self.text


@pytest.fixture
def vmstat(monkeypatch: pytest.MonkeyPatch) -> Vmstat:
    return Vmstat(monkeypatch)


def test_a_count_of_a_moment_ago_serves_as_long_as_it_is_new(
    vmstat: Vmstat, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = OomKills()
    assert [kills.lately(), kills.lately()] == [0, 0]
    assert vmstat.reads == 1
    vmstat.text = VMSTAT % 2
    assert kills.lately() == 0
    assert kills.now() == 2
    assert kills.lately() == 2
    assert vmstat.reads == 2
    monkeypatch.setattr(descendants, "OOM_KILLS_AGE_S", -1.0)
    vmstat.text = VMSTAT % 3
    assert kills.lately() == 3


def test_a_system_that_does_not_say_is_not_asked_again_at_once(vmstat: Vmstat) -> None:
    vmstat.text = b"nr_free_pages 7\n"
    kills = OomKills()
    assert kills.now() is None
    assert kills.lately() is None
    assert vmstat.reads == 1


# What the system does not grant.


@pytest.fixture(autouse=True)
def nothing_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin anew."""
    monkeypatch.setattr(descendants, "_lost", {})
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for ``/proc/self/oom_score_adj``."""
    path = tmp_path / "oom_score_adj"
    path.write_text("-17\n")
    monkeypatch.setattr(descendants, "OOM_SCORE_FILE", str(path))
    return path


def test_the_score_is_high_inside_and_its_own_outside(score: Path) -> None:
    own = OomScore()
    own.hold()
    for given in (WORKER_SCORE, TEMPLATE_SCORE):
        with own.of(given):
            assert score.read_text().strip() == given.decode()
        assert score.read_text().startswith("-17")
    assert newly_lost() == []


def test_the_score_is_taken_back_whatever_happens(score: Path) -> None:
    own = OomScore()
    with pytest.raises(OSError, match="no process left"), own:
        raise OSError("no process left")
    assert score.read_text().startswith("-17")


def test_the_score_is_the_highest_where_its_own_is_high(score: Path) -> None:
    score.write_text("100")
    with OomScore().of(WORKER_SCORE):
        assert score.read_text() == "1000"


def test_a_score_that_is_the_highest_already_is_left_alone(score: Path) -> None:
    score.write_text("1000\n")
    score.chmod(0o600)
    with OomScore():
        assert score.read_text() == "1000\n"


def test_a_score_that_cannot_be_opened_is_said_once(score: Path) -> None:
    score.unlink()
    own = OomScore()
    for _ in range(3):
        with own:
            pass
    [said] = newly_lost()
    assert said.startswith("Cannot let the kernel end a handler's process before the")
    assert "No such file" in said
    assert newly_lost() == []


@pytest.mark.parametrize("refused", [b"300", b"-17"])
def test_a_score_that_cannot_be_set_is_said(
    score: Path, monkeypatch: pytest.MonkeyPatch, refused: bytes
) -> None:
    def pwrite(_fd: int, data: bytes, _at: int) -> int:
        if data == refused:
            raise PermissionError(13, "Permission denied")
        return len(data)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with OomScore():
        pass
    [said] = newly_lost()
    assert f"= {refused.decode()}: [Errno 13] Permission denied" in said


def test_what_was_never_there_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    lose("Cannot do it", "no such call")
    assert newly_lost() == []


def test_children_that_cannot_be_counted_are_not_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a descriptor to look with, it was as if there were none."""

    def listdir(_: str) -> list[str]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(OSError, match="Too many"):
        descendants._children_by_scan(os.getpid())


# Ending trees, with processes that are numbers.


class Forest:
    """Children of this process, and theirs; each look takes a unit of time."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, children: dict[int, list[int]]
    ) -> None:
        self.now = 0.0
        self.roots = children.pop(0)
        self.children = children
        self.sent: list[tuple[int, int]] = []
        monkeypatch.setattr(descendants, "_children_of", self._children_of)
        monkeypatch.setattr(descendants, "_send", self._send)
        monkeypatch.setattr(descendants, "_send_pinned", self._send_pinned)
        monkeypatch.setattr(descendants, "has_ended", lambda _: False)

    def clock(self) -> float:
        return self.now

    def _children_of(self, pid: int) -> Iterator[list[int]]:
        self.now += 1
        yield self.children.get(pid, [])

    def _send(self, pid: int, number: int) -> None:
        self.sent.append((pid, number))

    def _send_pinned(self, pid: int, parent: int, number: int) -> bool:
        assert pid in self.children[parent]
        self.sent.append((pid, number))
        return True

    def end(self, limit_s: float) -> None:
        steps = descendants.end_trees(lambda: list(self.roots), limit_s, self.clock)
        for count, _ in enumerate(steps):
            assert count < 10_000, "it has an end"


def test_all_are_stopped_and_then_killed_the_last_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forest = Forest(monkeypatch, {0: [10, 20], 10: [11], 11: [12]})
    forest.end(100)
    stopped = [pid for pid, number in forest.sent if number == signal.SIGSTOP]
    killed = [pid for pid, number in forest.sent if number == signal.SIGKILL]
    assert sorted(stopped) == sorted(killed) == [10, 11, 12, 20]
    assert killed[:2] == [12, 11]
    first_kill = forest.sent.index((12, signal.SIGKILL))
    assert all(number == signal.SIGSTOP for _, number in forest.sent[:first_kill])


def test_what_was_found_is_killed_if_time_is_up_before_all_are_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each attempt would begin anew, and none of them would kill any."""
    children = {n: [n + 1] for n in range(1, 1000)}
    forest = Forest(monkeypatch, {0: [1], **children})
    forest.end(20)
    killed = {pid for pid, number in forest.sent if number == signal.SIGKILL}
    assert 1 in killed
    assert 5 < len(killed) < 30


def test_children_that_replace_themselves_hold_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forest = Forest(monkeypatch, {0: [1]})
    known = forest._send

    def replace(pid: int, number: int) -> None:
        known(pid, number)
        forest.now += 0.1
        forest.roots = [max(forest.roots) + 1]

    monkeypatch.setattr(descendants, "_send", replace)
    forest.end(20)
    assert 20 <= forest.now < 30

"""How often the kernel ended a process for its memory, read when that is needed."""

from __future__ import annotations

import pytest

from lambda_deno_spawn import descendants
from lambda_deno_spawn.descendants import OomKills

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

"""The limits that tests set are the kernel's."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests import cgroups
from tests.cgroups import MIB, Cgroup

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not cgroups.available(), reason=cgroups.unavailable()),
]


def test_a_process_that_takes_too_much_memory_is_killed_and_counted() -> None:
    with Cgroup.create(memory_bytes=48 * MIB) as group:
        hog = "len(bytearray(b'x') * (96 << 20))"
        done = subprocess.run(group.command([sys.executable, "-c", hog]), check=False)
        assert done.returncode == -signal.SIGKILL
        assert group.oom_kills() == 1
        assert (group.peak_memory_bytes() or 48 * MIB) > 40 * MIB
        assert group.process_ids() == []
    assert not any(path.exists() for path in group.paths.values())


def test_a_process_too_many_is_refused_and_leaving_the_group_ends_all() -> None:
    with Cgroup.create(processes=3) as group:
        script = "sleep 60 & sleep 60 & echo here; sleep 60 & wait"
        shell = subprocess.Popen(
            group.command(["sh", "-c", script]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert shell.stdout is not None
        assert shell.stderr is not None
        assert shell.stdout.readline() == "here\n"
        # The third one has no place: the shell says so and ends.
        assert "fork" in shell.stderr.readline().lower()
        shell.wait()
        assert group.process_count() == 2
        remaining = group.process_ids()
        assert len(remaining) == 2
    assert not any(path.exists() for path in group.paths.values())
    with shell.stdout, shell.stderr:
        assert shell.stdout.read() == ""

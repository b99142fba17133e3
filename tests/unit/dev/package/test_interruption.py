"""Ctrl-C at the moments at which something is begun or ended."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.package import scratch
from lambda_deno_spawn.dev.package.deno import Running
from lambda_deno_spawn.dev.package.interruption import held_back
from lambda_deno_spawn.dev.package.scratch import partial_file, scratch_folder

if TYPE_CHECKING:
    from pathlib import Path


def press(number: signal.Signals = signal.SIGINT) -> None:
    signal.raise_signal(number)


def test_signals_take_effect_at_the_end_of_the_block() -> None:
    seen: list[str] = []

    def work() -> None:
        with held_back():
            press()
            press()
            seen.append("after")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == ["after"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_are_ignored_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup: a program that is started in the block ignores them, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with held_back():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            press(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_have_nothing_to_hold_back() -> None:
    done: list[bool] = []

    def work() -> None:
        with held_back():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_folder_goes_that_is_being_made_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C just then left it behind."""
    flock, remove = fcntl.flock, scratch.remove

    def interrupted(*arguments: Any) -> None:
        press()
        flock(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", interrupted)
        with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path):
            pytest.fail("it was interrupted before")
        with pytest.raises(KeyboardInterrupt), partial_file(tmp_path / "a.zip"):
            pytest.fail("it was interrupted before")
    assert list(tmp_path.iterdir()) == []

    def remove_interrupted(path: Path) -> None:
        press()
        remove(path)

    monkeypatch.setattr(scratch, "remove", remove_interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_that_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(start(*arguments, **options))
        press()
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Running(["sleep", "1000"], "sleep")
    assert started[0].poll() == -signal.SIGKILL

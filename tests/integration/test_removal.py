"""What events leave on the disk, removed in slices: by itself, and in the runtime."""

from __future__ import annotations

import os
import resource
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.processes import state as state_module
from lambda_deno_spawn.processes.state import (
    AWAY,
    LOCK,
    PREFIX,
    SLICE_LEAST,
    Removal,
    StateDir,
)
from tests.integration.harness import reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.as_lambda


def fill(folder: Path, files: int, deep: int = 0) -> None:
    """Put files into a folder, and folders one in the other, some closed."""
    folder.mkdir(exist_ok=True)
    for n in range(files):
        (folder / f"{n}").touch()
    inner = folder
    for _ in range(deep):
        inner /= "d"
        inner.mkdir()
        (inner / "f").touch()
    while inner != folder:
        if deep % 2:
            inner.chmod(0)
        inner = inner.parent


def test_a_removal_ends_with_its_time_and_goes_on_later(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    ticks = count()
    removal = Removal(str(tmp_path / "a"))
    # The clock goes on by one with each step: one look at the begin, five after that.
    assert not removal.go_on(5, clock=lambda: next(ticks))
    assert removal.removed == 5
    assert len(list((tmp_path / "a").iterdir())) == 15
    assert not removal.go_on(0, clock=lambda: next(ticks))
    assert removal.removed == 6, "some of it in any case, or it would never end"
    assert not removal.go_on(0, least=4, clock=lambda: next(ticks))
    assert removal.removed == 10
    assert removal.go_on(100, clock=lambda: next(ticks))
    assert removal.is_over
    assert removal.removed == 20
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("deep", [1, 50])
def test_a_removal_in_the_smallest_slices_removes_all(
    tmp_path: Path, deep: int
) -> None:
    """However deep it is, and closed; who writes on meanwhile is waited for."""
    folder = tmp_path / "a"
    fill(folder, 7, deep)
    removal = Removal(str(folder))
    assert not removal.go_on(0)
    (folder / "late").touch()
    os.mkfifo(folder / os.fsdecode(b"\xff\xfe"))
    (folder / "link").symlink_to(tmp_path)
    rounds = 0
    while not removal.go_on(0):
        rounds += 1
    assert removal.removed == 7 + 2 * deep + 3
    assert rounds >= removal.removed - 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_listed_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of 300,000 files are more than a small function has memory for."""
    fill(tmp_path / "a", 50)
    fill(tmp_path / "a" / "b", 50)

    def forbidden(*_: object) -> None:
        raise AssertionError("a list of all names")

    monkeypatch.setattr(os, "listdir", forbidden)
    removal = Removal(str(tmp_path / "a"))
    assert removal.go_on(60)
    assert removal.removed == 101


def test_what_is_removed_later_has_left_its_place_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SLICE_S", 0.0)
    files = 3 * SLICE_LEAST
    state = StateDir(str(tmp_path))
    first, second = state.make_private(), state.make_private()
    for n in range(files):
        Path(f"{first}/{n}").touch()
        Path(f"{second}/{n}").touch()
    removals = [state.remove_private(path) for path in (first, second)]
    assert not Path(first).exists()
    assert not Path(second).exists()
    assert state.has_leftovers
    assert [removal.is_over for removal in removals] == [False, False]
    while not state.remove_some(0.0):
        assert state.has_leftovers
    assert [removal.removed for removal in removals] == [files, files]
    assert not state.has_leftovers
    assert sorted(entry.name for entry in Path(state.path).iterdir()) == [LOCK, "spare"]
    state.close()
    assert list(tmp_path.iterdir()) == []


def test_small_folders_do_not_pile_up_where_no_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine each event added one folder, and one file was removed."""
    monkeypatch.setattr(state_module, "SLICE_S", 0.0)
    state = StateDir(str(tmp_path))
    for _ in range(20):
        private = state.make_private()
        for n in range(5):
            Path(f"{private}/{n}").touch()
        state.remove_private(private)
    left = [entry for entry in Path(state.path).iterdir() if entry.suffix == AWAY]
    assert len(left) <= 1
    state.close()


def test_what_one_supervisor_has_no_time_to_remove_is_the_next_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "CLOSE_LEAST", 5)
    first = StateDir(str(tmp_path))
    private = first.make_private()
    for n in range(100):
        Path(f"{private}/{n}").touch()
    first.close(limit_s=0.0)
    assert Path(f"{first.path}/{LOCK}").exists(), "it goes last"
    second = StateDir(str(tmp_path))
    second.clear_abandoned()
    [left] = tmp_path.iterdir()
    assert str(left) == second.path, "it is in ours now, and has no name of its own"
    assert second.has_leftovers
    while not second.remove_some():
        pass
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_folder_may_be_closed(tmp_path: Path) -> None:
    """It stayed for ever."""
    abandoned = tmp_path / f"{PREFIX}0123456789abcdef"
    fill(abandoned, 3)
    (abandoned / LOCK).touch()
    abandoned.chmod(0)
    state = StateDir(str(tmp_path))
    state.clear_abandoned()
    assert not abandoned.exists()
    state.close()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_supervisor_that_lives_is_left_alone(tmp_path: Path) -> None:
    first, second = StateDir(str(tmp_path)), StateDir(str(tmp_path))
    second.clear_abandoned()
    assert Path(first.path).is_dir()
    assert not second.has_leftovers
    first.close()
    second.close()


LEAVES = """
const folder = Deno.env.get("TMPDIR");
export const handler = (event) => {
  for (let n = 0; n < event.files; n++) {
    Deno.openSync(`${folder}/${"x".repeat(200)}${n}`, { create: true, write: true })
      .close();
  }
  return event.files;
};
"""
# Hangs as an endless loop does, without the processor that other tests need.
HANG = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);"
# More than a slice removes, and more than the way out does.
MANY = 20_000


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize("is_late", [False, True])
async def test_next_does_not_wait_for_what_there_is_no_time_to_remove(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, is_late: bool
) -> None:
    """It came after the deadline, at which Lambda ends the environment."""
    source = LEAVES.replace("return event.files;", f"if (event.hangs) {HANG}")
    # As much as is left after a handler was stopped: too little for so many files.
    settings = {"LAMBDA_DENO_METRICS": "json", "LAMBDA_DENO_STOP_MARGIN_MS": "20"}
    async with make_runtime({"function.mjs": source}, **settings) as runtime:
        event = {"files": MANY, "hangs": is_late}
        answer = await api.invoke(event, timeout_s=5.0 if is_late else 120.0)
        assert (answer.call == "error") == is_late
        await api.wait_for_next()
        [state] = runtime.temp_root.iterdir()
        left = sum(len(list(folder.iterdir())) for folder in state.glob("*.away"))
        assert (left > 0) == is_late
        # Whoever comes next has nothing to do with it, and time for it.
        api.deliver(b'{"files":0}', timeout_s=120.0)
        assert (await api.answer()).call == "response"
        await api.wait_for_next()
        assert list(state.glob("*.away")) == []
        [first, second] = reports(runtime.log)
        assert 0 < first["leftoverFiles"] < MANY
        assert not second.get("leftoverFiles")


@pytest.mark.deno
async def test_what_is_left_at_the_end_is_removed_by_the_next_supervisor(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = LEAVES.replace("return event.files;", HANG)
    runtime = make_runtime({"function.mjs": source})
    async with runtime:
        await api.invoke({"files": MANY}, timeout_s=5)
        await runtime.stop()
        assert runtime.survivors() == []
        async with make_runtime({"function.mjs": LEAVES}) as following:
            assert (await api.invoke({"files": 0})).json() == 0
            await api.wait_for_next()
            assert len(list(following.temp_root.iterdir())) == 1


@pytest.mark.long
@pytest.mark.root
@pytest.mark.deno
async def test_a_disk_that_is_full_of_what_was_left_is_emptied_first(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = LEAVES.replace("return event.files;", f"if (event.files) {HANG}")
    runtime = make_runtime({"function.mjs": source}, LAMBDA_DENO_STOP_MARGIN_MS="20")
    names = 2 * MANY
    mount = f'mount -t tmpfs -o nr_inodes={names} tmpfs "$0" && exec "$@"'
    runtime.wrapper = (
        f"exec unshare --mount sh -c '{mount}' '{runtime.temp_root}' \"$@\""
    )
    async with runtime:
        for _ in range(4):
            event = {"files": int(0.45 * names)}
            error = (await api.invoke(event, timeout_s=5)).json()
            assert error["errorType"] == "Runtime.InvokeTimeout", "there was room"
        assert (await api.invoke({"files": 0})).call == "response"
        await api.wait_for_next()
        limits = resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE)
        assert runtime.descriptor_count() < min(limits[0], 64)

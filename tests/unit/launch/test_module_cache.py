"""What each process gets of Deno's cache, and what is kept of what it leaves there."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from lambda_deno_spawn.launch import module_cache
from lambda_deno_spawn.launch.module_cache import (
    DOWNLOADED,
    FOLDER,
    REMOTE,
    GivenCache,
    ModuleCache,
)
from lambda_deno_spawn.processes.state import remove_tree

pytestmark = pytest.mark.as_lambda

DATABASE = "v8_code_cache_v2"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def load(path: str, what: str = "loaded") -> None:
    """Do what Deno does when it loads a module."""
    folder = Path(path)
    for name in (DATABASE, f"{DATABASE}-wal"):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(what)
    (folder / "gen" / "file").mkdir(parents=True, exist_ok=True)
    (folder / "gen" / "file" / "f.ts.js").write_text(what)


def learned(state: Path, given: GivenCache | None = None) -> ModuleCache:
    """Return a cache whose first two processes have loaded, and ended."""
    cache = ModuleCache(str(state), given)
    for _ in range(2):
        path = cache.make()
        load(path)
        cache.loaded(path)
        cache.remove(path)
    return cache


def test_the_first_process_has_nothing_and_a_place_for_all_but_what_is_kept(
    state: Path,
) -> None:
    path = Path(ModuleCache(str(state)).make())
    assert path.is_relative_to(state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not (path / "location_data").is_dir()
    with pytest.raises(OSError, match="location_data"):
        (path / "location_data" / "x").mkdir(parents=True)
    assert (path / "npm").is_dir()
    assert (path / "remote").is_dir()


def test_what_was_loaded_before_an_event_is_lent_to_all_later_processes(
    state: Path,
) -> None:
    path = Path(learned(state).make())
    assert (path / DATABASE).read_text() == "loadedloaded"
    assert (path / "gen" / "file" / "f.ts.js").read_text() == "loaded"
    for file in (path / DATABASE, path / "gen" / "file" / "f.ts.js"):
        assert file.is_symlink()
        assert stat.S_IMODE(file.stat().st_mode) & 0o222 == 0, "nobody writes there"
    real = (path / DATABASE).readlink()
    assert real.with_name(f"{DATABASE}-wal").read_text() == "loadedloaded"
    assert real.with_name(f"{DATABASE}-shm").is_file()


def test_later_processes_have_no_log_to_recover(state: Path) -> None:
    cache = ModuleCache(str(state))
    for _ in range(2):
        path = cache.make()
        with closing(sqlite3.connect(f"{path}/{DATABASE}", isolation_level=None)) as it:
            it.execute("PRAGMA journal_mode = WAL")
            it.execute("CREATE TABLE IF NOT EXISTS cache (name TEXT)")
            it.execute("INSERT INTO cache VALUES ('loaded')")
            cache.loaded(path)
    real = (Path(cache.make()) / DATABASE).readlink()
    assert real.with_name(f"{DATABASE}-wal").read_bytes() == b""
    with closing(sqlite3.connect(f"file:{real}?mode=ro", uri=True)) as it:
        found = it.execute("SELECT name FROM cache").fetchall()
    assert found == [("loaded",), ("loaded",)]


def test_a_log_without_a_database_is_kept_as_it_is(state: Path) -> None:
    cache = ModuleCache(str(state))
    path = cache.make()
    (Path(path) / f"{DATABASE}-wal").write_text("alone")
    cache.loaded(path)
    assert (Path(cache.make()) / f"{DATABASE}-wal").read_text() == "alone"


def test_what_an_event_adds_ends_with_its_process(state: Path) -> None:
    cache = ModuleCache(str(state))
    path = cache.make()
    load(path)
    cache.loaded(path)
    load(path, "planted")  # by its event
    (Path(path) / "gen" / "data").mkdir()
    cache.remove(path)
    second = Path(cache.make())
    assert (second / DATABASE).read_text() == "loaded"
    assert not (second / "gen" / "data").exists()
    assert not Path(path).exists()


def test_a_process_that_has_not_loaded_teaches_nothing(state: Path) -> None:
    cache = ModuleCache(str(state))
    path = cache.make()
    load(path)
    cache.remove(path)
    assert not (Path(cache.make()) / DATABASE).exists()


def test_of_several_that_load_at_once_one_teaches_in_each_round(state: Path) -> None:
    cache = ModuleCache(str(state))
    first, late = cache.make(), cache.make()
    load(first)
    cache.loaded(first)
    load(late, "late")
    cache.loaded(late)
    assert (Path(cache.make()) / DATABASE).read_text() == "loaded"
    assert not (Path(late) / "npm").is_symlink(), "its ways out are closed all the same"


def test_a_folder_in_which_nothing_was_left_is_lent_again(state: Path) -> None:
    cache = learned(state)
    first = cache.make()
    other = cache.make()
    assert first != other
    cache.loaded(first)
    cache.remove(first)
    assert cache.make() == first
    cache.loaded(first)
    (Path(first) / "gen" / "data").mkdir()
    cache.remove(first)
    assert not Path(first).exists()
    assert cache.make() != first


PLACES = ["npm/registry.test/a", "npm/registry.test/@s/b"]


def with_package(state: Path, place: str) -> ModuleCache:
    cache = ModuleCache(str(state))
    path = Path(cache.make())
    version = path / place / "1.0.0"
    version.mkdir(parents=True)
    (version / "index.js").write_text("one")
    (path / place / "registry.json").write_text("{}")
    load(str(path))
    cache.loaded(str(path))
    return cache


@pytest.mark.parametrize("place", PLACES)
def test_packages_are_lent_where_they_are_and_closed(state: Path, place: str) -> None:
    cache = with_package(state, place)
    first, second = Path(cache.make()), Path(cache.make())
    file = first / place / "1.0.0" / "index.js"
    assert file.read_text() == "one"
    assert file.resolve() == (second / place / "1.0.0" / "index.js").resolve()
    for folder in ((first / "npm").resolve(), (first / place).resolve()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o500


@pytest.mark.parametrize("place", PLACES)
def test_a_package_that_was_added_all_the_same_is_removed(
    state: Path, place: str
) -> None:
    """Root is kept from nothing by modes."""
    cache = with_package(state, place)
    npm = (Path(cache.make()) / "npm").resolve()
    for added in (npm / place[4:] / "2.0.0", npm / "registry.test" / "c" / "1.0.0"):
        added.parent.parent.chmod(0o700)
        if added.parent.exists():
            added.parent.chmod(0o700)
        added.mkdir(parents=True)
    path = Path(cache.make())
    assert [entry.name for entry in (path / place).iterdir() if entry.is_dir()] == [
        "1.0.0"
    ]
    assert not (path / "npm" / "registry.test" / "c").exists()
    assert (path / place / "1.0.0" / "index.js").read_text() == "one"


def test_packages_that_were_removed_are_loaded_again(state: Path) -> None:
    cache = with_package(state, "npm/registry.test/a")
    npm = (Path(cache.make()) / "npm").resolve()
    remove_tree(str(npm))
    path = Path(cache.make())
    (path / "npm" / "registry.test").mkdir()
    assert not (path / DATABASE).exists(), "it begins anew"


def test_where_no_package_was_loaded_each_process_has_room_for_its_own(
    state: Path,
) -> None:
    cache = learned(state)
    first, second = Path(cache.make()), Path(cache.make())
    (first / "npm" / "registry.test").mkdir()
    assert list((second / "npm").iterdir()) == []


def test_a_remote_module_is_lent_file_by_file(state: Path) -> None:
    cache = ModuleCache(str(state))
    path = Path(cache.make())
    host = path / "remote" / "https" / "a.test"
    host.mkdir(parents=True)
    (host / "hash").write_text("honest")
    load(str(path))
    cache.loaded(str(path))
    own = Path(cache.make()) / "remote" / "https" / "a.test"
    # As Deno writes: under another name, then renamed.
    (own / "new").write_text("planted")
    (own / "new").rename(own / "hash")
    other = Path(cache.make()) / "remote" / "https" / "a.test"
    assert (other / "hash").read_text() == "honest"
    assert [entry.name for entry in other.iterdir()] == ["hash"]


def test_a_given_cache_gets_what_is_loaded_and_no_module_of_an_event(
    state: Path, tmp_path: Path
) -> None:
    given = GivenCache(str(tmp_path / "given"))
    cache = ModuleCache(str(state), given)
    path = Path(cache.make())
    host = path / "remote" / "https" / "a.test"
    host.mkdir(parents=True)
    (host / "1").write_text("loaded")
    load(str(path))
    there = tmp_path / "given" / "remote" / "https" / "a.test"
    assert (there / "1").read_text() == "loaded"
    cache.loaded(str(path))
    (host / "2").write_text("of its event")
    assert (host / "1").read_text() == "loaded", "it is still there to be read"
    assert [entry.name for entry in there.iterdir()] == ["1"]
    assert cache.shared == []


def test_packages_of_a_given_cache_are_shared(state: Path, tmp_path: Path) -> None:
    """They are somebody else's to close, and are only found where they are."""
    given = tmp_path / "given"
    (given / "npm" / "r" / "a" / "1").mkdir(parents=True)
    cache = learned(state, GivenCache(str(given)))
    assert (Path(cache.make()) / "npm").readlink() == given / "npm"
    assert cache.shared == ["npm"]


def test_the_next_supervisor_begins_with_what_was_learned(
    state: Path, tmp_path: Path
) -> None:
    given = GivenCache(str(tmp_path / "given"))
    learned(state, given)
    learned(state, given)  # in the place of the first
    other = tmp_path / "other"
    other.mkdir()
    path = Path(ModuleCache(str(other), given).make())
    assert (path / DATABASE).read_text().startswith("loaded")
    names = sorted(entry.name for entry in (tmp_path / "given").iterdir())
    assert names == ["lambda-deno-spawn", "npm", "remote"]


def test_other_functions_modules_in_a_shared_cache_are_not_taken(
    state: Path, tmp_path: Path
) -> None:
    emitted = tmp_path / "given" / "lambda-deno-spawn" / "gen"
    for module in ("file/task/a.ts.js", "file/tasks/b.ts.js", "https/host/c.js"):
        (emitted / module).parent.mkdir(parents=True)
        (emitted / module).write_text("")
    given = GivenCache(str(tmp_path / "given"), task_root="/task")
    path = Path(ModuleCache(str(state), given).make())
    names = sorted(file.name for file in (path / "gen").rglob("*.js"))
    assert names == ["a.ts.js", "c.js"]


def test_a_packaged_cache_is_begun_with_and_never_added_to(
    state: Path, tmp_path: Path
) -> None:
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    load(str(packaged), "packaged")
    before = sorted(path.name for path in packaged.rglob("*"))
    cache = ModuleCache(str(state), GivenCache(str(packaged), is_packaged=True))
    path = cache.make()
    assert (Path(path) / DATABASE).read_text() == "packaged"
    load(path)
    cache.loaded(path)
    assert (Path(cache.make()) / DATABASE).read_text() == "packagedloaded"
    assert sorted(path.name for path in packaged.rglob("*")) == before


def test_a_closed_cache_is_used_as_it_is(state: Path, tmp_path: Path) -> None:
    cache = ModuleCache(str(state), GivenCache(str(tmp_path), is_closed=True))
    path = cache.make()
    assert path == str(tmp_path)
    cache.loaded(path)
    cache.remove(path)
    assert tmp_path.is_dir()
    assert list(state.iterdir()) == []


def test_a_large_cache_of_somebody_else_s_is_shared(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_cache, "LINKS_LIMIT", 3)
    given = tmp_path / "given"
    for number in range(4):
        (given / "remote" / "https" / str(number)).mkdir(parents=True)
    cache = learned(state, GivenCache(str(given)))
    assert (Path(cache.make()) / "remote").readlink() == given / "remote"
    assert cache.shared == ["remote"]


# What root, or a handler that may write everywhere, can do to it.


def open_up(path: Path) -> None:
    for folder in (path.parent, path):
        folder.chmod(0o700)


def test_what_was_changed_is_thrown_away(state: Path) -> None:
    cache = learned(state)
    path = Path(cache.make())
    real = (path / DATABASE).readlink()
    open_up(real)
    real.write_text("planted, and of another length")
    assert (Path(cache.make()) / DATABASE).read_text() == "loadedloaded"
    assert not real.exists()


def test_where_both_copies_were_changed_it_is_learned_again(state: Path) -> None:
    cache = learned(state)
    cache.make()
    for file in (state / "deno_dir").rglob(DATABASE):
        if not file.is_symlink():
            open_up(file)
            file.write_text("planted, and of another length")
    assert not (Path(cache.make()) / DATABASE).exists()


def test_what_a_process_could_not_load_with_is_not_given_to_the_next(
    state: Path,
) -> None:
    cache = learned(state)
    path = cache.make()
    cache.remove(path)  # it ended, or was ended, before it was ready
    assert not (Path(cache.make()) / DATABASE).exists()


@pytest.mark.parametrize("what", ["all", "learned", "pristine", "file-in-its-place"])
def test_what_was_removed_is_learned_again(state: Path, what: str) -> None:
    cache = learned(state)
    path = Path(cache.make())
    folder = (path / DATABASE).readlink().parent
    if what == "all":
        remove_tree(str(state / "deno_dir"))
    elif what == "file-in-its-place":
        remove_tree(str(state / "deno_dir"))
        (state / "deno_dir").write_text("")
    else:
        others = {p for p in (state / "deno_dir").iterdir() if (p / DATABASE).exists()}
        [pristine] = others - {folder, path}
        remove_tree(str(folder))
        if what == "pristine":
            remove_tree(str(pristine))
    for _ in range(3):
        path = Path(cache.make())
        if not (path / DATABASE).exists():
            load(str(path))
        cache.loaded(str(path))
    assert (Path(cache.make()) / DATABASE).read_text().startswith("loaded")


def test_a_database_that_is_being_written_to_is_not_kept(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModuleCache(str(state))
    path = cache.make()
    load(path)
    read = module_cache._content

    def read_and_write(file: str) -> bytes:
        content = read(file)
        if file.endswith(DATABASE):
            with Path(file).open("a") as more:
                more.write("more")
        return content

    monkeypatch.setattr(module_cache, "_content", read_and_write)
    cache.loaded(path)
    assert not (Path(cache.make()) / DATABASE).exists()


def test_too_much_is_not_kept(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_cache, "COPIED_LIMIT_BYTES", 10)
    cache = ModuleCache(str(state))
    path = cache.make()
    load(path)
    cache.loaded(path)
    assert not (Path(cache.make()) / DATABASE).exists()


def test_on_a_full_disk_a_process_does_without(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModuleCache(str(state))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.makedirs", full)
        path = cache.make()
        assert not Path(path).exists()
        cache.loaded(path)
        cache.remove(path)
    assert Path(cache.make()).is_dir()


@pytest.mark.parametrize("how", ["link", "other folder", "closed", "gone"])
def test_a_folder_that_was_replaced_is_made_again(state: Path, how: str) -> None:
    cache = learned(state)
    path = cache.make()
    cache.loaded(path)
    root, moved = state / FOLDER, state / "moved"
    if how == "closed":
        root.chmod(0o500)
    else:
        root.rename(moved)
    if how == "link":
        root.symlink_to("moved")
    elif how == "other folder":
        shutil.copytree(moved, root, symlinks=True)
    cache.remove(path)
    after = Path(cache.make())
    assert not root.is_symlink()
    assert root.stat().st_mode & 0o700 == 0o700
    assert not (after / DATABASE).exists(), "what was kept is kept no more"


@pytest.mark.parametrize("name", DOWNLOADED)
def test_code_that_was_downloaded_before_an_event_is_not_changed_by_one(
    state: Path, name: str
) -> None:
    cache = ModuleCache(str(state))
    path = cache.make()
    file = Path(path, name, "a.test", "b", "c", "module.js")
    file.parent.mkdir(parents=True)
    file.write_text("good")
    cache.loaded(path)
    if name == REMOTE:
        cache.remove(path)
        path = cache.make()
        cache.loaded(path)
    kept = Path(path, name, "a.test", "b", "c", "module.js")
    assert kept.read_text() == "good"
    # By an event that may write everywhere, with the time that it had before.
    real = kept.resolve()
    times = (real.stat().st_atime_ns, real.stat().st_mtime_ns)
    real.write_text("evil!")
    os.utime(real, ns=times)
    cache.remove(path)
    assert list(state.glob(f"{FOLDER}/{name}/**/module.js")) == []
    assert list(Path(cache.make(), name).iterdir()) == []


def test_where_no_event_may_write_there_downloads_are_not_compared(
    state: Path,
) -> None:
    cache = ModuleCache(str(state), watches_downloads=False)
    path = cache.make()
    file = Path(path, REMOTE, "a.test", "b", "module.js")
    file.parent.mkdir(parents=True)
    file.write_text("good")
    cache.loaded(path)
    file = next(state.glob(f"{FOLDER}/{REMOTE}/**/module.js"))
    file.write_text("other")
    cache.remove(path)
    assert file.read_text() == "other"

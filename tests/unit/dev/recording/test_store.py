"""The folder of recordings: private, bounded, and careful about what it reads."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.recording import store
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.recording.form import KIND, VERSION

if TYPE_CHECKING:
    from pathlib import Path


def form(request_id: str = "8f507cfc-0001", second: int = 0) -> dict[str, Any]:
    return {
        "type": KIND,
        "version": VERSION,
        "requestId": request_id,
        "time": f"2026-11-28T13:00:{second:02}.000Z",
        "origin": "local",
        "function": {"name": "f", "timeoutS": 3, "memoryMb": 512},
        "code": "",
        "settings": {},
        "context": {},
        "event": {"text": "{}"},
        "outcome": {"kind": "response", "status": "success", "payload": None},
        "redacted": [],
        "cut": [],
    }


def test_folder_follows_the_xdg_specification() -> None:
    home = {"HOME": "/home/ada"}
    assert str(store.folder(home)) == (
        "/home/ada/.local/state/lambda-deno-spawn/recordings"
    )
    given = store.folder({**home, "XDG_STATE_HOME": "/state"})
    assert str(given) == "/state/lambda-deno-spawn/recordings"
    assert store.folder({**home, "XDG_STATE_HOME": "relative"}) == store.folder(home)
    with pytest.raises(UsageError, match="neither HOME"):
        store.folder({})


def test_files_are_their_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    where = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        path = store.write(form(), where)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    where.chmod(0o777)
    store.write(form(), where)
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert [p.name for p in where.iterdir()] == [path.name]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = tmp_path / "recordings"
    where.symlink_to(elsewhere)
    with pytest.raises(UsageError, match="is not a folder of this user's own"):
        store.write(form(), where)
    assert list(elsewhere.iterdir()) == []


def test_a_request_id_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    path = store.write({**form(), "requestId": "../../etc/x"}, tmp_path)
    assert path.parent == tmp_path
    assert path.name == "20261128T130000Z-etcx.json"


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FILES_LIMIT", 3)
    (tmp_path / "notes.json").write_text("mine")
    for second in range(5):
        store.write(form(f"id-{second}", second), tmp_path)
    kept = [one.form["requestId"] for one in store.recent(tmp_path, 10)]
    assert kept == ["id-4", "id-3", "id-2"]
    assert (tmp_path / "notes.json").read_text() == "mine"


def test_a_recording_is_found_by_id_by_its_beginning_and_as_the_last(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="there are none in"):
        store.find("last", tmp_path)
    first = store.write(form("8f507cfc-0001", 1), tmp_path)
    store.write(form("8f507cfc-0002", 2), tmp_path)
    newer = store.write(form("8f507cfc-0001", 3), tmp_path)
    assert store.find("8f507cfc-0001", tmp_path).path == newer
    assert store.find("last", tmp_path).path == newer
    assert store.find(str(first), tmp_path).path == first
    with pytest.raises(UsageError, match="2 request ids begin with it"):
        store.find("8f50", tmp_path)
    for unknown in ("8f5", "7777", "last1", "*"):
        with pytest.raises(UsageError, match="Cannot find the recording"):
            store.find(unknown, tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"type": "x"}, 'it has no "type"'),
        ({"version": True}, "its version is true"),
        ({"settings": {"A": 1}}, "a value in its 'settings' is not text"),
        ({"context": []}, "its 'context' is missing, or of another type"),
        ({"outcome": {"kind": "x", "status": "y"}}, "no kind or no status"),
        ({"function": {"timeoutS": 10**9}}, "'function.timeoutS' is 1000000000"),
        ({"function": {"timeoutS": True}}, "'function.timeoutS' is true"),
        ({"function": {"memoryMb": "1"}}, "'function.memoryMb' is \"1\""),
        ({"event": "x"}, "'event' has neither text nor valid base64"),
        ({"event": {"base64": "?"}}, "'event' has neither text nor valid base64"),
        ({"requestId": "a/b"}, "'requestId' is not one"),
    ],
)
def test_an_edited_recording_is_told_what_is_wrong_with_it(
    changes: dict[str, object], problem: str
) -> None:
    data = json.dumps({**form(), **changes}).encode()
    with pytest.raises(UsageError) as caught:
        store.parse(data, "'x.json'")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("Cannot use the recording 'x.json': ")


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000, b"3", b"NaN"])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="Cannot use the recording"):
        store.parse(data, "x")

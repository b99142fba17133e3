"""The folder of recordings: written so that only their owner can read them.

Knows where it is, the names of its files, how many are kept, and which files are
recordings that can be used. Does not know their use. Specification:
docs/replay.md.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.recording.form import KIND, VERSION, WHOLE_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "lambda-deno-spawn/recordings"
FILES_LIMIT = 500
BYTES_LIMIT = 256 * 1024 * 1024
NAME = re.compile(r"(?P<time>\d{8}T\d{6}Z)-(?P<id>[0-9A-Za-z-]{1,128})\.json")
LEAST_ID = 4  # characters of a request id that name a recording
# Members that a recording must have to be run again, and their types.
MEMBERS: dict[str, type | tuple[type, ...]] = {
    "requestId": str, "time": str, "origin": str, "function": dict, "code": str,
    "settings": dict, "context": dict, "outcome": dict, "redacted": list, "cut": list,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A recording and the file that holds it; None: it came from elsewhere."""

    form: dict[str, Any]
    path: Path | None = None


def folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of this user's recordings; it need not exist.

    Raises:
        UsageError: The user has no home folder.
    """
    # XDG Base Directory Specification; a relative path is to be ignored.
    state = environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / FOLDER
    home = environ.get("HOME", "")
    if not home:
        raise UsageError(
            "Cannot find the folder of recordings: neither HOME nor XDG_STATE_HOME is "
            "set; set one of them"
        )
    return Path(home) / ".local" / "state" / FOLDER


def write(form: Mapping[str, Any], where: Path) -> Path:
    """Write a recording; return its file. The oldest ones make room for it.

    Raises:
        UsageError: It cannot be written.
    """
    digits = re.sub(r"[^0-9T]", "", str(form["time"])[:19])
    request_id = re.sub(r"[^0-9A-Za-z-]", "", str(form["requestId"]))[:128]
    path = where / f"{digits}Z-{request_id or '0'}.json"
    partial = where / f".{secrets.token_hex(8)}.partial"
    # Readable for people; a lone half of a surrogate pair stays an escape.
    text = json.dumps(form, indent=2, ensure_ascii=True) + "\n"
    try:
        _make_private(where)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(partial, flags, 0o600), "w", encoding="ascii") as f:
                f.write(text)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        _prune(where, path)
    except OSError as error:
        raise UsageError(
            f"Cannot write the recording {str(path)!r}: {_state(error)}"
        ) from error
    return path


def _make_private(where: Path) -> None:
    """Make the folder, for its owner only."""
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = where.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{str(where)!r} is not a folder of this user's own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        where.chmod(0o700)


def _prune(where: Path, newest: Path) -> None:
    """Remove the oldest recordings, as far as there are too many."""
    kept_bytes = 0
    for count, path in enumerate(_files(where), 1):
        with contextlib.suppress(FileNotFoundError):
            kept_bytes += path.stat().st_size
            is_over = count > FILES_LIMIT or kept_bytes > BYTES_LIMIT
            if is_over and path != newest:
                path.unlink()


def _files(where: Path) -> list[Path]:
    """Return the files of recordings, newest first."""
    try:
        found = [path for path in where.iterdir() if NAME.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: path.name, reverse=True)


def recent(where: Path, limit: int) -> list[Stored]:
    """Return the newest recordings; other files are skipped."""
    found: list[Stored] = []
    for path in _files(where):
        if len(found) == limit:
            break
        with contextlib.suppress(UsageError):
            found.append(read(path))
    return found


def find(argument: str, where: Path) -> Stored:
    """Return the recording that an argument means: a file, or (the start of) an id.

    Raises:
        UsageError: There is none, there are several, or it cannot be used.
    """
    if argument.endswith(".json") or "/" in argument or Path(argument).is_file():
        return read(Path(argument))
    files = _files(where)
    if argument == "last":
        if not files:
            raise UsageError(
                f"Cannot find the last recording: there are none in {str(where)!r}; "
                "make one with `invoke --record all` or `dev --record failures`"
            )
        return read(files[0])
    is_id = re.fullmatch(r"[0-9A-Za-z-]+", argument) and len(argument) >= LEAST_ID
    matching = [
        path
        for path in files
        if is_id
        and (name := NAME.fullmatch(path.name))
        and name["id"].startswith(argument)
    ]
    if not matching:
        raise UsageError(
            f"Cannot find the recording {argument!r}: there is no such file, and no "
            f"recording in {str(where)!r} has a request id that begins with it; "
            "`replay --list` shows them"
        )
    ids = {path.name[len("00000000T000000Z-") :] for path in matching}
    if len(ids) > 1:
        raise UsageError(
            f"Cannot tell which recording {argument!r} means: {len(ids)} request ids "
            "begin with it; give more characters"
        )
    return read(matching[0])


def read(path: Path) -> Stored:
    """Return the recording in a file.

    Raises:
        UsageError: It cannot be read, or is not a recording.
    """
    try:
        with path.open("rb") as file:
            data = file.read(WHOLE_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"Cannot read the recording {str(path)!r}: {_state(error)}"
        ) from error
    return Stored(parse(data, repr(str(path))), path)


def parse(data: bytes, source: str) -> dict[str, Any]:
    """Return a recording, checked.

    Args:
        data: JSON.
        source: Where it comes from, for messages.

    Raises:
        UsageError: It is not a recording, or one of another version, or was changed so
            that it cannot be run again.
    """
    problem = "it is larger than any recording"
    if len(data) <= WHOLE_LIMIT_BYTES:
        form, problem = _parsed(data)
        if not problem:
            assert form is not None
            return form
    raise UsageError(
        f"Cannot use the recording {source}: {problem}; record the event again, or "
        "correct the file (docs/replay.md has its form)"
    )


def _parsed(data: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        form = json.loads(data)
    except UnicodeDecodeError:
        return None, "it is not UTF-8"
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        return None, f"it is not JSON, {where}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON that can be read: {error}"
    if not isinstance(form, dict) or form.get("type") != KIND:
        return None, f'it has no "type": "{KIND}"'
    version = form.get("version")
    if version != VERSION or isinstance(version, bool):
        return None, (
            f"its version is {json.dumps(version)[:40]}, and this program reads "
            f"version {VERSION}"
        )
    return form, problem_of(form)


def problem_of(form: Mapping[str, Any]) -> str:
    """Return why a recording cannot be run again; empty: it can."""
    for name, expected in MEMBERS.items():
        if not isinstance(form.get(name), expected):
            return f"its {name!r} is missing, or of another type"
    if not re.fullmatch(r"[0-9A-Za-z-]{1,128}", form["requestId"]):
        return "its 'requestId' is not one"
    outcome, function = form["outcome"], form["function"]
    if outcome.get("kind") not in ("response", "error") or not isinstance(
        outcome.get("status"), str
    ):
        return "its 'outcome' has no kind or no status"
    for name, low, high in (("timeoutS", 0, 900), ("memoryMb", 0, 1_000_000)):
        value = function.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and low < value <= high):
            return f"its 'function.{name}' is {json.dumps(value)[:40]}"
    for name in ("settings", "context"):
        if not all(isinstance(value, str) for value in form[name].values()):
            return f"a value in its {name!r} is not text"
    bodies = {"event": form.get("event"), "outcome.payload": outcome.get("payload")}
    for name, value in bodies.items():
        if value is not None and not _is_body(value):
            return f"its {name!r} has neither text nor valid base64"
    return ""


def _is_body(value: object) -> bool:
    match value:
        case {"text": str()}:
            return True
        case {"base64": str(text)}:
            with contextlib.suppress(ValueError):
                base64.b64decode(text, validate=True)
                return True
    return False


def _state(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()

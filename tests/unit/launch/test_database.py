"""Logs of SQLite's databases, merged as SQLite itself would."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.launch.database import FRAME, HEADER, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

pytestmark = pytest.mark.as_lambda

LIMIT_BYTES = 4 * 1024 * 1024
PAGE_BYTES = 4096
STEP = FRAME.size + PAGE_BYTES
ADD = "INSERT INTO cache VALUES (?, zeroblob(9000))"


def files(
    folder: Path, statements: Iterable[str], open_: Iterable[str] = ()
) -> tuple[bytes, bytes]:
    """Return a database and its log, as a process leaves them that is killed.

    Args:
        folder: Where they are made.
        statements: Each is a transaction of its own.
        open_: Those of a transaction that is not committed, and does not fit into
            SQLite's memory.
    """
    path = folder / "db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA cache_size = 1")
        for statement in ("CREATE TABLE cache (name TEXT, data BLOB)", *statements):
            database.execute(statement, ("a",) if "?" in statement else ())
        for statement in ("BEGIN", *open_) if open_ else ():
            database.execute(statement, ("b",) if "?" in statement else ())
        return path.read_bytes(), path.with_name("db-wal").read_bytes()


def dump(folder: Path, database: bytes, log: bytes = b"") -> list[str]:
    """Return all that SQLite reads from a copy, whose structure it has checked."""
    folder.mkdir()
    (folder / "db").write_bytes(database)
    if log:
        (folder / "db-wal").write_bytes(log)
    with closing(sqlite3.connect(folder / "db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(copy.iterdump())


@pytest.mark.parametrize(
    ("statements", "open_"),
    [
        ([], []),
        ([ADD] * 5, []),
        ([ADD] * 5, [ADD] * 20),
        ([*[ADD] * 9, "DELETE FROM cache WHERE rowid > 2", "VACUUM"], []),
        ([*[ADD] * 9, "PRAGMA wal_checkpoint(RESTART)", ADD], []),
        ([*[ADD] * 9, "PRAGMA wal_checkpoint(RESTART)"], []),
    ],
    ids=["new", "larger", "not-committed", "smaller", "begun-again", "all-merged"],
)
def test_merged_has_what_sqlite_finds_in_both(
    tmp_path: Path, statements: list[str], open_: list[str]
) -> None:
    database, log = files(tmp_path, statements, open_)
    whole = merged(database, log, LIMIT_BYTES)
    assert whole is not None
    assert dump(tmp_path / "merged", whole) == dump(tmp_path / "both", database, log)


def test_merged_refuses_a_frame_that_is_half_written(tmp_path: Path) -> None:
    database, log = files(tmp_path, [ADD] * 3)
    torn = log[:-100] + b"\xff" * 100
    assert merged(database, torn, LIMIT_BYTES) is None


def test_merged_leaves_out_a_frame_that_is_not_whole(tmp_path: Path) -> None:
    database, log = files(tmp_path, [ADD] * 3)
    short = log[:-100]
    whole = merged(database, short, LIMIT_BYTES)
    assert whole is not None
    assert dump(tmp_path / "merged", whole) == dump(tmp_path / "both", database, short)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _database, log: (b"", log),
        lambda database, log: (database, b""),
        lambda database, log: (database, log[: HEADER.size]),
        lambda database, log: (database, b"\xff" * len(log)),
        lambda database, log: (database, struct.pack(">I", 0x377F0682) + log[4:16]),
        # Another page size than the one that the header's checksum is for.
        lambda database, log: (database, log[:8] + b"\0\0\2\0" + log[12:]),
        lambda database, log: (
            database,
            log[: HEADER.size] + b"\xff" * 4 + log[HEADER.size + 4 :],
        ),
    ],
    ids=["no-database", "no-log", "no-frame", "noise", "cut", "size", "page"],
)
def test_merged_believes_no_file(
    tmp_path: Path, damage: Callable[[bytes, bytes], tuple[bytes, bytes]]
) -> None:
    found = merged(*damage(*files(tmp_path, [ADD])), LIMIT_BYTES)
    assert found is None or dump(tmp_path / "merged", found)


def test_merged_stays_within_the_limit(tmp_path: Path) -> None:
    database, log = files(tmp_path, [ADD] * 9)
    whole = merged(database, log, LIMIT_BYTES)
    assert whole is not None
    assert merged(database, log, len(whole) - 1) is None

"""Which flags a template has whose copies have folders of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.config import Settings, Strategy
from lambda_deno_spawn.launch.places import (
    share_folders,
    unshared_flag,
    why_not_fork,
)
from lambda_deno_spawn.permissions import PRIVATE_DIR_MARK as MARK

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.as_lambda

FOLDERS = ["/tmp/s/own", "/tmp/s/a", "/tmp/s/b"]
ALL = ",".join(FOLDERS)


@pytest.mark.parametrize(
    ("flag", "expected", "revoked"),
    [
        (f"--allow-write={MARK}", f"--allow-write={ALL}", [["write", ""]]),
        (
            f"--allow-read=/var/task,{MARK},/opt",
            f"--allow-read=/var/task,/opt,{ALL}",
            [["read", ""]],
        ),
        (
            f"--allow-read={MARK}/in,{MARK}.x",
            "--allow-read=/tmp/s/own/in,/tmp/s/a/in,/tmp/s/b/in,"
            "/tmp/s/own.x,/tmp/s/a.x,/tmp/s/b.x",
            [["read", "/in"], ["read", ".x"]],
        ),
        # Deno takes folders around the one that is given up as well.
        (f"--allow-read=/tmp,{MARK}", "--allow-read=/tmp", []),
        (f"--allow-read=/,{MARK}", "--allow-read=/", []),
        (f"--allow-read=../../tmp/s/,{MARK}", "--allow-read=../../tmp/s/", []),
        (f"--allow-read=/tmp/st,{MARK}", f"--allow-read=/tmp/st,{ALL}", [["read", ""]]),
        (f"--deny-write={MARK}", f"--deny-write={ALL}", []),
    ],
)
def test_a_flag_names_all_folders_and_copies_give_up_the_others(
    flag: str, expected: str, revoked: list[list[str]]
) -> None:
    assert share_folders([flag], FOLDERS, "/var/task") == ((expected,), revoked)
    assert unshared_flag([flag]) is None


def test_only_the_path_that_leads_each_copy_to_its_folder_is_granted() -> None:
    flags = [f"--allow-read=/opt,{MARK}", f"--deny-write={MARK}/none", "--allow-net"]
    assert share_folders(flags, FOLDERS[:2], "/var/task", "/tmp/s/self/own") == (
        (
            "--allow-read=/opt,/tmp/s/self/own",
            "--deny-write=/tmp/s/own/none,/tmp/s/a/none,/tmp/s/self/own/none",
            "--allow-net=",
        ),
        [],
    )


def test_a_link_to_a_folder_around_it_counts(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "own"
    folder.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "state")
    flags, revoked = share_folders([f"--allow-read={link},{MARK}"], [str(folder)], "/")
    assert (flags, revoked) == ((f"--allow-read={link}",), [])


@pytest.mark.parametrize(
    "flag",
    [
        f"--allow-run={MARK}/program",
        f"--allow-ffi={MARK}/library.so",
        f"--allow-net=unix:{MARK}/socket",
        f"--allow-read=x{MARK}",
    ],
)
def test_what_a_copy_cannot_give_up_is_named(flag: str) -> None:
    assert unshared_flag([f"--allow-read={MARK}", flag]) == flag.replace(
        MARK, "$TMPDIR"
    )


SETTINGS = Settings(runtime_api="", handler="a.b", task_root="/var/task")


@pytest.mark.parametrize(
    ("settings", "library", "reason"),
    [
        (SETTINGS, "/lib.so", None),
        (SETTINGS, None, "there is no library to fork with"),
        (SETTINGS._replace(concurrency=4), "/lib.so", "several events are served"),
        (SETTINGS._replace(max_invocations=5), "/lib.so", "a process serves several"),
        (SETTINGS._replace(strategy=Strategy.SERVER), "/lib.so", "one process serves"),
    ],
)
def test_settings_say_why_no_process_is_copied(
    settings: Settings, library: str | None, reason: str | None
) -> None:
    found = why_not_fork(settings, [f"--allow-run={MARK}/program"], library)
    assert found is None if reason is None else str(found).startswith(reason)

"""The decisions of ``doctor``: thresholds between ok, warning and problem."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from lambda_deno_spawn.config import Settings, Start
from lambda_deno_spawn.dev.doctor.checks import (
    Status,
    error_line,
    granted_permissions,
    lambda_modules_check,
    limit_check,
    runtime_files,
    start_check,
    total_check,
    undoing_check,
    upload_check,
    zip_estimate_bytes,
)
from lambda_deno_spawn.dev.project.function import Function
from lambda_deno_spawn.dev.project.project import Project

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("value", "status", "found"),
    [
        (1024, Status.OK, "1,024 (Lambda has 1,024)"),
        (1023, Status.WARNING, "1,023 (Lambda has 1,024)"),
        (resource.RLIM_INFINITY, Status.OK, "unlimited (Lambda has 1,024)"),
    ],
    ids=["as-lambda", "less", "unlimited"],
)
def test_limit_is_compared_with_lambda_s(
    value: int, status: Status, found: str
) -> None:
    check = limit_check("descriptors", value, 1024)
    assert (check.id, check.status, check.found) == ("descriptors", status, found)
    assert bool(check.advice) == (status is not Status.OK)


@pytest.mark.parametrize(
    ("size_bytes", "status"),
    [
        (200 * MB, Status.OK),
        (200 * MB + 1, Status.WARNING),
        (250 * MB, Status.WARNING),
        (250 * MB + 1, Status.PROBLEM),
    ],
)
def test_unzipped_size_has_a_limit_and_a_warning_before_it(
    size_bytes: int, status: Status
) -> None:
    check = total_check(size_bytes, ["deno", "function"])
    assert check.status is status
    assert check.found.startswith("deno + function: 2")


def test_zip_that_is_too_large_for_the_api_can_go_through_s3() -> None:
    assert upload_check("deno", 90 * MB, 39 * MB).status is Status.OK
    check = upload_check("deno", 90 * MB, 41 * MB)
    assert check.status is Status.WARNING
    assert "S3" in check.advice


@pytest.mark.parametrize(
    ("flags", "used_set", "granted"),
    [
        (["--allow-net", "--allow-env", "--allow-sys"], None, {"env"}),
        (["--allow-env=HOME", "--deny-run"], None, set()),
        (["--allow-run=git", "--allow-ffi"], None, {"run", "ffi"}),
        (["--allow-all", "--deny-net=a:1"], None, {"all"}),
        (["-A"], None, {"all"}),
        (["-P", "--deny-net=a:1"], {"read": True}, set()),
        (["-P"], {"all": True, "env": ["HOME"]}, {"all"}),
        (["-P"], {"run": ["git"], "ffi": False, "env": True}, {"run", "env"}),
        (["-P"], {"run": {"allow": True, "deny": ["rm"]}}, {"run"}),
        (["-P"], {"env": {"allow": ["HOME"]}, "ffi": []}, set()),
        (["-P"], "no object", set()),
    ],
    # Sorted: sets have no order, and parallel test runs need the same ids.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_permissions_that_matter_are_found_in_flags_and_sets(
    flags: list[str], used_set: object, granted: set[str]
) -> None:
    assert granted_permissions(flags, used_set) == granted


def test_permissions_that_disable_the_others_are_reported() -> None:
    assert undoing_check({"env"}).status is Status.OK
    check = undoing_check({"ffi", "run"})
    assert check.status is Status.WARNING
    assert "--allow-run, --allow-ffi" in check.found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        (
            "\x1b[1m\x1b[31merror\x1b[0m: no package\n    0: not cached\n\nStack",
            "no package: not cached",
        ),
        ("warning\nerror: no module\n    at file:///a.ts:1:1\n", "no module"),
        ("error: alone", "alone"),
    ],
    ids=["nothing", "last-line", "deno-with-cause", "deno-with-position", "deno"],
)
def test_error_of_a_program_is_one_line(text: str, line: str) -> None:
    assert error_line(text) == line


def test_zip_of_a_large_file_is_estimated_from_samples(tmp_path: Path) -> None:
    zeros, noise = tmp_path / "zeros", tmp_path / "noise"
    zeros.write_bytes(bytes(8 * MB))
    noise.write_bytes(os.urandom(8 * MB))
    assert zip_estimate_bytes([zeros]) < MB // 10
    assert zip_estimate_bytes([noise]) == pytest.approx(8 * MB, rel=0.01)
    assert zip_estimate_bytes([noise, zeros]) == pytest.approx(8 * MB, rel=0.03)


def test_runtime_layer_has_what_it_imports_and_no_developer_s_tools() -> None:
    files = runtime_files()
    folders = {part for file in files for part in file.parts}
    wanted = {"h11", "js"}
    assert wanted <= folders
    assert not {"httpx", "typer", "rich", "boto3", "psutil", "deno"} & folders
    assert [file for file in files if file.name in ("doctor.py", "emulator.py")] == []
    assert len(set(files)) == len(files)


@pytest.mark.parametrize(
    ("start", "library", "status", "words"),
    [
        (Start.EXEC, "/lib.so", Status.OK, "exec: each event's process loads"),
        (Start.AUTO, "/lib.so", Status.OK, "fork: each event's process is a copy"),
        (Start.AUTO, None, Status.OK, "exec, no copies: there is no library"),
        (Start.EXEC, None, Status.OK, "exec, no copies: there is no library"),
        (Start.FORK, "/lib.so", Status.OK, "fork: "),
        (Start.FORK, None, Status.PROBLEM, "no copies: there is no library"),
    ],
)
def test_how_processes_begin_is_told_with_the_reason(
    start: Start, library: str | None, status: Status, words: str
) -> None:
    settings = Settings(runtime_api="", handler="a.b", task_root="/", start=start)
    check = start_check(settings, [], library)
    assert (check.id, check.status) == ("start", status)
    assert check.found.startswith(words)


@pytest.mark.parametrize(
    ("missing", "is_project", "bundle", "status"),
    [
        ("", False, None, Status.OK),
        ("x", False, None, Status.WARNING),
        ("x", True, None, Status.OK),
        ("x", True, True, Status.OK),
        ("x", True, False, Status.WARNING),
    ],
)
def test_modules_that_the_package_will_have_are_no_warning(
    missing: str, bundle: bool | None, status: Status, *, is_project: bool
) -> None:
    function = Function(Path("/x"), "a.handler")
    project = Project(function, "a", bundle=bundle) if is_project else None
    assert lambda_modules_check(missing, project).status is status

"""Projects beside or behind what the user may not use, and with very many files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.command import run_command
from tests.fixtures.packages import DENO_DIR, fetch_bundler
from tests.lambda_root import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deno
MANY = 50_000
# Only this process and its children see the mount.
READ_ONLY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    0x20000, 1, 32, 4096, 16384, 1 << 18)
def call(done):
    if done: sys.exit(99)
folder = sys.argv[1].encode()
call(libc.unshare(CLONE_NEWNS))
call(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
call(libc.mount(folder, folder, None, MS_BIND, None))
call(libc.mount(None, folder, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
os.chdir(folder)
os.execv(sys.executable, [sys.executable, "-m", "lambda_deno_spawn", *sys.argv[2:]])
"""

# Root without the capabilities to open what is closed to it, like any other user.
AS_ANY_USER = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "lambda_deno_spawn", *sys.argv[1:]])
"""


def environ(out: Path) -> dict[str, str]:
    return {
        **os.environ, "DENO_DIR": str(DENO_DIR), "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(out / "cache"),
    }  # fmt: skip


def on_read_only(folder: Path, out: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, folder, *arguments],
        env=environ(out),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99:
        pytest.skip("this user may not mount")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
@pytest.mark.root
def test_project_that_cannot_be_written_is_built_elsewhere(tmp_path: Path) -> None:
    fetch_bundler()
    project, out = tmp_path / "orders", tmp_path / "out"
    project.mkdir()
    (project / "function.ts").write_text("export const handler = () => 'here';\n")
    code, stdout, stderr = on_read_only(project, out, "invoke", ".")
    assert (code, stdout) == (0, '"here"\n'), stderr
    code, _, stderr = on_read_only(project, out, "build", ".")
    assert code == 3
    assert "'dist': Read-only file system; name another folder with --out" in stderr
    code, stdout, stderr = on_read_only(
        project, out, "build", ".", "--out", str(out), "-o", "json"
    )
    assert code == 0, stderr
    assert json.loads(stdout)["form"]
    code, _, stderr = on_read_only(
        project, out, "build", ".", "--out", str(out), "--image", "--base", str(out),
        "--tar", "x.tar",
    )  # fmt: skip
    assert code == 3
    assert "it is not an OCI image layout" in stderr
    assert [path.name for path in project.iterdir()] == ["function.ts"]


@pytest.mark.long
def test_folders_that_are_closed_to_the_user_are_passed_over(tmp_path: Path) -> None:
    """Each ended a command with PermissionError: a home of another user, as under
    `sudo -u`, one on PATH, another program's data beside the projects."""
    closed = tmp_path / "closed"
    closed.mkdir(0)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", AS_ANY_USER, *arguments],
            cwd=tmp_path,
            env={
                "HOME": str(closed),
                "PATH": f"{closed}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "DENO_DIR": str(DENO_DIR),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    new = run("new", "orders")
    assert new.returncode == 0, new.stderr
    (tmp_path / "orders").rename(tmp_path / "shop")
    invoked = run("invoke", "shop")
    assert invoked.returncode == 0, invoked.stderr
    unknown = run("build", "nothing")
    assert unknown.returncode == 2
    assert "no project here has the name 'nothing'" in unknown.stderr
    named = run("invoke", "closed/orders")
    assert (named.returncode, named.stdout) == (2, "")
    assert named.stderr.startswith("Cannot use 'closed/orders")
    assert ": permission denied; give this user access to it" in named.stderr
    closed.chmod(0o700)


@pytest.mark.long
def test_fifty_thousand_files_are_packaged(tmp_path: Path) -> None:
    project, out = tmp_path / "many", tmp_path / "out"
    for number in range(MANY // 500):
        folder = project / "data" / str(number)
        folder.mkdir(parents=True)
        for name in range(500):
            (folder / f"{name}.txt").touch()
    (project / "function.js").write_text("export const handler = () => 1;\n")
    options = ("--out", out, "--no-bundle", "--no-cache", "-o", "json")
    done = run_command("build", project, *options, environ=environ(out))
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    with zipfile.ZipFile(found["path"]) as archive:
        names = archive.namelist()
    assert len([name for name in names if name.startswith("data/")]) == MANY

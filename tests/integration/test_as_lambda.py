"""The suite runs a second time as on Lambda; this is about how, and needs root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AS_LAMBDA = (sys.executable, "-m", "tests.as_lambda")
LOOK = """
import json, os, pathlib, resource, sys

def is_writable(folder):
    try:
        path = pathlib.Path(folder, "lambda-deno-spawn-test")
        path.write_text("")
        path.unlink()
        return True
    except OSError:
        return False

status = dict(
    line.split(":", 1) for line in open("/proc/self/status").read().splitlines()
)
print(json.dumps({
    "ids": os.getresuid() + os.getresgid(),
    "groups": os.getgroups(),
    "capabilities": [int(status[f"Cap{kind}"], 16) for kind in
                     ("Inh", "Prm", "Eff", "Bnd", "Amb")],
    "no_new_privs": int(status["NoNewPrivs"]),
    "limits": resource.getrlimit(resource.RLIMIT_NOFILE)
              + resource.getrlimit(resource.RLIMIT_NPROC),
    "writable": [mount for mount in
                 {line.split()[4] for line in open("/proc/self/mountinfo")} | {"/"}
                 if is_writable(mount)],
    "tmp": [os.listdir("/tmp"), os.statvfs("/tmp").f_blocks
            * os.statvfs("/tmp").f_frsize],
    "home": os.path.exists(os.environ["HOME"]),
    "cwd": [os.getcwd(), os.listdir()],
    "python": sys.prefix,
}))
"""


def as_lambda(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AS_LAMBDA, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "closed"])
def test_a_command_finds_what_it_would_find_on_lambda(
    tmp_path: Path, mode: int
) -> None:
    """A checkout below a closed folder, itself closed or not, in a /tmp or not."""
    checkout = tmp_path / "closed" / "checkout"
    (checkout / "tests").mkdir(parents=True)
    for name in ("__init__.py", "as_lambda.py"):
        shutil.copy(ROOT / "tests" / name, checkout / "tests")
    (checkout / "link").symlink_to("tests")
    checkout.chmod(mode)
    checkout.parent.chmod(0o700)
    before = Path("/proc/self/mountinfo").read_text()

    done = as_lambda(sys.executable, "-c", LOOK, cwd=checkout)

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ids"] == [993, 993, 993, 990, 990, 990]
    assert facts["groups"] == []
    assert facts["capabilities"] == [0, 0, 0, 0, 0]
    assert facts["no_new_privs"] == 1
    assert facts["limits"] == [1024, 1024, 1024, 1024]
    assert facts["writable"] == ["/tmp"]
    entries, size = facts["tmp"]
    shown = {*checkout.parts, *Path(sys.prefix).parts}
    assert set(entries) <= shown, "nothing else of the real one"
    assert size == 512 * 1024 * 1024
    assert facts["home"] is False
    assert facts["cwd"][0] == str(checkout)
    assert sorted(facts["cwd"][1]) == ["link", "tests"]
    assert facts["python"] == sys.prefix
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.root
def test_the_exit_code_is_the_command_s_own() -> None:
    assert as_lambda("sh", "-c", "exit 7").returncode == 7


def test_without_root_it_says_so() -> None:
    # Of the users without root, only the one it makes is sure to reach Python.
    command = [*AS_LAMBDA, "true"] if os.geteuid() == 0 else ["true"]
    done = as_lambda(*command)
    assert done.returncode == 69
    assert done.stderr.startswith("Cannot run as Lambda would: it takes root")

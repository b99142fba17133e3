"""The JavaScript modules have tests of their own, run by Deno's test runner."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from lambda_deno_spawn.js.src import build
from tests.fixtures.packages import download
from tests.integration.harness import deno_binary

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "js"


@pytest.mark.deno
def test_deno_finds_no_fault_in_the_javascript_modules() -> None:
    done = subprocess.run(
        [deno_binary(), "test", "--no-config", "--allow-read", "--quiet", str(TESTS)],
        cwd=ROOT,
        env={**os.environ, "DENO_DIR": download(TESTS), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Every file of tests ran, and none of it was left out.
    ran = set(re.findall(r"^running [1-9]\d* tests? from \./tests/js/(\S+)$",
                         done.stdout, re.MULTILINE))  # fmt: skip
    assert ran == {path.name for path in TESTS.glob("*_test.*")}
    assert re.search(r"^ok \| \d+ passed \| 0 failed \(", done.stdout, re.MULTILINE)


@pytest.mark.deno
def test_the_shipped_runtime_is_what_its_modules_give() -> None:
    """`make js` writes it; without that a change to js/src never reaches a worker."""
    assert build.TARGET.read_bytes() == build.build()

"""The JavaScript modules have tests of their own, run by Deno's test runner."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.packages import download
from tests.integration.harness import deno_binary

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "tests" / "js"


@pytest.mark.deno
def test_deno_finds_no_fault_in_the_javascript_modules() -> None:
    done = subprocess.run(
        [deno_binary(), "test", "--no-config", "--allow-read", "--quiet", str(MODULES)],
        cwd=ROOT,
        env={**os.environ, "DENO_DIR": download(MODULES), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout

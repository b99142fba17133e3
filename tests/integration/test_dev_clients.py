"""``dev``, as the test clients of Hono and Express see it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.packages import download
from tests.integration.dev_server import LIMIT_S, DevServer
from tests.integration.harness import deno_binary

pytestmark = pytest.mark.deno

FOLDER = Path(__file__).parents[1] / "fixtures" / "clients"


def test_apps_behave_as_their_own_test_clients_expect(tmp_path: Path) -> None:
    environ = {"DENO_DIR": download(FOLDER)}
    for name, file in (("hono", "hono.ts"), ("shop", "express.js")):
        folder = tmp_path / "functions" / name
        folder.mkdir(parents=True)
        for each in ("deno.json", "deno.lock"):
            shutil.copy(FOLDER / each, folder)
        shutil.copy(FOLDER / file, folder / f"function{Path(file).suffix}")
    with DevServer(
        tmp_path / "functions", "--no-watch", "--timeout", "60", environ=environ
    ) as dev:
        command = [deno_binary(), "run", "-A", "--no-check", "--frozen", "client.ts"]
        done = subprocess.run(
            [*command, dev.url],
            cwd=FOLDER,
            env={**os.environ, **environ, "NO_COLOR": "1", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {
        "shown": [200, "yes", {"id": "a b", "tags": []}],
        "made": [201, {"made": {"n": 1}}],
        "pieces": "one two",
        "item": [200, {"id": "7", "tag": ["x", "y"]}, 2],
        "posted": [201, {"ü": [1]}],
        "image": ["image/png", 256, 255],
        "known": 304,
        "away": [302, "/items/9"],
        "head": [200, "", "application/json; charset=utf-8"],
        "missing": 404,
    }

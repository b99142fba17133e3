"""The workflow of ``examples/ci``: what its steps do for each exit code of a plan."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "examples" / "ci" / "deploy.yml"
PLAN = {
    "function": "arn:aws:lambda:eu-central-1:123456789012:function:orders",
    "changes": [
        {"what": "memory", "before": "512 MB", "after": "1024 MB", "loses": False},
        {"what": "env OLD", "before": "***", "after": None, "loses": True},
    ],
}


@pytest.fixture(scope="module")
def workflow() -> Any:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


def scripts(workflow: Any) -> list[str]:
    return [
        step["run"]
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]


def test_the_workflow_has_no_key_and_asks_for_no_more_than_it_needs(
    workflow: Any,
) -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read", "id-token": "write"}
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@v\d+", step["uses"])
    # A deployment that is broken off would be finished by the next run only.
    concurrency = workflow["jobs"]["deploy"]["concurrency"]
    assert concurrency["cancel-in-progress"] is False


def test_every_script_is_valid_for_bash(workflow: Any) -> None:
    assert scripts(workflow)
    for script in scripts(workflow):
        subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.parametrize(
    ("code", "ends", "says"),
    [(0, 0, "changed=false\n"), (4, 0, "changed=true\n"), (2, 2, ""), (3, 3, "")],
)
def test_the_plan_fails_only_if_there_is_no_plan(
    workflow: Any, tmp_path: Path, code: int, ends: int, says: str
) -> None:
    (script,) = (text for text in scripts(workflow) if "--plan" in text)
    command = tmp_path / "bin" / "lambda-deno-spawn"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\ncat <<'END'\n{json.dumps(PLAN)}\nEND\nexit {code}\n"
    )
    command.chmod(0o755)
    (command.parent / "python").symlink_to("/usr/bin/env")
    (command.parent / "python").unlink()
    (command.parent / "python").write_text('#!/bin/sh\nexec python3 "$@"\n')
    (command.parent / "python").chmod(0o755)
    output, summary = tmp_path / "output", tmp_path / "summary"
    output.touch()
    summary.touch()
    # As GitHub runs it: bash with -e and pipefail.
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "FUNCTION": ".",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        check=False,
    )
    assert ended.returncode == ends
    assert output.read_text() == says
    if not ends:
        assert "- env OLD: `***` → `None` (cannot be undone)" in summary.read_text()

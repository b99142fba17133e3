"""The npm package with the types, packed, installed and used as a project would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.fixtures.packages import install
from tests.integration.harness import deno_binary

pytestmark = [pytest.mark.deno, pytest.mark.long]

ROOT = Path(__file__).parents[2]
SOURCES = ("types", "LICENSE", "src/lambda_deno_spawn/js/lambda.d.ts")
EXAMPLE = re.compile(r"^```ts\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Each is wrong in one place, which shows that the types are really read.
WRONG = {
    "context.ts": """import type { Context } from "@lambda-deno-spawn/types";
export const handler = (_event: unknown, context: Context) => context.requestId;
""",
    "stream.ts": """import type {} from "@lambda-deno-spawn/types";
export const handler = awslambda.streamifyResponse((_event, stream) => {
  stream.setContentType(1);
});
""",
}


def run(*command: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", "npm_config_update_notifier": "false"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    """The package, as ``make types`` packs it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    checkout = tmp_path / "checkout"
    for name in SOURCES:
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target)
        else:
            shutil.copyfile(ROOT / name, target)
    before = sorted(path.name for path in (ROOT / "types").iterdir())
    run("npm", "pack", "--pack-destination", str(tmp_path), cwd=checkout / "types")
    assert sorted(path.name for path in (checkout / "types").iterdir()) == before
    [packed] = tmp_path.glob("*.tgz")
    return packed


def test_packed_types_check_the_handlers_of_a_project(
    tarball: Path, tmp_path: Path
) -> None:
    with tarfile.open(tarball) as content:
        assert sorted(content.getnames()) == [
            f"package/{name}"
            for name in ("LICENSE", "README.md", "index.d.ts", "package.json")
        ]
        types = content.extractfile("package/index.d.ts")
        assert types is not None
        reference = b'/// <reference types="node" />\n'
        assert types.read() == reference + (ROOT / SOURCES[2]).read_bytes()
    project = tmp_path / "project"
    # A copy: the installed one serves other tests, too.
    shutil.copytree(
        install(ROOT / "tests/fixtures/types-project"), project, symlinks=True
    )
    flags = ("--offline", "--no-save", "--no-audit", "--no-fund")
    run("npm", "install", *flags, str(tarball), cwd=project)
    readme = (ROOT / "types" / "README.md").read_text("utf-8")
    examples = EXAMPLE.findall(readme)
    assert len(examples) == 2
    for number, example in enumerate(examples):
        (project / f"example{number}.ts").write_text(example, encoding="utf-8")
    run("npx", "--no-install", "tsc", "--noEmit", cwd=project)
    # TypeScript 7 has this default: a package has to name the types that it needs.
    bare = {"extends": "./tsconfig.json", "compilerOptions": {"types": []}}
    (project / "bare.json").write_text(json.dumps(bare), encoding="utf-8")
    run("npx", "--no-install", "tsc", "--noEmit", "-p", "bare.json", cwd=project)
    right = [f"example{number}.ts" for number in range(len(examples))]
    run(deno_binary(), "check", *right, cwd=project)
    for name, text in WRONG.items():
        (project / name).write_text(text, encoding="utf-8")
    said = run(
        "npx",
        "--no-install",
        "tsc",
        "--noEmit",
        "--pretty",
        "false",
        cwd=project,
        code=2,
    )
    assert sorted(re.findall(r"^(\w+\.ts)\(", said, re.MULTILINE)) == [*WRONG]
    said = run(deno_binary(), "check", *WRONG, cwd=project, code=1)
    assert said.count("[ERROR]") == len(WRONG)

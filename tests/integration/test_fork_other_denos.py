"""Forks of other Denos than the one that is installed: right answers, or a start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.layer import DEFAULT_PYTHON
from lambda_deno_spawn.dev.package.wheels import Requirement, Target, fetch_wheels
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.requirements import DENO_MINIMUM
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.native.control import library_path
from tests.integration.harness import reports
from tests.integration.test_fork import DOES, WORK
from tests.integration.test_managed_instances import invoke_all, managed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [
    pytest.mark.deno,
    pytest.mark.long,  # it downloads that Deno
    pytest.mark.skipif(library_path() is None, reason="make native builds the library"),
]

OLDEST = ".".join(map(str, (*DENO_MINIMUM, 0, 0)[:3]))


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the oldest Deno that is supported; skip where it cannot be had."""
    folder = tmp_path_factory.mktemp("deno")
    requirement = Requirement("deno", OLDEST)
    target = Target(Arch.here(), DEFAULT_PYTHON)
    try:
        [wheel] = fetch_wheels([requirement], target, os.environ, folder)
    except BuildError as error:
        pytest.skip(str(error))
    binary = folder / "deno"
    binary.write_bytes(wheel.scripts["deno"])
    binary.chmod(0o755)
    return binary


async def test_copies_of_the_oldest_deno_do_what_processes_can(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, oldest: Path
) -> None:
    environ = {
        "LAMBDA_DENO_BIN": str(oldest),
        "LAMBDA_DENO_START": "auto",
        "LAMBDA_DENO_METRICS": "json",
        "LAMBDA_DENO_WARM": "ready",
        "LAMBDA_DENO_PERMISSIONS": "all",
    }
    async with make_runtime({"function.js": WORK}, **environ) as runtime:
        for does in ("timers", *DOES):
            event = {"does": does, "template": runtime.pid}
            assert (await api.invoke(event)).json() is True, does
        await api.wait_for_next()
        starts = {report["start"] for report in reports(runtime.log)}
        assert "fork" in starts or "processes of their own start" in runtime.log


async def test_copies_of_the_oldest_deno_have_their_own_folders(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, oldest: Path
) -> None:
    source = """
    export async function handler({ n }) {
      const folder = Deno.env.get("TMPDIR");
      Deno.writeTextFileSync(`${folder}/${n}`, "");
      await import(`data:application/typescript,export const a: number = 1`);
      const { state } = Deno.permissions.querySync({ name: "write", path: folder });
      return [Array.from(Deno.readDirSync(folder), ({ name }) => name), state];
    }
    """
    options = {
        **managed(4),
        "LAMBDA_DENO_BIN": str(oldest),
        "LAMBDA_DENO_START": "auto",
        "LAMBDA_DENO_METRICS": "json",
    }
    async with make_runtime({"function.mjs": source}, **options) as runtime:
        for _ in range(6):
            answers = await invoke_all(api, [{"n": n} for n in range(4)])
            found = sorted(answer.json() for answer in answers)
            assert found == [[[f"{n}"], "granted"] for n in range(4)]
        starts = {report["start"] for report in reports(runtime.log)}
        assert "fork" in starts or "processes of their own start" in runtime.log

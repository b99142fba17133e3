"""What goes wrong with a template costs a start or is named; the next event is served.

A library that is missing or foreign, a template that dies, is refused or misbehaves.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from lambda_deno_spawn.dev.local.runtime import isolated_python
from lambda_deno_spawn.native.control import LIBRARY, library_path
from lambda_deno_spawn.serving.template import NO_MEMORY_LEFT
from tests.integration import harness
from tests.integration.harness import kill_and_wait, reports
from tests.integration.test_fork import forked_again

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest

pytestmark = [
    pytest.mark.deno,
    pytest.mark.as_lambda,
    pytest.mark.skipif(library_path() is None, reason="make native builds the library"),
]

ENVIRON = {
    "LAMBDA_DENO_START": "auto",
    "LAMBDA_DENO_METRICS": "json",
    "LAMBDA_DENO_WARM": "ready",
}
ECHO = "export const handler = (event) => event;"
STARTED = "Events are served by processes of their own start"
FORKED = "Events are served by forks of process"


async def serve(api: FakeRuntimeApi, count: int) -> None:
    for n in range(count):
        answer = await api.invoke({"n": n})
        assert (answer.call, answer.json()) == ("response", {"n": n})


async def starts(runtime: RuntimeUnderTest, api: FakeRuntimeApi) -> list[str]:
    """Return how each event was served, at the end of a test."""
    await api.wait_for_next()
    return [report["start"] for report in reports(runtime.log)]


async def template_of(runtime: RuntimeUnderTest) -> int:
    line = await runtime.logged(FORKED)
    return int(line.rpartition(" ")[2])


def use_library(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    """Have the runtime find this library in the place of its own."""
    found = None if path is None else str(path)
    code = (
        "from lambda_deno_spawn.native import control; "
        f"control.library_path = lambda: {found!r}; "
        "from lambda_deno_spawn.bootstrap import main; main()"
    )
    monkeypatch.setattr(harness, "bootstrap_command", lambda: isolated_python(code))


OTHER_MACHINE = {"x86_64": "aarch64", "aarch64": "x86_64"}


@pytest.mark.cases(1)
@pytest.mark.parametrize("library", ["missing", "foreign", "garbage", "gone", "empty"])
async def test_a_library_that_cannot_be_loaded_means_a_start_for_each_event(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    library: str,
) -> None:
    path: Path | None = tmp_path / LIBRARY
    own = library_path()
    assert own is not None
    match library:
        case "missing":
            path = None
        case "foreign":
            other = OTHER_MACHINE[os.uname().machine]
            found = Path(own.replace(f"/{os.uname().machine}/", f"/{other}/"))
            if not found.is_file():
                pytest.skip(f"make native builds the library for {other}")
            (tmp_path / LIBRARY).symlink_to(found)
        case "garbage":
            (tmp_path / LIBRARY).write_bytes(b"\x7fELF and nothing else")
        case "empty":
            (tmp_path / LIBRARY).touch()
    use_library(monkeypatch, path)
    async with make_runtime({"function.mjs": ECHO}, **ENVIRON) as runtime:
        await serve(api, 4)
        assert set(await starts(runtime, api)) == {"exec"}
        line = await runtime.logged(STARTED)
        reason = "there is no library" if path is None else "the loader has not taken"
        assert reason in line


async def test_forks_that_are_asked_for_without_a_library_are_an_init_error(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    use_library(monkeypatch, tmp_path / LIBRARY)
    environ = {**ENVIRON, "LAMBDA_DENO_START": "fork"}
    async with make_runtime({"function.mjs": ECHO}, **environ) as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        assert "the loader has not taken the library" in answer.json()["errorMessage"]
        assert await runtime.wait() == 1


LOADS = """
import { appendFileSync, existsSync, readFileSync } from "node:fs";
const file = `${import.meta.dirname}/loads`;
appendFileSync(file, "x");
const loads = readFileSync(file).length;
// The first process is not a template; the second one is the first template.
%s
export const handler = (event) => event;
"""
WHILE_IT_LOADS = {
    "exits": "if (loads === 2) Deno.exit(3);",
    "dies": "if (loads === 2) Deno.kill(Deno.pid, 'SIGKILL');",
    "throws": "if (loads === 2) throw new Error('for the test');",
    "never-settles": "if (loads === 2) await new Promise(() => {});",
    "leaves-programs": """
if (loads === 2) await new Deno.Command("sh", {
  args: ["-c", "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done"],
  stdout: "null",
  stderr: "null",
}).output();""",
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("does", WHILE_IT_LOADS)
async def test_what_the_module_does_in_the_template_while_it_loads_ends_there(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, does: str
) -> None:
    source = LOADS % WHILE_IT_LOADS[does]
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.mjs": source}, **environ) as runtime:
        await serve(api, 5)
        await forked_again(runtime, api)


async def test_a_module_that_works_on_and_on_is_not_copied(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
    async function work() {
      for (;;) await Deno.readTextFile(import.meta.filename);
    }
    for (let i = 0; i < 4; i++) work();
    export const handler = (event) => event;
    """
    async with make_runtime({"function.mjs": source}, **ENVIRON) as runtime:
        await serve(api, 4)
        found = await starts(runtime, api)
        # Between two reads of the file there is nothing that goes on.
        assert found[-1] == "fork" or STARTED in runtime.log


MEDDLES = {
    "writes": "try { fs.writeSync(fd, 'x'.repeat(128)); } catch {}",
    "closes": "try { fs.closeSync(fd); } catch {}",
    "reads": "try { fs.readSync(fd, new Uint8Array(1)); } catch {}",
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("does", MEDDLES)
async def test_a_module_that_meddles_with_the_control_channel_gains_nothing(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, does: str
) -> None:
    source = f"""
    import fs from "node:fs";
    const fd = 3;  // that of the channel in a template, nothing in other processes
    let link = "";
    try {{ link = Deno.readLinkSync("/proc/self/fd/3"); }} catch {{}}
    if (link.startsWith("socket:")) {{ {MEDDLES[does]} }}
    export const handler = (event) => event;
    """
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.mjs": source}, **environ) as runtime:
        await serve(api, 6)
        assert "fork" in (await starts(runtime, api)) or STARTED in runtime.log


@pytest.mark.cases(1)
@pytest.mark.parametrize("places", ["one", "several"])
async def test_a_template_killed_again_and_again_costs_starts_only(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, places: str
) -> None:
    environ: dict[str, Any] = {**ENVIRON}
    if places == "several":
        environ["AWS_LAMBDA_MAX_CONCURRENCY"] = "2"
        environ["AWS_LAMBDA_INITIALIZATION_TYPE"] = "lambda-managed-instances"
    async with make_runtime({"function.mjs": ECHO}, **environ) as runtime:
        killed = rounds = 0
        # If another test runs out of memory meanwhile, that is taken for the cause.
        while killed < 2 and NO_MEMORY_LEFT not in runtime.log:
            rounds += 1
            assert rounds < 40
            await serve(api, 2)
            lines = [line for line in runtime.log.splitlines() if FORKED in line]
            if len(lines) > killed:
                killed = len(lines)
                pid = int(lines[-1].rpartition(" ")[2].rstrip('"}'))
                if psutil.pid_exists(pid):
                    await kill_and_wait(pid)
        await serve(api, 2)


KILLS = """
export const handler = ({ n, pid }) => {
  // Not by Deno.kill: a copy means itself by the number of its template.
  if (pid) new Deno.Command("kill", { args: ["-9", `${pid}`] }).outputSync();
  return { n };
};
"""


async def test_a_copy_that_waits_needs_its_template_no_more(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    environ = {**ENVIRON, "LAMBDA_DENO_PERMISSIONS": "all"}
    async with make_runtime({"function.mjs": KILLS}, **environ) as runtime:
        await serve(api, 2)
        await forked_again(runtime, api)
        served = len(reports(runtime.log))
        first = await template_of(runtime)
        await kill_and_wait(first)  # while a copy waits
        api.deliver(b'{"n":1}')
        assert (await api.answer()).json() == {"n": 1}
        await api.wait_for_next()
        assert reports(runtime.log)[served]["start"] == "fork"
        api.deliver(b'{"n":2}')
        assert (await api.answer()).json() == {"n": 2}
        await forked_again(runtime, api)
        api.deliver(b'{"n":3}')
        assert (await api.answer()).json() == {"n": 3}
        line = [line for line in runtime.log.splitlines() if FORKED in line][-1]
        second = int(line.rpartition(" ")[2])
        assert second != first
        # An event ends it that is served by a copy of it.
        answer = await api.invoke({"n": 1, "pid": second})
        assert answer.json() == {"n": 1}
        await serve(api, 3)
        assert runtime.is_running
        await api.wait_for_next()


async def test_forks_that_the_system_refuses_are_starts(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    if os.geteuid() == 0:
        pytest.skip("no limit holds for root; `make test-as-lambda` runs it")
    async with make_runtime({"function.mjs": ECHO}, **ENVIRON) as runtime:
        await serve(api, 3)
        template = await template_of(runtime)
        _, most = resource.prlimit(template, resource.RLIMIT_NPROC)
        resource.prlimit(template, resource.RLIMIT_NPROC, (1, most))
        await serve(api, 4)
        assert "fork failed" in runtime.log
        await forked_again(runtime, api)
        assert "exec" in [report["start"] for report in reports(runtime.log)][3:]


@pytest.mark.cases(1)
@pytest.mark.parametrize("memory_mb", ["128", "10240"])
async def test_the_smallest_and_the_largest_function_are_forked(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, memory_mb: str
) -> None:
    environ = {**ENVIRON, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory_mb}
    source = """
    export function handler(event) {
      let kept;
      for (let i = 0; i < 300_000; i++) kept = { i, before: [i] };
      return kept.i ? event : null;
    }
    """
    async with make_runtime({"function.mjs": source}, **environ) as runtime:
        await serve(api, 4)
        await forked_again(runtime, api)

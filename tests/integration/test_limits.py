"""Resources that run out: the kernel's refusals cost one event, and are named.

Memory, processes, descriptors, room in /tmp, and a Deno binary that begins to fail; the
limits are the kernel's own, as on Lambda, so most of these tests need root.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cgroups import MIB, Cgroup, unavailable
from tests.integration.harness import deno_binary, kill_and_wait

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]
needs_memory = pytest.mark.skipif(
    unavailable("memory") != "", reason=unavailable("memory")
)
needs_pids = pytest.mark.skipif(unavailable("pids") != "", reason=unavailable("pids"))

MEMORY = """
const kept: unknown[] = [];
export async function handler(event: any) {
  switch (event.eats) {
    case "objects":
      for (;;) kept.push(new Array(1_000).fill({}).map(() => ({ a: 1 })));
    case "text":
      for (;;) kept.push(Array.from({ length: 1_000 }, () => `${Math.random()}`));
    case "buffers":
      for (;;) kept.push(new Uint8Array(8 * 1024 * 1024).fill(1));
    case "programs": {
      // Small ones, each smaller than the supervisor, and all together too large.
      const script = "x=$(head -c 8000000 /dev/zero | tr '\\\\0' x); sleep 300";
      for (let n = 0; n < 60; n++) {
        new Deno.Command("sh", { args: ["-c", script] }).spawn();
      }
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    }
  }
  return Deno.pid;
}
"""


@pytest.mark.cases(1)
@needs_memory
@pytest.mark.parametrize(
    ("eats", "memory_mb"),
    [
        ("objects", 128),
        ("text", 256),
        pytest.param("objects", 512, marks=pytest.mark.long),
    ],
)
async def test_javascript_memory_ends_before_the_kernel_has_to_end_anything(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, eats: str, memory_mb: int
) -> None:
    runtime = make_runtime(
        {"function.ts": MEMORY}, AWS_LAMBDA_FUNCTION_MEMORY_SIZE=str(memory_mb)
    )
    with Cgroup.create(memory_bytes=memory_mb * MIB) as group:
        runtime.wrapper = group.wrapper
        async with runtime:
            answer = await api.invoke({"eats": eats})
            body = answer.json()
            assert body["errorType"] == "Runtime.OutOfMemory", body
            assert "ran out of JavaScript memory" in body["errorMessage"]
            assert "raise the function's memory size" in body["errorMessage"]
            assert (await api.invoke({})).call == "response"
            await api.wait_for_next()
            assert group.oom_kills() == 0


@pytest.mark.cases(1)
@needs_memory
@pytest.mark.parametrize("warm", ["ready", "off"])
async def test_the_kernel_ends_the_worker_and_never_the_supervisor(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    runtime = make_runtime(
        {"function.ts": MEMORY},
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="192",
        LAMBDA_DENO_PERMISSIONS="all",
        LAMBDA_DENO_WARM=warm,
    )
    with Cgroup.create(memory_bytes=192 * MIB) as group:
        runtime.wrapper = group.wrapper
        async with runtime:
            answer = await api.invoke({"eats": "buffers"})
            body = answer.json()
            assert body["errorType"] == "Runtime.OutOfMemory", body
            assert "ended by SIGKILL before answering" in body["errorMessage"]
            assert "raise the function's memory size" in body["errorMessage"]
            assert group.oom_kills() >= 1
            assert (await api.invoke({})).call == "response"
            # Now everybody is smaller than the supervisor.
            killed = group.oom_kills()
            answer = await api.invoke({"eats": "programs"}, timeout_s=12)
            assert answer.json()["errorType"] in (
                "Runtime.OutOfMemory",
                "Runtime.InvokeTimeout",
            )
            assert group.oom_kills() > killed
            assert (await api.invoke({})).call == "response"
            await api.wait_for_next()
            assert runtime.is_running


async def test_a_process_that_kills_itself_is_not_taken_for_out_of_memory(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export async function handler(event: any) {
  if (event.kills) Deno.kill(Deno.pid, "SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, event.kills ? 9_000 : 0));
}
"""
    async with make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"):
        body = (await api.invoke({"kills": True})).json()
        assert body["errorType"] == "Runtime.ExitError"
        assert "ended by signal 9 (Killed) before answering" in body["errorMessage"]
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()


KILLED_AS_IT_LOADS = """
const left = Number(Deno.readTextFileSync(Deno.env.get("LEFT")!));
if (left > 0) {
  Deno.writeTextFileSync(Deno.env.get("LEFT")!, `${left - 1}`);
  Deno.kill(Deno.pid, "SIGKILL");
  while (true);
}
export const handler = () => "served";
"""


async def test_an_event_outlives_a_process_that_is_killed_as_it_loads(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    """When memory runs out, the kernel may choose a process that has just begun."""
    left = tmp_path / "left"
    left.write_text("0")
    async with make_runtime(
        {"function.ts": KILLED_AS_IT_LOADS},
        LAMBDA_DENO_START="exec",  # each event's process loads the module
        LAMBDA_DENO_WARM="off",
        LAMBDA_DENO_PERMISSIONS="all",
        LEFT=str(left),
    ) as runtime:
        assert (await api.invoke({})).json() == "served"
        left.write_text("1")
        assert (await api.invoke({})).json() == "served"
        await runtime.logged("Replacing the process")
        left.write_text("2")  # it is the module's own doing
        assert (await api.invoke({})).json()["errorType"] == "Runtime.ExitError"
        assert (await api.invoke({})).json() == "served"


BOMB = """
export async function handler(event: any) {
  if (event.script) {
    const { code } = await new Deno.Command("sh", { args: ["-c", event.script] })
      .output();
    return code;
  }
  return Deno.pid;
}
"""


@needs_pids
async def test_a_fork_bomb_costs_one_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime({"function.ts": BOMB}, LAMBDA_DENO_PERMISSIONS="all")
    with Cgroup.create(processes=100) as group:
        runtime.wrapper = group.wrapper
        async with runtime:
            for script in ("b() { b | b & }; b; sleep 300", "b() { b & b & wait; }; b"):
                # A timeout, or a shell that could not fork and ended: both will do.
                await api.invoke({"script": script}, timeout_s=2)
                assert (await api.invoke({})).call == "response"
            await api.wait_for_next()
            assert len(runtime.waiting) == 1
            assert len(group.process_ids()) <= 3, "besides, supervisor and template"


@pytest.mark.cases(1)
@needs_pids
@pytest.mark.parametrize("warm", ["ready", "background", "off"])
async def test_no_process_left_to_start_is_named_and_passes(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    runtime = make_runtime({"function.ts": BOMB}, LAMBDA_DENO_WARM=warm)
    with Cgroup.create(processes=100) as group:
        runtime.wrapper = group.wrapper
        async with runtime:
            assert (await api.invoke({})).call == "response"
            await api.wait_for_next()
            for limit in (1, 3):  # no process; a process without its threads
                group.limit_processes(limit)
                if warm != "off":  # the one that waits has all it needs
                    api.deliver(b"{}")
                    await api.answer()
                    await api.wait_for_next()
                api.deliver(b"{}")
                body = (await api.answer()).json()
                await api.wait_for_next()
                assert body["errorType"] == "Runtime.ResourceExhausted", body
                assert "1,024 processes and threads" in body["errorMessage"]
                group.limit_processes(100)
                for _ in range(2):
                    api.deliver(b"{}")
                    assert (await api.answer()).call == "response"
                    await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.parametrize("warm", ["ready", "off"])
async def test_no_descriptor_left_is_named_and_passes(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    async with make_runtime({"function.ts": BOMB}, LAMBDA_DENO_WARM=warm) as runtime:
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
        _, hard = limits = resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE)
        # What is open stays open; nothing can be opened.
        resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE, (3, hard))
        if warm != "off":
            api.deliver(b"{}")
            assert (await api.answer()).call == "response"
            await api.wait_for_next()
        api.deliver(b"{}")
        body = (await api.answer()).json()
        await api.wait_for_next()
        assert body["errorType"] == "Runtime.ResourceExhausted", body
        assert "Too many open files" in body["errorMessage"]
        resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE, limits)
        for _ in range(2):
            api.deliver(b"{}")
            assert (await api.answer()).call == "response"
            await api.wait_for_next()


async def test_children_are_ended_even_if_no_descriptor_is_left(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """The list of children could not be opened, and was taken for empty."""
    source = """
export async function handler() {
  await new Deno.Command("sh", { args: ["-c", "setsid sleep 300 >/dev/null 2>&1 &"] })
    .output();
  console.log("left one");
  const exists = (path: URL) => {
    try { return Deno.statSync(path).isFile; } catch { return false; }
  };
  while (!exists(new URL("go", import.meta.url))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
"""
    # The limit is restored before a process is started, so none must be.
    runtime = make_runtime(
        {"function.ts": source},
        LAMBDA_DENO_PERMISSIONS="all",
        LAMBDA_DENO_WARM="off",
    )
    async with runtime:
        await api.wait_for_next()
        api.deliver(b"{}")
        await runtime.logged("left one")
        _, hard = limits = resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE, (3, hard))
        (runtime.task_root / "go").touch()
        assert (await api.answer()).call == "response"
        await api.wait_for_next()
        assert runtime.survivors() == [runtime.pid]
        resource.prlimit(runtime.pid, resource.RLIMIT_NOFILE, limits)


@pytest.mark.root
async def test_a_full_tmp_costs_one_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
export function handler(event: any) {
  const folder = event.folder ?? Deno.env.get("TMPDIR");
  if (event.fills) {
    const block = new Uint8Array(1024 * 1024).fill(1);
    for (let n = 0;; n++) Deno.writeFileSync(`${folder}/${n}`, block);
  }
  return [...Deno.readDirSync(Deno.env.get("TMPDIR")!)].length;
}
"""
    runtime = make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all")
    # A disk of the runtime's own, with room for little and for few names.
    mount = 'mount -t tmpfs -o size=16m,nr_inodes=60 tmpfs "$0" && exec "$@"'
    runtime.wrapper = (
        f"exec unshare --mount sh -c '{mount}' '{runtime.temp_root}' \"$@\""
    )
    async with runtime:
        for _ in range(2):
            body = (await api.invoke({"fills": True})).json()
            assert "No space left on device" in body["errorMessage"]
            assert (await api.invoke({})).json() == 0
        # Outside of its own folder: that stays, and the next event is served.
        outside = {"fills": True, "folder": str(runtime.temp_root)}
        assert (await api.invoke(outside)).call == "error"
        for _ in range(3):
            assert (await api.invoke({})).json() == 0
        await api.wait_for_next()


async def test_a_deno_that_begins_to_fail_costs_the_events_until_it_works_again(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    binary = tmp_path / "deno"
    good = f'#!/bin/sh\nexec "{deno_binary()}" "$@"\n'

    def install(text: str | None, mode: int = 0o755) -> None:
        binary.unlink(missing_ok=True)
        if text is not None:
            binary.write_text(text)
            binary.chmod(mode)

    install(good)
    failures = [
        ("#!/bin/sh\necho broken library >&2\nexit 127\n", 0o755, "Runtime.ExitError"),
        ("#!/bin/sh\nkill -SEGV $$\n", 0o755, "Runtime.ExitError"),
        ("#!/nowhere/sh\n", 0o755, "Runtime.InvalidEntrypoint"),
        (good, 0o644, "Runtime.InvalidEntrypoint"),
        (None, 0, "Runtime.InvalidEntrypoint"),
    ]
    async with make_runtime(
        {"function.ts": BOMB}, LAMBDA_DENO_BIN=str(binary)
    ) as runtime:
        await api.wait_for_next()
        for text, mode, error_type in failures:
            if os.geteuid() == 0 and mode == 0o644:
                continue  # root may execute nothing either, but asks the file system
            install(text, mode)
            api.deliver(b"{}")
            assert (await api.answer()).call == "response", "one was waiting"
            await api.wait_for_next()
            for _ in range(2):
                api.deliver(b"{}")
                body = (await api.answer()).json()
                await api.wait_for_next()
                assert body["errorType"] == error_type, (text, body)
            if text and "broken" in text:
                assert body["logTail"] == ["broken library"]
            install(good)
            api.deliver(b"{}")
            assert (await api.answer()).call == "response"
            await api.wait_for_next()
        assert runtime.is_running


COMET = """
import os, sys, time
end = time.monotonic() + 8  # whatever happens here, it does not fly for ever
os.setsid()
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""
TREE = """
import os, signal, time
# Two of each generation: five generations are 62 processes.
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        os.fork()
time.sleep(300)
"""


@pytest.mark.cases(1)
@pytest.mark.parametrize("program", [COMET, TREE], ids=["comet", "tree"])
async def test_programs_that_flee_are_caught(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, program: str, tmp_path: Path
) -> None:
    """A process that forks and ends at once is another one whenever it is looked at."""
    (tmp_path / "program.py").write_text(program)
    script = f"'{sys.executable}' -S '{tmp_path}/program.py' >/dev/null 2>&1 & sleep .2"
    async with make_runtime(
        {"function.ts": BOMB}, LAMBDA_DENO_PERMISSIONS="all"
    ) as runtime:
        for _ in range(2):
            assert (await api.invoke({"script": script})).json() == 0
            await api.invoke({})
        await api.wait_for_next()
        assert len(runtime.waiting) == 1
        assert "Cannot end all that" not in runtime.log


# Starts a program that outlives its parent when it is told to, and tells its number.
HELPER = """
read -r line < "$1/in"
(setsid sh -c 'echo $$ > "$1/out"; exec sleep 300' sh "$1" &)
exec sleep 300
"""


async def test_children_of_a_wrapper_and_their_orphans_are_left_alone(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    """A helper's orphan came to the supervisor, and was ended as if it were ours."""
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "helper.sh").write_text(HELPER)
    runtime = make_runtime({"function.ts": BOMB})
    helper = f"sh '{tmp_path}/helper.sh' '{tmp_path}' >'{os.devnull}' 2>&1"
    runtime.wrapper = f"{helper} & echo $! >'{tmp_path}/pid'; exec \"$@\""
    async with runtime:
        assert (await api.invoke({})).call == "response"
        await asyncio.to_thread((tmp_path / "in").write_text, "go\n")
        orphan = int(await asyncio.to_thread((tmp_path / "out").read_text))
        await api.wait_for_next()
        for _ in range(3):
            api.deliver(b"{}")
            assert (await api.answer()).call == "response"
            await api.wait_for_next()
        for pid in (orphan, int((tmp_path / "pid").read_text())):
            await kill_and_wait(pid)  # an error if it is not there any more

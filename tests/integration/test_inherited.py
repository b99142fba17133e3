"""What an event's program does to other processes is not there for later events."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.processes.shared_memory import IPC_RMID, segments

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SOURCE = """
export function handler({ python, code, pid }: any) {
  const args = ["-S", "-c", code, String(pid)];
  const { stdout, stderr } = new Deno.Command(python, { args }).outputSync();
  const decoder = new TextDecoder();
  return decoder.decode(stdout) + decoder.decode(stderr);
}
"""
LOOK = """
import os, resource
names = ("NOFILE", "FSIZE", "CPU")
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]
print(limits, os.nice(0), sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0))
"""
MEDDLE = """
import os, resource, sys
pid = int(sys.argv[1])
processors = sorted(os.sched_getaffinity(pid))
os.sched_setaffinity(pid, processors[:1])
def limit(which, soft, hard):
    most = resource.prlimit(pid, which)[1]
    resource.prlimit(pid, which, (soft, hard or most))
"""
UNDOABLE = """
limit(resource.RLIMIT_NOFILE, 100, None)
limit(resource.RLIMIT_FSIZE, 4096, None)
os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
"""
LASTING = """
os.setpriority(os.PRIO_PROCESS, pid, 3)
limit(resource.RLIMIT_CPU, 700, 800)
"""


async def test_what_copies_begin_with_stays_as_it_was(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime(
        {"function.ts": SOURCE},
        LAMBDA_DENO_PERMISSIONS="all",
        LAMBDA_DENO_START="fork",
    )
    async with runtime:
        event = {"python": sys.executable, "code": LOOK, "pid": 0}
        before = (await api.invoke(event)).json()
        line = await runtime.logged("served by forks of process")
        meddle = {**event, "code": MEDDLE + UNDOABLE + LASTING, "pid": line.split()[-1]}
        assert (await api.invoke(meddle)).json() == ""
        await runtime.logged("its limits or priority were changed")
        for _ in range(2):
            assert (await api.invoke(event)).json() == before
        await api.wait_for_next()


async def test_what_processes_begin_with_is_restored_or_reported(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime(
        {"function.ts": SOURCE},
        LAMBDA_DENO_PERMISSIONS="all",
        LAMBDA_DENO_START="exec",
    )
    async with runtime:
        event = {"python": sys.executable, "code": LOOK, "pid": runtime.pid}
        before = (await api.invoke(event)).json()
        assert (await api.invoke({**event, "code": MEDDLE + UNDOABLE})).json() == ""
        for _ in range(2):
            assert (await api.invoke(event)).json() == before
        assert "Cannot undo" not in runtime.log
        # Root may be able to undo the rest, too.
        assert (await api.invoke({**event, "code": MEDDLE + LASTING})).json() == ""
        after = (await api.invoke(event)).json()
        if after != before:
            line = await runtime.logged("Cannot undo")
            assert "RLIMIT_CPU (" in line or "priority 0 is 3" in line
            assert "RLIMIT_NOFILE" not in line
        await api.wait_for_next()


# The first process that loads when there is a gate takes it, and waits to be let in.
GATE = """
const path = (name: string) => new URL(name, import.meta.url);
const exists = (name: string) => {
  try { return Deno.statSync(path(name)).isFile; } catch { return false; }
};
if (exists("gate")) {
  Deno.renameSync(path("gate"), path("taken"));
  while (!exists("open")) await new Promise((resolve) => setTimeout(resolve, 10));
}
export function handler({ shuts, looks, python, code, pid }: any) {
  if (shuts) return Deno.writeTextFileSync(path("gate"), "") ?? "shut";
  if (!looks) return "served";
  const taken = exists("taken");
  const { stdout } = new Deno.Command(python, { args: ["-S", "-c", code, `${pid}`] })
    .outputSync();
  Deno.writeTextFileSync(path("open"), "");
  return [taken, JSON.parse(new TextDecoder().decode(stdout))];
}
"""
OPENS = """
import json, os, sys
found = {}
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        status = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
    except OSError:
        continue
    if status[1] == sys.argv[1]:
        try:
            os.close(os.open(f"/proc/{name}/mem", os.O_RDWR))
            found[name] = True
        except OSError:
            found[name] = False
print(json.dumps(found))
"""


async def test_no_event_can_open_a_process_that_loads_to_be_copied(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """What it changed there would be in all copies."""
    if os.geteuid() == 0:
        pytest.skip("root may open any process")
    runtime = make_runtime({"function.ts": GATE}, LAMBDA_DENO_PERMISSIONS="all")
    async with runtime:
        # There is no time to wait until it has loaded.
        answer = await api.invoke({"shuts": True}, timeout_s=5)
        assert answer.json() == "shut"
        looks = {"looks": True, "python": sys.executable, "code": OPENS}
        answer = await api.invoke({**looks, "pid": runtime.pid})
        taken, found = answer.json()
        assert taken
        line = await runtime.logged("served by forks of process")
        assert found.pop(line.split()[-1]) is False
        assert True in found.values(), "the handler's own process can be opened"
        await api.wait_for_next()


SHARES = """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
number = libc.shmget(0, 1 << 20, 0o600)
ctypes.memset(libc.shmat(number, None, 0), 1, 1 << 20)
print(number)
"""


async def test_memory_that_a_program_shares_ends_with_its_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It outlives every process, and nothing else frees it."""
    runtime = make_runtime({"function.ts": SOURCE}, LAMBDA_DENO_PERMISSIONS="all")
    libc = ctypes.CDLL(None)
    before = libc.shmget(0, 4096, 0o600)
    try:
        async with runtime:
            event = {"python": sys.executable, "code": SHARES, "pid": 0}
            left = int((await api.invoke(event)).json())
            assert left >= 0
            await api.wait_for_next()
            there = {segment.id for segment in segments()}
            assert left not in there
            assert before in there, "it is not the event's"
    finally:
        libc.shmctl(before, IPC_RMID, None)

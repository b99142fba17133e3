"""What must not happen to the supervisor, whatever its workers and its host do.

Each case was a defect once; its docstring says which.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from lambda_deno_spawn.dev.local.runtime import isolated_python
from lambda_deno_spawn.processes.state import StateDir, remove_tree
from tests.doubles import Refusal
from tests.integration.harness import LIMIT_S, kill_and_wait, reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]
PLAIN = {"function.ts": "export const handler = () => Deno.pid"}


async def test_a_handler_that_empties_tmp_costs_one_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """The folder of the supervisor was gone and every later event failed."""
    source = """
export function handler(event: any) {
  if (event.clears) {
    for (const entry of Deno.readDirSync(event.clears)) {
      Deno.removeSync(`${event.clears}/${entry.name}`, { recursive: true });
    }
  }
  Deno.writeTextFileSync(Deno.env.get("TMPDIR") + "/x", "");
  return "served";
}
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"
    ) as runtime:
        runtime.temp_root.chmod(0o1777)
        await api.invoke({"clears": str(runtime.temp_root)})
        for _ in range(2):
            assert (await api.invoke({})).json() == "served"
        await api.wait_for_next()
        assert stat.S_IMODE(runtime.temp_root.stat().st_mode) == 0o1777


def test_removing_a_folder_leaves_its_parent_alone(tmp_path: Path) -> None:
    """A folder that was gone already made us close its parent to all others."""
    tmp_path.chmod(0o1777)
    remove_tree(str(tmp_path / "gone"))
    closed = tmp_path / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").write_text("")
    closed.chmod(0)
    closed.parent.chmod(0o500)
    remove_tree(str(closed.parent))
    assert not closed.parent.exists()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


async def test_a_process_that_died_while_all_was_frozen_is_replaced(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """The event was read before the end of the process was told, and was lost."""
    async with make_runtime(PLAIN) as runtime:
        for _ in range(3):
            await api.wait_for_next()
            [waiting] = runtime.waiting
            os.kill(runtime.pid, signal.SIGSTOP)
            await kill_and_wait(waiting)
            api.deliver(b"{}")
            os.kill(runtime.pid, signal.SIGCONT)
            answer = await api.answer()
            assert answer.call == "response", answer.body
            assert answer.json() != waiting
        await api.wait_for_next()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "source",
    ["for (;;);", "await new Promise((r) => setTimeout(r, 100_000))"],
    ids=["loops", "waits"],
)
async def test_a_signal_while_the_module_loads_ends_all_at_once(
    make_runtime: MakeRuntime, number: signal.Signals, source: str
) -> None:
    """Before the loop ran it left Deno behind; while it waited it did not listen."""
    runtime = make_runtime({"function.ts": f"{source}; export const handler = 1"})
    async with runtime:
        async with asyncio.timeout(LIMIT_S):
            while len(runtime.survivors()) < 2:  # noqa: ASYNC110 - a look at /proc
                await asyncio.sleep(0.01)
        # The module takes far longer than this waits.
        assert await runtime.stop(number) == 0


async def test_flooding_the_log_does_not_make_it_miss_the_deadline(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """One read of many short lines kept the loop from everything else for 0.2 s."""
    source = """
export function handler() {
  const lines = new TextEncoder().encode("x\\n".repeat(30_000));
  for (;;) Deno.stderr.writeSync(lines);
}
"""
    # Many such reads fit into it, also where other tests take the processor.
    runtime = make_runtime({"function.ts": source}, LAMBDA_DENO_STOP_MARGIN_MS="5000")
    runtime.keeps_log = False
    async with runtime:
        await api.wait_for_next()
        deadline_s = time.monotonic() + 7
        api.deliver(b"{}", timeout_s=7)
        answer = await api.answer()
        assert answer.json()["errorType"] == "Runtime.InvokeTimeout"
        assert answer.received_s < deadline_s
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.parametrize("start", ["exec", "auto"])
async def test_invocations_without_any_time_left_leak_nothing(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str
) -> None:
    """Descriptors and folders of processes that were too old stayed behind."""
    runtime = make_runtime(
        PLAIN, LAMBDA_DENO_WARM_MAX_AGE_S="0", LAMBDA_DENO_START=start
    )
    async with runtime:
        await api.wait_for_next()
        [state] = runtime.temp_root.iterdir()

        def held() -> tuple[int, int]:
            return runtime.descriptor_count(), len(list(state.iterdir()))

        first = held()
        for _ in range(32):
            api.deliver(b"{}", timeout_s=0)
            assert (await api.answer()).json()["errorType"] == "Runtime.InvokeTimeout"
            await api.wait_for_next()
        # A process that still ends or starts, and one that others are copied from, take
        # up to fourteen descriptors; a leak has added 32 that stay.
        limits = [count + 16 for count in first]
        async with asyncio.timeout(LIMIT_S):
            while any(map(int.__gt__, held(), limits)):  # noqa: ASYNC110 - a look at /proc
                await asyncio.sleep(0.05)


async def test_a_torn_error_is_still_that_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Only results were cut into pieces that another program cannot tear."""
    source = """
export function handler() {
  new Deno.Command("sh", { args: ["-c", "yes rubbish | head -c 1000000"],
    stdout: "inherit" }).spawn();
  throw new RangeError("m".repeat(200_000));
}
"""
    async with make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"):
        for _ in range(3):
            assert (await api.invoke({})).json()["errorType"] == "RangeError"
        await api.wait_for_next()


async def test_a_process_that_left_its_group_is_ended(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """The kill went to the group alone, and the supervisor waited for ever."""
    source = """
export function handler() {
  const libc = Deno.dlopen("libc.so.6", {
    setpgid: { parameters: ["i32", "i32"], result: "i32" },
    getpgid: { parameters: ["i32"], result: "i32" },
  });
  return libc.symbols.setpgid(0, libc.symbols.getpgid(Deno.ppid));
}
"""
    async with make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"):
        for _ in range(2):
            assert (await api.invoke({})).json() == 0
        await api.wait_for_next()


HOSTILE = {
    "no-deno": ("delete (globalThis as any).Deno; console.log('still here'); return 1",
                None),
    "to-json": ("(Object.prototype as any).toJSON = () => undefined;"
                "throw new RangeError('pollution')", "RangeError"),
    "to-json-throws": ("(Object.prototype as any).toJSON = () => { throw 1 };"
                       "throw new RangeError('pollution')", "RangeError"),
    "split": ("String.prototype.split = () => { throw 1 };"
              "throw new RangeError('broken')", "Error"),
    "signal": ("Deno.kill(Deno.pid, 'SIGUSR1'); await new Promise(() => setInterval("
               "() => {}, 1000))", "Runtime.ExitError"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "error_type"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_handler_that_breaks_what_we_write_with_is_answered_for(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    body: str,
    error_type: str | None,
) -> None:
    """Errors were lost, empty, or blamed on Deno.exit."""
    source = f"export async function handler() {{ {body} }}"
    async with make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"):
        answer = await api.invoke({})
        if error_type is None:
            assert answer.json() == 1
        else:
            assert answer.call == "error"
            assert answer.json()["errorType"] == error_type
        await api.wait_for_next()


async def test_work_after_the_answer_that_is_lost_is_logged(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A process that ended in waitUntil work left no trace."""
    source = """
export function handler(_: unknown, context: any) {
  context.waitUntil(new Promise((resolve) => setTimeout(resolve, 20))
    .then(() => Deno.exit(3)));
  return "answered";
}
"""
    async with make_runtime({"function.ts": source}) as runtime:
        assert (await api.invoke({})).json() == "answered"
        line = await runtime.logged("Work after the response was lost")
        assert "exited with status 3" in line
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.parametrize("message", ["x" * 300_000, "é\n" * 300_000])
async def test_a_long_record_is_cut_and_stays_one_record(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, message: str
) -> None:
    """It came apart into broken JSON, and the rest into a second record."""
    source = "export const handler = (text: string) => console.warn(text)"
    async with make_runtime(
        {"function.ts": source}, AWS_LAMBDA_LOG_FORMAT="JSON"
    ) as runtime:
        await api.invoke(message)
        await api.wait_for_next()
        lines = [line for line in runtime.log.split("\n") if "request-1" in line]
        assert len(lines) == 1
        assert '"level":"WARN"' in lines[0]
        assert lines[0].endswith("}")


async def test_the_reason_of_an_init_error_is_logged_even_if_nobody_takes_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It was posted first, and a refusal hid it."""

    api.refusals.append(Refusal(403))
    source = "throw new Error('boom failed here')"
    async with make_runtime({"function.ts": source}) as runtime:
        await api.answer()
        assert await runtime.wait() == 1
        assert "boom failed here" in runtime.log


async def test_a_tmp_that_cannot_be_written_to_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It was a traceback that nobody was told of."""
    async with make_runtime(PLAIN, TMPDIR="/proc/nowhere") as runtime:
        answer = await api.answer()
        assert answer.call == "init/error"
        assert "TMPDIR: its value is '/proc/nowhere'" in answer.json()["errorMessage"]
        assert await runtime.wait() == 1


async def test_what_a_module_starts_while_it_loads_is_ended_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It could leave its session before the supervisor had become its subreaper."""
    source = """
new Deno.Command("sh", { args: ["-c", "setsid sleep 300 &"], stdout: "null",
  stderr: "null" }).outputSync();
export const handler = () => 1;
"""
    async with make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all"):
        assert (await api.invoke({})).json() == 1
        await api.wait_for_next()


def test_a_folder_that_cannot_be_locked_is_an_error_and_not_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every refusal of the lock was taken for one that is held."""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="No locks available"):
        StateDir(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
@pytest.mark.parametrize("warm", ["ready", "off"])
async def test_a_program_of_the_handler_s_cannot_look_into_the_supervisor(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    """It runs as the same user: environment, memory and descriptors lay open to it."""
    source = """
const look = () => ["environ", "mem", "fd/0"].map((name) =>
  new Deno.Command("head", { args: ["-c", "1", `/proc/${Deno.ppid}/${name}`],
    stdout: "null", stderr: "null" }).outputSync().code);
const atLoad = look();
export const handler = () => [...atLoad, ...look()];
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all", LAMBDA_DENO_WARM=warm
    ):
        codes = (await api.invoke({})).json()
        assert 0 not in codes
        assert len(codes) == 6
        await api.wait_for_next()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
async def test_nor_into_the_bootstrap_that_the_supervisor_went_on_from(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Its environment is the same, and it stayed open to every program."""
    source = """
export function handler() {
  const script = `parent=$(sed -n 's/^PPid:.//p' /proc/${Deno.ppid}/status)
    head -c 1 /proc/$parent/environ || echo closed`;
  const done = new Deno.Command("sh", { args: ["-c", script], stderr: "null" });
  return new TextDecoder().decode(done.outputSync().stdout);
}
"""
    runtime = make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all")
    runtime.wrapper = f"sleep 300 >'{os.devnull}' 2>&1 & exec \"$@\""
    async with runtime:
        assert (await api.invoke({})).json() == "closed\n"
        await api.wait_for_next()
        helper = next(
            pid
            for pid in runtime.survivors()
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        )
        await kill_and_wait(helper)


async def test_a_bootstrap_that_had_children_misses_no_signal(tmp_path: Path) -> None:
    """One that came as it was about to wait was handed on with the next end only.

    That takes microseconds, and was seen once in hundreds of runs.
    """
    program = """
import os, signal
from lambda_deno_spawn.processes.descendants import fork_away_from_children
first = os.getpid()
if os.fork() == 0:
    signal.pause()
fork_away_from_children()
# A handler would run late if the signal came just before a wait begins.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print(first, flush=True)
signal.sigwait({signal.SIGTERM})
os._exit(0)
"""
    for _ in range(10):
        process = await asyncio.create_subprocess_exec(
            *isolated_python(program), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        first = int(await process.stdout.readline())
        helper = min(set(psutil.Process(first).children()), key=lambda one: one.pid)
        helper.kill()  # it is woken by this, and told while it goes to wait again
        os.kill(first, signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            assert await process.wait() == 0


@pytest.mark.cases(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_bootstrap_that_had_children_ends_with_the_process_it_goes_on_in(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, number: signal.Signals
) -> None:
    runtime = make_runtime(PLAIN)
    runtime.wrapper = f"sleep 300 >'{os.devnull}' 2>&1 & exec \"$@\""
    async with runtime:
        assert (await api.invoke({})).call == "response"
        await api.wait_for_next()
        helper = next(
            pid
            for pid in runtime.survivors()
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        )
        assert len(runtime.waiting) == 3, "another bootstrap, helper, worker"
        code = await runtime.stop(number)
        assert code == (0 if number == signal.SIGTERM else -number)
        await kill_and_wait(helper)
        await runtime.all_gone()
        runtime.clear_temp_root()


async def test_an_init_error_of_a_bootstrap_that_had_children_is_its_exit_code(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime({"function.ts": "throw new Error('broken')"})
    runtime.wrapper = f"sleep 1 >'{os.devnull}' 2>&1 & exec \"$@\""
    async with runtime:
        assert (await api.answer()).call == "init/error"
        assert await runtime.wait() == 1
        await runtime.all_gone()


IN_ITS_PLACE = """
export function handler(event: any) {
  const folder = Deno.env.get("TMPDIR")!;
  switch (event.puts) {
    case "deep":
      Deno.mkdirSync(folder + "/a".repeat(1_500), { recursive: true });
      break;
    case "deeper":  // longer than a path may be
      new Deno.Command(event.python, { args: ["-S", "-c", `import os
for _ in range(3_000):
    os.mkdir("d")
    os.chdir("d")`], cwd: folder }).outputSync();
      break;
    case "closed":
      Deno.mkdirSync(folder + "/a/b/c", { recursive: true });
      Deno.writeTextFileSync(folder + "/a/b/c/file", "");
      for (const path of ["/a/b/c", "/a/b", "/a", ""]) Deno.chmodSync(folder + path, 0);
      break;
    case "nothing":
      Deno.removeSync(folder);
      break;
    case "file":
      Deno.removeSync(folder);
      Deno.writeTextFileSync(folder, "x".repeat(3_000_000));
      break;
    case "link":
      Deno.removeSync(folder);
      Deno.symlinkSync(event.to, folder);
      break;
    case "links":
      Deno.symlinkSync(event.to, folder + "/a");
      Deno.symlinkSync(folder, folder + "/round");
      Deno.mkdirSync(folder + "/b");
      Deno.symlinkSync(event.to + "/kept", folder + "/b/c");
      break;
  }
  return "served";
}
"""


@pytest.mark.parametrize(
    "puts", ["deep", "deeper", "closed", "nothing", "file", "link", "links"]
)
async def test_whatever_stands_in_the_place_of_its_folder_is_removed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path, puts: str
) -> None:
    """A deep folder and a link ended the supervisor, a file stayed for ever."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("kept")
    # With the default permissions, where they allow it.
    settings = {} if puts in ("deep", "closed", "nothing", "file") else {
        "LAMBDA_DENO_PERMISSIONS": "all"
    }  # fmt: skip
    async with make_runtime({"function.ts": IN_ITS_PLACE}, **settings) as runtime:
        hostile = {"puts": puts, "to": str(outside), "python": sys.executable}
        for event in (hostile, {}) * 2:
            assert (await api.invoke(event)).json() == "served"
        await api.wait_for_next()
        [state] = runtime.temp_root.iterdir()
        [waiting] = [entry for entry in state.iterdir() if len(entry.name) == 16]
        assert list(waiting.iterdir()) == []
        assert (outside / "kept").read_text() == "kept"
        assert stat.S_IMODE(outside.stat().st_mode) == 0o755


async def test_a_result_that_was_cut_off_is_in_no_log(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """What had come of it when its process was ended was relayed, megabytes of it."""
    source = """
const result = "SECRET".repeat(1_000_000);
export function handler(ms: number, context: any) {
  // So late that it is stopped while it answers, most often.
  while (context.getRemainingTimeInMillis() > ms);
  return result;
}
"""
    async with make_runtime({"function.ts": source}) as runtime:
        for n in range(10):
            await api.invoke(100 + n, timeout_s=0.5)
        await api.wait_for_next()
        assert runtime.log.count("SECRET") == 0


CHAIN = """
import os, sys, time
depth = int(sys.argv[1])
# Each is the only child of the one before, and in a session of its own.
for _ in range(depth):
    if os.fork():
        break
    os.setsid()
else:
    open(sys.argv[2], "w").close()
time.sleep(300)
"""


async def test_a_long_line_of_descendants_is_ended_at_once(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    """One generation was ended at a time, and the next event came meanwhile."""
    (tmp_path / "chain.py").write_text(CHAIN)
    script = (
        f"'{sys.executable}' -S '{tmp_path}/chain.py' 300 \"$TMPDIR/there\" "
        '>/dev/null 2>&1 & until [ -e "$TMPDIR/there" ]; do sleep 0.02; done'
    )
    source = """
export async function handler(event: any) {
  if (!event.script) return "served";
  return (await new Deno.Command("sh", { args: ["-c", event.script] }).output()).code;
}
"""
    async with make_runtime(
        {"function.ts": source},
        LAMBDA_DENO_METRICS="json",
        LAMBDA_DENO_PERMISSIONS="all",
    ) as runtime:
        assert (await api.invoke({"script": script})).json() == 0
        await api.wait_for_next()
        assert len(runtime.waiting) == 1
        assert "Cannot end" not in runtime.log
        [report] = reports(runtime.log)
        assert report["leftoverProcesses"] == 301


async def test_what_follows_an_answer_ends_with_the_deadline_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """A log that nobody read held `next` up beyond it."""
    source = """
export async function handler(ms: number) {
  await new Promise((resolve) => setTimeout(resolve, ms));
  const line = "x".repeat(1_000);
  for (let n = 0; n < 200; n++) console.log(line);
}
"""
    runtime = make_runtime({"function.ts": source}, LAMBDA_DENO_STOP_MARGIN_MS="5000")
    async with runtime:
        await api.wait_for_next()
        runtime.log_gate.clear()
        deadline_s = time.monotonic() + 9
        api.deliver(b"2000", timeout_s=9)
        assert (await api.answer()).call == "response"
        await api.wait_for_next()
        assert time.monotonic() < deadline_s


async def test_children_are_waited_for_even_if_that_was_switched_off(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """With SIGCHLD ignored, as it can be inherited, there were no exit codes."""
    source = "export const handler = () => Deno.exit(3)"
    runtime = make_runtime({"function.ts": source})
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    runtime.wrapper = f"exec '{sys.executable}' -S -c '{ignoring}' \"$@\""
    async with runtime:
        for _ in range(2):
            message = (await api.invoke({})).json()["errorMessage"]
            assert "exited with status 3" in message
        await api.wait_for_next()


async def test_what_a_module_has_started_is_ended_on_an_early_way_out(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    """Nobody swept before the event loop ran."""
    os.mkfifo(tmp_path / "started")
    source = f"""
const script = "setsid sleep 300 & echo > '{tmp_path}/started'";
new Deno.Command("sh", {{ args: ["-c", script], stdout: "null", stderr: "null" }})
  .outputSync();
for (;;);
"""
    runtime = make_runtime({"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all")
    async with runtime:
        await asyncio.to_thread((tmp_path / "started").read_text)
        assert await runtime.stop() == 0
        assert runtime.survivors() == []

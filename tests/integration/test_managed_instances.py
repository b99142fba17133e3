"""Several invocations at once, as on Lambda Managed Instances.

Against AWS's own emulator in that mode: test_as_deployed.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.local.emulator import Emulator
from lambda_deno_spawn.dev.local.environment import EmulatedInvocation, End
from tests.doubles import TIMEOUT_S, FakeRuntimeApi, Refusal
from tests.integration.harness import LIMIT_S, reports, wait_for_end

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

CONCURRENCY = 16
ECHO = """
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const isTold = (name) => {
  try {
    return Deno.statSync(`${import.meta.dirname}/${name}`).isFile;
  } catch {
    return false;
  }
};
export const handler = async (event, context) => {
  console.log("serving", event.n);
  const begun = Date.now();
  await pause(event.wait ?? 0);
  while (event.until && !isTold(event.until)) await pause(10);
  return {
    event, id: context.awsRequestId, pid: Deno.pid, begun, ended: Date.now(),
  };
};
"""
# What one of them does must not reach the others.
MISBEHAVING = """
export const handler = async (event) => {
  if (event.does === "hang") for (;;);
  if (event.does === "wait") await new Promise((go) => setTimeout(go, 600_000));
  if (event.does === "exit") Deno.exit(3);
  if (event.does === "throw") throw new RangeError("for the test");
  if (event.does === "fill") {
    const kept = [];
    for (;;) kept.push(new Array(100_000).fill({ ...kept }));
  }
  return event;
};
"""


def managed(concurrency: int = CONCURRENCY, memory_mb: int = 2048) -> dict[str, str]:
    """Return what tells the runtime where it is."""
    return {
        "AWS_LAMBDA_MAX_CONCURRENCY": str(concurrency),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
    }


async def invoke_all(api: FakeRuntimeApi, events: list[dict[str, Any]]) -> list[Any]:
    """Deliver events at once; return each one's answer, in their order."""
    ids = [
        api.deliver(
            json.dumps(event).encode(), timeout_s=event.get("timeout", TIMEOUT_S)
        )
        for event in events
    ]
    answers = {}
    for _ in ids:
        answer = await api.answer()
        assert answer.request_id not in answers, "exactly one answer for each event"
        answers[answer.request_id] = answer
    return [answers[request_id] for request_id in ids]


@pytest.mark.every_way
async def test_answers_of_events_in_flight_together_are_never_crossed(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.mjs": ECHO}, **managed()) as runtime:
        for _ in range(CONCURRENCY):
            await api.wait_for_next()
        pids = set()
        for number in range(3):
            events = [
                {"n": f"{number}-{n}", "wait": 40 * (n % 3)} for n in range(CONCURRENCY)
            ]
            answers = await invoke_all(api, events)
            for event, answer in zip(events, answers, strict=True):
                assert answer.call == "response", answer.body
                assert answer.json()["event"] == event
                assert answer.json()["id"] == answer.request_id
                pids.add(answer.json()["pid"])
                line = json.loads(await runtime.logged(f'serving {event["n"]}"'))
                assert line["requestId"] == answer.request_id
        is_fresh = "LAMBDA_DENO_STRATEGY" not in runtime.environ
        if is_fresh and "LAMBDA_DENO_MAX_INVOCATIONS" not in runtime.environ:
            assert len(pids) == 3 * CONCURRENCY


# Deno 2.9.8 asks for no permission to read what a module imports that was required.
PRYING = """
import { createRequire } from "node:module";
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const isTold = () => {
  try {
    return Deno.statSync(`${import.meta.dirname}/go`).isFile;
  } catch {
    return false;
  }
};
const read = (place) => {
  const path = `${Deno.env.get("TMPDIR")}/${place.replaceAll("/", "-")}.mjs`;
  const named = JSON.stringify(`file:///proc/${place}`);
  Deno.writeTextFileSync(path, `
    import text from ${named} with { type: "text" };
    export default text;
  `);
  try {
    return createRequire(path)(path).default;
  } catch (error) {
    return error.message.includes("Permission denied") ? "denied" : error.message;
  }
};
export const handler = async (event) => {
  if (event.waits) console.log("victim", Deno.pid);
  while (event.waits && !isTold()) await pause(10);
  return event.places?.map(read) ?? event;
};
"""


@pytest.mark.parametrize("start", ["exec", "auto"])
async def test_an_event_opens_nothing_that_the_process_of_another_has_open(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, start: str
) -> None:
    """With default permissions, one could read another's result from its pipe."""
    if os.geteuid() == 0:
        pytest.skip("root may open everything; `make test-as-lambda` runs it")
    runtime = make_runtime(
        {"function.mjs": PRYING}, **managed(2), LAMBDA_DENO_START=start
    )
    async with runtime:
        for _ in range(2):
            await api.wait_for_next()
        while start == "auto" and "served by forks of" not in runtime.log:
            await invoke_all(api, [{}])
            await api.wait_for_next()
        for _ in range(3):  # those that wait may be older
            await invoke_all(api, [{}])
            await api.wait_for_next()
        victim = api.deliver(b'{"waits": true}', timeout_s=TIMEOUT_S)
        line = await runtime.logged('"victim ')
        pid = re.findall(r"victim (\d+)", line)[0]
        places = [f"{pid}/{name}" for name in ("status", "fd/0", "fd/1", "environ")]
        read = (await invoke_all(api, [{"places": places}]))[0].json()
        assert read[0].startswith("Name:"), "control: it can read what all may"
        assert read[1:] == ["denied"] * 3
        (runtime.task_root / "go").touch()
        answer = await api.answer()
        assert answer.request_id == victim
        assert answer.json() == {"waits": True}
        for _ in range(2):
            await api.wait_for_next()


async def test_sixteen_events_in_flight_against_the_emulator(
    tmp_path: Path, api: FakeRuntimeApi, make_runtime: MakeRuntime
) -> None:
    runtime = make_runtime({"function.mjs": ECHO}, **managed())
    async with Emulator(is_managed_instance=True) as emulator:
        runtime.environ["AWS_LAMBDA_RUNTIME_API"] = emulator.address
        async with runtime:
            for number in range(2):
                made = [
                    emulator.state.queue(
                        json.dumps({"n": n, "until": f"go-{number}"}).encode(),
                        timeout_s=LIMIT_S,
                        invocation_id=f"invocation-{number}-{n}",
                    )
                    for n in range(CONCURRENCY)
                ]
                # None of them ends before all have begun.
                await emulator.wait_until(partial(all_delivered, made), LIMIT_S)
                (runtime.task_root / f"go-{number}").touch()
                await emulator.wait_until(partial(all_answered, made), LIMIT_S)
                for n, one in enumerate(made):
                    assert one.end is End.ANSWER
                    assert one.deliveries == 1
                    assert one.outcome is not None
                    result = json.loads(one.outcome.body)
                    assert result["event"]["n"] == n
                    assert result["id"] == one.request_id
                begun = [one.delivered_s or 0 for one in made]
                answered = [one.answered_s or 0 for one in made]
                assert max(begun) < min(answered), "all were in flight together"


def all_delivered(made: list[EmulatedInvocation]) -> bool:
    return all(one.delivered_s is not None for one in made)


def all_answered(made: list[EmulatedInvocation]) -> bool:
    return all(one.outcome is not None for one in made)


@pytest.mark.every_way("fresh", "reuse")
async def test_what_one_does_is_no_matter_of_the_others(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime(
        {"function.mjs": MISBEHAVING},
        LAMBDA_DENO_V8_FLAGS="--max-old-space-size=64",
        **managed(),
    )
    async with runtime:
        pid = runtime.pid
        bad = ["hang", "exit", "throw", "wait", "fill"]
        events = [{"n": n, "does": does} for n, does in enumerate(bad)]
        for event in (events[0], events[3]):
            event["timeout"] = 2
        events += [{"n": n} for n in range(len(bad), CONCURRENCY)]
        answers = await invoke_all(api, events)
        kinds = [
            None if answer.call == "response" else answer.json()["errorType"]
            for answer in answers
        ]
        assert kinds == [
            "Runtime.InvokeTimeout", "Runtime.ExitError", "RangeError",
            "Runtime.InvokeTimeout", "Runtime.OutOfMemory", *[None] * 11,
        ]  # fmt: skip
        for event, answer in zip(events[5:], answers[5:], strict=True):
            assert answer.json() == event
        [after] = await invoke_all(api, [{"n": 99}])
        assert after.json() == {"n": 99}
        assert runtime.pid == pid
        assert runtime.is_running


@pytest.mark.every_way("server")
async def test_a_server_that_ends_fails_all_that_it_serves_and_is_replaced(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.mjs": MISBEHAVING}, **managed()) as runtime:
        for _ in range(CONCURRENCY):
            await api.wait_for_next()
        waiting = {"does": "wait"}
        ids = [api.deliver(json.dumps(waiting).encode()) for _ in range(3)]
        # They are in the process: it answers one that came after them.
        [answer] = await invoke_all(api, [{"n": 1}])
        assert answer.json() == {"n": 1}
        ids.append(api.deliver(b'{"does":"exit"}'))
        hit = {
            answer.request_id: answer for answer in [await api.answer() for _ in ids]
        }
        assert hit.keys() == set(ids)
        for answer in hit.values():
            assert answer.json()["errorType"] == "Runtime.ExitError"
        events = [{"n": n} for n in range(CONCURRENCY)]
        answers = await invoke_all(api, events)
        assert [answer.json() for answer in answers] == events
        assert runtime.is_running


@pytest.mark.every_way("server")
async def test_whoever_comes_after_an_uncaught_error_is_served(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Of 200 events, 10 were not: their process was ended while they went to it."""
    source = """
export const handler = async (event) => {
  if (!event.bad) return event;
  setTimeout(() => { throw new RangeError("for the test") }, 2);
  await new Promise((go) => setTimeout(go, 10_000));
};
"""
    async with make_runtime({"function.mjs": source}, **managed(8)):
        bad: dict[str, bool] = {}
        for n in range(200):
            if n >= 8:
                answer = await api.answer()
                is_error = answer.call == "error"
                assert is_error == bad[answer.request_id], answer.body
            event = {"bad": n % 10 == 5}
            bad[api.deliver(json.dumps(event).encode())] = event["bad"]


@pytest.mark.every_way("server")
async def test_a_connection_is_not_closed_for_whom_it_carried_before(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    source = """
export const handler = async (event) => {
  if (event.bad) {
    Promise.reject(new RangeError("for the test"));
    await new Promise(() => {});
  }
  console.log("waiting");
  for (;;) {
    try { return Deno.readTextFileSync(event.until); } catch {}
    await new Promise((go) => setTimeout(go, 5));
  }
};
"""
    told = asyncio.Event()

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await told.wait()
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        return True

    settings = {
        "LAMBDA_DENO_PERMISSIONS": "all", "LAMBDA_DENO_METRICS": "json", **managed(2),
    }  # fmt: skip
    async with make_runtime({"function.mjs": source}, **settings) as runtime:
        api.answer_faults.append(late)
        api.deliver(b'{"bad":true}')
        assert "for the test" in (await api.answer()).json()["errorMessage"]
        # Takes the connection that is free now, before the other one has settled.
        api.deliver(json.dumps({"until": str(tmp_path / "go")}).encode())
        await runtime.logged("waiting")
        told.set()
        await runtime.logged("lambda-deno-spawn.report")
        (tmp_path / "new").write_text("gone")
        (tmp_path / "new").rename(tmp_path / "go")  # there with what it holds
        assert (await api.answer()).json() == "gone"


@pytest.mark.every_way("server")
async def test_a_handler_that_empties_its_folder_leaves_the_server_its_socket(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
const folder = Deno.env.get("TMPDIR");
export const handler = async (event) => {
  for (const { name } of Deno.readDirSync(folder)) {
    Deno.removeSync(`${folder}/${name}`, { recursive: true });
  }
  if (event.by === "itself") {
    try {
      Deno.removeSync(`${folder}.socket`);
    } catch (error) {
      return error.name;
    }
  }
  if (event.by === "folder") Deno.removeSync(folder);
  await new Promise((go) => setTimeout(go, 30));
  return Deno.pid;
};
"""
    async with make_runtime({"function.mjs": source}, **managed(8)):
        [first, denied] = [
            (await api.invoke({"by": by})).json() for by in ("", "itself")
        ]
        assert denied == "NotCapable"
        for by in ("", "folder"):
            # More than there are connections: they are made now.
            answers = await invoke_all(api, [{"by": ""}] * 7 + [{"by": by}])
            assert [answer.json() for answer in answers] == [first] * 8


UNREACHABLE = """
const socket = Deno.env.get("TMPDIR") + ".socket";
const pause = (ms) => new Promise((go) => setTimeout(go, ms));
export const handler = async (event) => {
  if (event.does) Deno.removeSync(socket);
  if (event.does === "file") Deno.writeTextFileSync(socket, "");
  if (event.does === "folder") Deno.mkdirSync(socket);
  if (event.does === "link") Deno.symlinkSync("/nowhere", socket);
  if (event.does === "program") {
    const program = new Deno.Command(event.python, {
      args: ["-c", event.code, socket], stdout: "piped",
    }).spawn();
    await program.stdout.getReader().read();
  }
  await pause(100);
  return Deno.pid;
};
"""
IMPOSTOR = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    got = connection.recv(9)
    if got:
        print("it has", got, file=sys.stderr, flush=True)
"""


@pytest.mark.cases(1)
@pytest.mark.every_way("server")
@pytest.mark.parametrize("does", ["nothing", "file", "folder", "link", "program"])
async def test_a_server_that_cannot_be_reached_is_replaced_and_costs_no_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, does: str
) -> None:
    """From then on six of eight events failed, for ever."""
    settings = {"LAMBDA_DENO_PERMISSIONS": "all", **managed(8)}
    async with make_runtime({"function.mjs": UNREACHABLE}, **settings) as runtime:
        event = {"does": does, "python": sys.executable, "code": IMPOSTOR}
        first = (await api.invoke(event)).json()
        for _ in range(2):
            answers = await invoke_all(api, [{}] * 8)
            pids = {answer.json() for answer in answers}
            # One may have had the connection that there was.
            assert len(pids - {first}) == 1, answers
        assert "it has" not in runtime.log


@pytest.mark.every_way("server")
async def test_whoever_waits_for_a_process_that_hangs_goes_to_another(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """They waited for it until their own time was over."""
    async with make_runtime({"function.mjs": MISBEHAVING}, **managed(4)) as runtime:
        [answer] = await invoke_all(api, [{"n": 1}])
        hangs = api.deliver(b'{"does":"hang"}', timeout_s=2)
        others = {api.deliver(b'{"n":2}', timeout_s=60) for _ in range(3)}
        hit = await api.answer()
        assert hit.request_id == hangs
        assert hit.json()["errorType"] == "Runtime.InvokeTimeout"
        for _ in range(3):
            answer = await api.answer()
            others.remove(answer.request_id)
            assert answer.json() == {"n": 2}
        assert runtime.is_running


@pytest.mark.every_way("server")
async def test_a_module_that_hangs_while_it_loads_costs_the_events_that_wait_for_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    """Every later event waited for the same process, until its time was over."""
    hangs = tmp_path / "hangs"
    source = f"""
function hangs() {{
  try {{ return Deno.statSync("{hangs}").isFile; }} catch {{ return false; }}
}}
if (hangs()) await new Promise(() => setInterval(() => {{}}, 1000));
export const handler = (event) => event.exits ? Deno.exit(3) : Deno.pid;
"""
    settings = {
        "LAMBDA_DENO_PERMISSIONS": "all",
        "LAMBDA_DENO_WARM": "off",
        **managed(4),
    }
    async with make_runtime({"function.mjs": source}, **settings) as runtime:
        pids = set()
        for rounds in (1, 2):
            hangs.touch()
            late = {"timeout": 1}
            for answer in await invoke_all(api, [late, late]):
                assert answer.json()["errorType"] == "Runtime.InvokeTimeout"
                assert "did not finish loading" in answer.json()["errorMessage"]
            hangs.unlink()
            pids |= {one.json() for one in await invoke_all(api, [{}] * 2)}
            assert len(pids) == rounds, pids
            [answer] = await invoke_all(api, [{"exits": True}])
            assert answer.json()["errorType"] == "Runtime.ExitError"
        assert runtime.is_running


@pytest.mark.every_way("server")
async def test_two_streams_that_begin_at_once_end_apart(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """They had the same number, and who left one of them cut the other."""
    source = """
const pause = (ms) => new Promise((go) => setTimeout(go, ms));
export async function* handler(event, context) {
  context.signal.addEventListener("abort", () => console.log(event.name, "was told"));
  yield event.name;
  if (event.name === "A") for (;;) { yield "."; await pause(10); }
  while (!Deno.env.has("left")) await pause(10);
  yield " to its end";
}
globalThis.addEventListener("unhandledrejection", () => {});
"""
    source = source.replace(
        '"was told"));', '"was told") ?? Deno.env.set("left", "yes"));'
    )

    async def leave(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
        return False

    async with make_runtime({"function.mjs": source}, **managed(2)) as runtime:
        await api.wait_for_next()
        await api.wait_for_next()
        api.body_faults.append(leave)  # of whoever begins first
        api.deliver(b'{"name":"A"}', request_id="A")
        api.deliver(b'{"name":"B"}', request_id="B")
        answer = await api.answer()
        assert (answer.request_id, answer.body) == ("B", b"B to its end")
        await runtime.logged("A was told")
        assert "B was told" not in runtime.log


@pytest.mark.every_way("server")
async def test_start_and_waiting_are_in_one_line_of_two_events_that_begin_at_once(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    settings = {"LAMBDA_DENO_METRICS": "json", **managed(2)}
    async with make_runtime({"function.mjs": ECHO}, **settings) as runtime:
        await api.wait_for_next()
        await api.wait_for_next()
        await invoke_all(api, [{"n": n, "wait": 50} for n in range(2)])
        assert await runtime.stop() == 0
        for name in ("spawnMs", "readyMs", "idleMs"):
            assert sum(line.get(name) is not None for line in reports(runtime.log)) == 1


@pytest.mark.every_way("server")
async def test_of_events_in_one_server_each_has_its_own_deadline(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.mjs": ECHO}
    async with make_runtime(files, **managed()) as runtime:
        late = api.deliver(b'{"n":1,"wait":600000}', timeout_s=1)
        other = api.deliver(b'{"n":2,"until":"go"}')
        answer = await api.answer()
        assert answer.request_id == late
        assert answer.json()["errorType"] == "Runtime.InvokeTimeout"
        (runtime.task_root / "go").touch()
        answer = await api.answer()
        assert answer.request_id == other
        assert answer.json().get("event") == {"n": 2, "until": "go"}, answer.json()


async def test_an_answer_that_is_refused_as_too_late_ends_nothing(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.refusals += [Refusal(410, "InvokeTimeout"), Refusal(500, "InternalServerError")]
    runtime = make_runtime(
        {"function.mjs": ECHO}, LAMBDA_DENO_METRICS="json", **managed()
    )
    async with runtime:
        await invoke_all(api, [{"n": 1}])
        await runtime.logged("the answer came after the timeout")
        await invoke_all(api, [{"n": 2}])
        await runtime.logged("HTTP status 500")
        [answer] = await invoke_all(api, [{"n": 3}])
        assert answer.json()["event"] == {"n": 3}
        await runtime.stop()
        assert [report["status"] for report in reports(runtime.log)] == [
            "Sandbox.Timedout", "Runtime.LambdaRuntimeClientError", "success",
        ]  # fmt: skip


async def test_next_is_asked_for_again_if_it_fails(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.next_refusals += [
        Refusal(500, "InternalServerError"), Refusal(403, "Forbidden"), Refusal(None),
    ]  # fmt: skip
    async with make_runtime({"function.mjs": ECHO}, **managed(2)) as runtime:
        for _ in range(5):
            await api.wait_for_next()
        await runtime.logged("asked again in 0.1 s")
        answers = await invoke_all(api, [{"n": 1}, {"n": 2}])
        assert [answer.json()["event"]["n"] for answer in answers] == [1, 2]


async def test_log_is_json_whatever_was_asked_for(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    runtime = make_runtime(
        {"function.mjs": ECHO}, AWS_LAMBDA_LOG_FORMAT="Text", **managed(2)
    )
    async with runtime:
        [answer] = await invoke_all(api, [{"n": 7}])
        line = json.loads(await runtime.logged("serving 7"))
        assert line["requestId"] == answer.request_id
        assert line["level"] == "INFO"


@pytest.mark.every_way
async def test_what_runs_ends_in_order_before_the_runtime_does(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.mjs": ECHO}, **managed(4)) as runtime:
        for _ in range(4):
            await api.wait_for_next()
        ids = {api.deliver(b'{"n":%d,"until":"go"}' % n) for n in range(3)}
        for n in range(3):
            await runtime.logged(f'serving {n}"')
        stopping = asyncio.create_task(runtime.stop())
        await runtime.logged("Stopping once 3 invocation")
        (runtime.task_root / "go").touch()
        answers = [await api.answer() for _ in ids]
        assert {answer.request_id for answer in answers} == ids
        assert {answer.call for answer in answers} == {"response"}
        assert await stopping == 0
        requests = [request for request in api.requests if "next" in request]
        assert len(requests) == 4, "nothing more was asked for"


@pytest.mark.cases(1)
@pytest.mark.parametrize("warm", ["background", "off"])
async def test_there_are_never_more_processes_than_memory_has_room_for(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, warm: str
) -> None:
    # 160 MB are not for processes, and each counts 24 MB at least.
    variables = managed(8, memory_mb=160 + 2 * 24 + 10) | {"LAMBDA_DENO_WARM": warm}
    async with make_runtime({"function.mjs": ECHO}, **variables) as runtime:
        line = json.loads(await runtime.logged("There is room for"))
        assert "There is room for 2 processes" in line["message"]
        for _ in range(2):
            answers = await invoke_all(api, [{"n": n, "wait": 60} for n in range(8)])
            spans = [(a.json()["begun"], a.json()["ended"]) for a in answers]
            at_once = [
                sum(begun <= moment < ended for begun, ended in spans)
                for moment, _ in spans
            ]
            assert max(at_once) <= 2
            assert len({answer.json()["pid"] for answer in answers}) == 8


async def test_an_event_that_waits_for_room_is_told_if_there_is_none_in_time(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    variables = managed(2, memory_mb=160 + 24)
    async with make_runtime({"function.mjs": ECHO}, **variables) as runtime:
        first = api.deliver(b'{"n":1,"until":"go"}')
        await runtime.logged("serving 1")
        second = api.deliver(b'{"n":2}', timeout_s=1)
        answer = await api.answer()
        assert answer.request_id == second
        assert answer.json()["errorType"] == "Runtime.InvokeTimeout"
        assert "no room for another process" in answer.json()["errorMessage"]
        (runtime.task_root / "go").touch()
        assert (await api.answer()).request_id == first


ORPHANS = """
const run = (text) => new Deno.Command("sh", { args: ["-c", text] }).output();
export const handler = async (event) => {
  if (!event.starts) return "other";
  const { stdout } = await run("setsid sleep 1000 >/dev/null 2>&1 & echo $!");
  const pid = new TextDecoder().decode(stdout).trim();
  console.log("started", pid);
  await Deno.open(Deno.env.get("FIFO"));  // until the test opens its other end
  return { pid: Number(pid), isAlive: (await run(`kill -0 ${pid}`)).success };
};
"""


async def test_what_one_has_started_outlives_the_others_and_not_itself(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, tmp_path: Path
) -> None:
    runtime = make_runtime(
        {"function.mjs": ORPHANS},
        LAMBDA_DENO_PERMISSIONS="all",
        LAMBDA_DENO_METRICS="json",
        FIFO=str(tmp_path / "fifo"),
        **managed(2),
    )
    os.mkfifo(tmp_path / "fifo")
    async with runtime:
        await api.wait_for_next()
        await api.wait_for_next()
        starting = api.deliver(b'{"starts":true}')
        await runtime.logged("started")
        # The program's parent has ended; it would be a stranger to any other worker.
        for _ in range(3):
            [other] = await invoke_all(api, [{}])
            assert other.json() == "other"
        await runtime.reported(3)
        with (tmp_path / "fifo").open("wb"):
            pass
        answer = await api.answer()
        assert answer.request_id == starting
        assert answer.json()["isAlive"] is True, runtime.log
        await wait_for_end(answer.json()["pid"], LIMIT_S)


async def test_a_second_signal_does_not_wait(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime({"function.mjs": ECHO}, **managed(2)) as runtime:
        api.deliver(b'{"n":1,"wait":600000}', timeout_s=600)
        await runtime.logged("serving 1")
        os.kill(runtime.pid, signal.SIGTERM)
        await runtime.logged("Stopping once 1 invocation")
        assert await runtime.stop(signal.SIGINT) == 0

"""SnapStart: what happens on both sides of a snapshot, in the real bootstrap.

The snapshot itself is played: the process goes on where a clone would begin.
"""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.doubles import Refusal, cut, hang
from tests.integration.harness import reports

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi, Fault
    from tests.integration.conftest import MakeRuntime
    from tests.integration.harness import RuntimeUnderTest

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

SNAP_START = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
# What a clone would have in common with all others, if it were in the snapshot.
UNIQUE = """
const unique = [Deno.pid, Math.random(), crypto.randomUUID()];
console.log("loaded", JSON.stringify(unique));
const env = (name: string) => Deno.env.get(name) ?? null;
export const handler = () => ({
  unique,
  random: [Math.random(), crypto.randomUUID()],
  key: env("AWS_ACCESS_KEY_ID"),
  secret: env("AWS_SECRET_ACCESS_KEY"),
  session: env("AWS_SESSION_TOKEN"),
  leads: Object.keys(Deno.env.toObject()).filter((n) => n.startsWith("AWS_CONTAINER")),
});
"""
FUNCTION = {"function.ts": UNIQUE}
# It draws no random numbers while it loads, so its process may be copied.
COPIED = {
    "function.ts": """
export const handler = () => ({
  random: [Math.random(), crypto.randomUUID()],
  key: Deno.env.get("AWS_ACCESS_KEY_ID"),
  now: Date.now(),
});
"""
}
FORKED = "Events are served by forks of process"


def loaded(log: str) -> list[list[Any]]:
    lines = [line.partition("loaded ")[2] for line in log.splitlines()]
    return [json.loads(line) for line in lines if line]


def in_snapshot(runtime: RuntimeUnderTest) -> list[int]:
    """Return what else than the supervisor would be in a snapshot taken now."""
    return [pid for pid in runtime.survivors() if pid != runtime.pid]


@pytest.mark.every_way
async def test_no_process_is_in_the_snapshot_and_a_new_one_serves_after_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(FUNCTION, **SNAP_START) as runtime:
        await api.wait_for_snapshot()
        assert in_snapshot(runtime) == []
        # All that init has logged is written, or each clone would write it again.
        await runtime.logged("loaded")
        [before] = loaded(runtime.log)
        [state] = runtime.temp_root.iterdir()
        left = {path.name for path in state.iterdir()}
        assert left <= {"lock", "spare", "entry.mjs", "deno_dir"}, "no private folder"
        assert api.requests == ["GET restore next"]
        api.restore()
        answer = (await api.invoke({})).json()
        await runtime.logged("Restored from a snapshot")
        after = answer["unique"]
        assert [a == b for a, b in zip(before, after, strict=True)] == [False] * 3
        assert api.requests[:2] == ["GET restore next", "GET invocation next"]
        await api.wait_for_next()
    assert api.connections == 2, "no connection from before the snapshot is used again"


async def test_the_process_waits_before_the_first_event_is_asked_for(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(FUNCTION, **SNAP_START) as runtime:
        api.restore()
        await api.wait_for_next()
        assert len(in_snapshot(runtime)) == 1


async def test_off_loads_the_module_at_init_only(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(FUNCTION, LAMBDA_DENO_WARM="off", **SNAP_START) as runtime:
        await api.wait_for_snapshot()
        await runtime.logged("loaded")
        assert len(loaded(runtime.log)) == 1
        api.restore()
        await api.wait_for_next()
        assert in_snapshot(runtime) == []
        api.deliver(b"{}")
        assert (await api.answer()).call == "response"
        await api.wait_for_next()


@pytest.mark.every_way
async def test_a_module_that_does_not_load_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = 'throw new RangeError("not here"); export const handler = 1'
    async with make_runtime({"function.ts": source}, **SNAP_START) as runtime:
        answer = await api.answer()
        assert await runtime.wait() == 1
        assert answer.call == "init/error"
        assert answer.headers["lambda-runtime-function-error-type"] == (
            "Function.RangeError"
        )
        assert api.requests == ["POST init error"]


@pytest.mark.every_way
async def test_a_module_that_does_not_load_after_the_restore_is_a_restore_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
const mark = Deno.env.get("MARK");
try {
  Deno.statSync(mark);
} catch {
  Deno.writeTextFileSync(mark, "");
  globalThis.isFirst = true;
}
if (!globalThis.isFirst) throw new RangeError("not again");
export const handler = () => 1;
"""
    runtime = make_runtime({"function.js": source}, **SNAP_START)
    mark = runtime.temp_root.parent / "mark"
    runtime.environ |= {
        "MARK": str(mark),
        "LAMBDA_DENO_PERMISSIONS": f"default --allow-read={mark} --allow-write={mark}",
    }
    async with runtime:
        await api.wait_for_snapshot()
        assert mark.exists()
        api.restore()
        answer = await api.answer()
        assert await runtime.wait() == 65
    assert answer.call == "restore/error"
    assert answer.headers["lambda-runtime-function-error-type"] == (
        "Runtime.AfterRestoreError"
    )
    assert answer.json()["errorType"] == "RangeError"
    assert answer.json()["errorMessage"] == "not again"
    assert "Restore Error" in runtime.log
    assert "GET invocation next" not in api.requests


async def test_a_process_that_dies_after_the_restore_is_a_restore_error_too(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
try {
  Deno.statSync(Deno.env.get("MARK")!);
  Deno.exit(3);
} catch {
  Deno.writeTextFileSync(Deno.env.get("MARK")!, "");
}
export const handler = () => 1;
"""
    runtime = make_runtime({"function.ts": source}, **SNAP_START)
    mark = runtime.temp_root.parent / "mark"
    runtime.environ |= {"MARK": str(mark), "LAMBDA_DENO_PERMISSIONS": "all"}
    async with runtime:
        api.restore()
        answer = await api.answer()
        assert await runtime.wait() == 65
    assert answer.call == "restore/error"
    assert answer.json()["errorType"] == "Runtime.ExitError"


@pytest.mark.cases(1)
@pytest.mark.parametrize("status", [400, 403, 404, 500, None])
async def test_a_snapshot_that_cannot_be_taken_is_an_init_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, status: int | None
) -> None:
    api.restore_refusals.append(Refusal(status))
    async with make_runtime(FUNCTION, **SNAP_START) as runtime:
        answer = await api.answer()
        assert await runtime.wait() == 64
    assert answer.call == "init/error"
    error_type = "Runtime.BeforeSnapshotError"
    assert answer.headers["lambda-runtime-function-error-type"] == error_type
    assert answer.json()["errorType"] == error_type
    assert "restore next" in answer.json()["errorMessage"]
    assert api.requests == ["GET restore next", "POST init error"]


async def test_the_exit_code_says_it_even_if_nobody_takes_the_error(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    api.restore_refusals.append(Refusal(500))
    api.refusals.append(Refusal(500))
    async with make_runtime(FUNCTION, **SNAP_START) as runtime:
        assert await runtime.wait() == 64
    assert "'init error'" in runtime.log


@pytest.mark.cases(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_snapshot_is_waited_for_ends_all(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, number: signal.Signals
) -> None:
    async with make_runtime(FUNCTION, **SNAP_START) as runtime:
        await api.wait_for_snapshot()
        assert await runtime.stop(number) == 0
    assert api.answers.empty()


async def test_what_a_module_leaves_running_is_not_in_the_snapshot(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = """
new Deno.Command("setsid", { args: ["sleep", "600"] }).spawn().unref();
export const handler = () => 1;
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS="all", **SNAP_START
    ) as runtime:
        await api.wait_for_snapshot()
        assert in_snapshot(runtime) == []


async def test_without_snapstart_nothing_is_restored(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    async with make_runtime(FUNCTION):
        await api.wait_for_next()
    assert api.requests == ["GET invocation next"]


# Credentials.

TOKEN = "shown for credentials"


def keys(name: str, minutes: float | None = 360) -> bytes:
    body = {
        "AccessKeyId": f"key of {name}",
        "SecretAccessKey": f"secret of {name}",
        "Token": f"session of {name}",
    }
    if minutes is not None:
        expires = datetime.now(UTC) + timedelta(minutes=minutes)
        body["Expiration"] = expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(body).encode()


def with_credentials(api: FakeRuntimeApi, name: str = "A") -> dict[str, str]:
    api.credentials_token = TOKEN
    api.credentials = keys(name)
    return {
        **SNAP_START,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": (
            f"http://127.0.0.1:{api.port}/2021-04-23/credentials"
        ),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
    }


def given(answer: dict[str, Any]) -> list[str | None]:
    return [answer["key"], answer["secret"], answer["session"]]


@pytest.mark.every_way
async def test_a_process_has_the_credentials_of_after_the_restore(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    source = 'console.log("has", Deno.env.get("AWS_ACCESS_KEY_ID"));\n' + UNIQUE
    variables = with_credentials(api)
    async with make_runtime(
        {"function.ts": source},
        AWS_LAMBDA_LOG_LEVEL="TRACE",
        AWS_LAMBDA_LOG_FORMAT="JSON",
        **variables,
    ) as runtime:
        await api.wait_for_snapshot()
        await runtime.logged("has key of A")  # a module may use them while it loads
        api.credentials = keys("B")
        api.restore()
        for _ in range(2):
            answer = (await api.invoke({})).json()
            assert given(answer) == ["key of B", "secret of B", "session of B"]
            assert answer["leads"] == []
        await api.wait_for_next()
        assert api.requests.count("GET 2021-04-23 credentials") == 2
        secrets = ("secret of", "session of", TOKEN)
        assert [s for s in secrets if s in runtime.log] == []


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("names", "expected", "fetched"),
    [
        ("@credentials", ["key of A", "secret of A", "session of A"], 2),
        ("MINE,AWS_SESSION_TOKEN", [None, None, "session of A"], 2),
        ("*", [None, None, None], 0),
        ("", [None, None, None], 0),
    ],
    ids=["all", "one", "pattern", "none"],
)
async def test_what_is_fetched_follows_the_rules_for_variables(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    names: str,
    expected: list[str | None],
    fetched: int,
) -> None:
    variables = with_credentials(api)
    api.restore()
    async with make_runtime(FUNCTION, LAMBDA_DENO_ENV=names, **variables):
        answer = (await api.invoke({})).json()
        assert given(answer) == expected
        assert answer["leads"] == []
        assert api.requests.count("GET 2021-04-23 credentials") == fetched
        await api.wait_for_next()


@pytest.mark.every_way("reuse", "server")
async def test_a_process_is_replaced_between_events_before_its_credentials_expire(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    variables = with_credentials(api)
    api.credentials = keys("A", minutes=20)
    api.restore()
    async with make_runtime(FUNCTION, **variables) as runtime:
        await api.wait_for_next()
        api.credentials = keys("B")
        found = []
        for _ in range(4):
            api.deliver(b"{}")
            answer = (await api.answer()).json()
            await api.wait_for_next()
            found.append((answer["key"], answer["unique"][0]))
        names, pids = zip(*found, strict=True)
        assert names == ("key of A", "key of A", "key of B", "key of B")
        assert len(set(pids)) == 2
        assert "Replacing" not in runtime.log, "no event has waited for it"


@pytest.mark.every_way("fork")
async def test_a_template_belongs_to_one_restored_environment_and_to_its_credentials(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Nothing of a snapshot is in copies: it has no template."""
    variables = with_credentials(api) | {"LAMBDA_DENO_METRICS": "json"}
    async with make_runtime(COPIED, **variables) as runtime:
        await api.wait_for_snapshot()
        assert in_snapshot(runtime) == []
        assert FORKED not in runtime.log, "a template is not in the snapshot"
        api.credentials = keys("B", minutes=10)
        api.restore()
        answers = [(await api.invoke({})).json() for _ in range(3)]
        assert [one["key"] for one in answers] == ["key of B"] * 3
        # Neither the copy that waits nor another one has those of the next event.
        await api.wait_for_next()
        api.credentials = keys("C")
        api.deliver(b"{}")
        answers.append((await api.answer()).json())
        answers += [(await api.invoke({})).json() for _ in range(2)]
        assert [one["key"] for one in answers[3:]] == ["key of C"] * 3
        await api.wait_for_next()
        assert runtime.log.count(FORKED) == 2
        starts = [one["start"] for one in reports(runtime.log)]
        assert starts == ["exec", "fork", "fork"] * 2
    numbers = [number for one in answers for number in one["random"]]
    assert len(set(numbers)) == len(numbers)
    # By the clock of the machine, which stood still in the snapshot.
    assert all(abs(one["now"] - time.time() * 1000) < 60_000 for one in answers)


@pytest.mark.every_way
async def test_an_event_is_not_given_to_a_process_that_its_credentials_may_not_outlast(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    variables = with_credentials(api)
    api.credentials = keys("A", minutes=10)
    api.restore()
    async with make_runtime(FUNCTION, **variables) as runtime:
        await api.wait_for_next()
        api.credentials = keys("B")
        api.deliver(b"{}")
        assert (await api.answer()).json()["key"] == "key of B"
        await runtime.logged("its credentials are about to expire")
        await api.wait_for_next()


@pytest.mark.every_way("reuse", "server")
async def test_a_process_stays_if_there_are_no_newer_credentials(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    variables = with_credentials(api)
    api.credentials = keys("A", minutes=1)
    api.restore()
    async with make_runtime(FUNCTION, **variables):
        pids = {(await api.invoke({})).json()["unique"][0] for _ in range(3)}
        assert len(pids) == 1
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "body",
    [None, b"", b"[]", b"{}", b'{"AccessKeyId":1}', keys("A")[:-1]],
    ids=["refused", "empty", "list", "object", "number", "cut"],
)
async def test_a_handler_that_needs_no_credentials_is_served_without(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, body: bytes | None
) -> None:
    variables = with_credentials(api)
    api.credentials = body
    api.restore()
    async with make_runtime(FUNCTION, **variables) as runtime:
        answer = (await api.invoke({})).json()
        assert given(answer) == [None, None, None]
        await runtime.logged("Cannot fetch the credentials of the function's role")
        assert "secret of" not in runtime.log
        await api.wait_for_next()
        api.credentials = keys("B", minutes=None)
        api.deliver(b"{}")
        assert (await api.answer()).json()["key"] == "key of B", "they came after all"
        await api.wait_for_next()


@pytest.mark.cases(1)
@pytest.mark.parametrize("fault", [hang, cut], ids=["hangs", "cut"])
async def test_credentials_that_do_not_come_hold_up_nothing(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, fault: Fault
) -> None:
    variables = with_credentials(api)
    api.neighbour_faults += [fault, fault]
    api.restore()
    async with make_runtime(FUNCTION, **variables) as runtime:
        answer = (await api.invoke({})).json()
        assert given(answer) == ["key of A", "secret of A", "session of A"]
        await api.wait_for_next()
    said = "Cannot fetch the credentials of the function's role"
    assert runtime.log.count(said) == 2


@pytest.mark.cases(1)
@pytest.mark.parametrize("permissions", ["default", "all"])
async def test_no_process_can_fetch_them_itself(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, permissions: str
) -> None:
    """An SDK did that, and found none: it may not reach the Runtime API's address."""
    source = """
export async function handler({ uri, token }) {
  try {
    const answer = await fetch(uri, { headers: { authorization: token } });
    return await answer.json();
  } catch (error) {
    return error.name;
  }
}
"""
    variables = with_credentials(api)
    uri = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    api.restore()
    async with make_runtime(
        {"function.js": source}, LAMBDA_DENO_PERMISSIONS=permissions, **variables
    ):
        answer = await api.invoke({"uri": uri, "token": TOKEN})
        assert answer.json() == "NotCapable"
        await api.wait_for_next()
        # At init, and after the restore: by the supervisor.
        assert api.requests.count("GET 2021-04-23 credentials") == 2


async def test_an_address_that_is_not_denied_is_left_to_the_process(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    elsewhere = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
    }
    async with make_runtime(FUNCTION, **elsewhere):
        answer = (await api.invoke({})).json()
        assert sorted(answer["leads"]) == sorted(elsewhere)
        await api.wait_for_next()

"""``invoke``: one local invocation, as a function and as a command.

The first part runs a scripted runtime, which misbehaves as real handlers cannot; the
second the command with wrong arguments; the third the command with the real runtime.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import pytest

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.local.environment import EmulatedInvocation
from lambda_deno_spawn.dev.local.invoke import InvokeResult, invoke
from lambda_deno_spawn.dev.local.process_tree import ProcessTree
from lambda_deno_spawn.dev.local.response_stream import (
    HttpPrelude,
    StreamView,
    split_prelude,
)
from lambda_deno_spawn.dev.local.runtime import bootstrap_command, lambda_environ
from lambda_deno_spawn.dev.project.function import (
    Function,
    InvokeOptions,
    find_function,
    parse_variables,
)
from lambda_deno_spawn.errors import UsageError
from tests.fixtures.command import run_command
from tests.integration.harness import marked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FAKE_RUNTIME = Path(__file__).parents[1] / "fixtures" / "fake_runtime.py"
COMMAND_LIMIT_S = 300.0
# Inherited by whatever a test starts, however deep.
MARK_VARIABLE = "LDS_INVOKE_TEST"
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


class Log(io.BytesIO):
    """A log that tells when something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.grew = asyncio.Event()

    def flush(self) -> None:
        self.grew.set()

    @property
    def text(self) -> str:
        return self.getvalue().decode()

    async def wait_for(self, text: str) -> None:
        async with asyncio.timeout(COMMAND_LIMIT_S):
            while text not in self.text:
                self.grew.clear()
                await self.grew.wait()


@pytest.fixture
def mark() -> Iterator[str]:
    """A value that marks this test's processes; none may be left in the end."""
    value = uuid.uuid4().hex
    yield value
    left = survivors(value)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


def survivors(mark: str) -> list[int]:
    """Return the live processes that carry a mark."""
    return sorted(marked(f"{MARK_VARIABLE}={mark}"))


def options_for(
    task_root: Path, *, timeout_s: float = 60.0, init_limit_s: float = 60.0
) -> InvokeOptions:
    return InvokeOptions(
        Function(task_root, "function.handler"),
        event=b'{ "n" : 1.0 }',
        timeout_s=timeout_s,
        init_limit_s=init_limit_s,
    )


async def fake(
    mode: str,
    mark: str,
    options: InvokeOptions,
    log: Log | None = None,
    environ: Mapping[str, str] | None = None,
    output: BinaryIO | None = None,
) -> tuple[InvokeResult, Log]:
    log = log or Log()
    async with asyncio.timeout(COMMAND_LIMIT_S):
        result = await invoke(
            options,
            command=[sys.executable, "-I", "-S", str(FAKE_RUNTIME), mode],
            environ={
                "PATH": os.environ["PATH"],
                MARK_VARIABLE: mark,
                **(environ or {}),
            },
            log=log,
            output=output,
        )
    assert survivors(mark) == []
    return result, log


def error_of(result: InvokeResult) -> tuple[str, str]:
    assert not result.is_ok
    assert result.error is not None
    assert result.is_streamed or result.error == result.payload
    body = json.loads(result.error)
    return body["errorType"], body["errorMessage"]


# --- with a scripted runtime -----------------------------------------------------


async def test_result_and_report_of_an_answered_event(
    tmp_path: Path, mark: str
) -> None:
    result, _ = await fake("echo", mark, options_for(tmp_path))
    report = result.report
    assert result.is_ok
    assert result.payload == b'{ "n" : 1.0 }'
    assert re.fullmatch(UUID4, result.request_id)
    assert report.init_duration_ms is not None
    assert report.duration_ms > 0
    assert report.init_duration_ms > 0
    total_ms = report.duration_ms + report.init_duration_ms
    assert report.billed_duration_ms == math.ceil(total_ms)
    assert report.memory_size_mb == 512
    assert 1 <= report.max_memory_used_mb < 200
    assert report.status is None


async def test_log_is_in_the_order_of_events(tmp_path: Path, mark: str) -> None:
    result, log = await fake("echo", mark, options_for(tmp_path))
    lines = log.text.splitlines()
    assert lines[:-1] == [
        "init: loading",
        f"START RequestId: {result.request_id} Version: $LATEST",
        "first, on stdout",
        "second, on stderr",
        "third, on stdout",
        f"END RequestId: {result.request_id}",
    ]
    assert re.fullmatch(
        rf"REPORT RequestId: {result.request_id}\tDuration: \d+\.\d\d ms\t"
        r"Billed Duration: \d+ ms\tMemory Size: 512 MB\tMax Memory Used: \d+ MB\t"
        r"Init Duration: \d+\.\d\d ms\tResponse Latency: \d+\.\d\d ms",
        lines[-1],
    )


async def test_log_is_passed_on_while_the_handler_runs(
    tmp_path: Path, mark: str
) -> None:
    log = Log()
    task = asyncio.create_task(
        fake("hang", mark, options_for(tmp_path, timeout_s=60), log)
    )
    await log.wait_for("waiting for nothing")
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert survivors(mark) == []


async def test_flood_of_log_lines_is_passed_on_whole(tmp_path: Path, mark: str) -> None:
    _, log = await fake("flood", mark, options_for(tmp_path, timeout_s=60))
    lines = [line for line in log.text.splitlines() if line.startswith("line ")]
    assert [line.split()[1] for line in lines] == [str(n) for n in range(20_000)]
    assert log.text.count("~") == 300_000


async def test_function_error_is_an_ordinary_end(tmp_path: Path, mark: str) -> None:
    result, log = await fake("error", mark, options_for(tmp_path))
    assert error_of(result) == ("TypeError", "no such thing")
    assert result.report.status is None
    assert "Status:" not in log.text


async def test_timeout_is_told_as_lambda_tells_it(tmp_path: Path, mark: str) -> None:
    result, log = await fake("hang", mark, options_for(tmp_path, timeout_s=0.5))
    message = f"RequestId: {result.request_id} Error: Task timed out after 0.50 seconds"
    assert error_of(result) == ("Sandbox.Timedout", message)
    assert result.report.duration_ms == 500.0
    assert result.report.status == "timeout"
    assert f"{result.request_id} Task timed out after 0.50 seconds\n" in log.text
    assert log.text.endswith("\tStatus: timeout\n")


async def test_timeout_kills_what_has_left_the_group(tmp_path: Path, mark: str) -> None:
    _, log = await fake("stubborn_hang", mark, options_for(tmp_path, timeout_s=3.0))
    assert re.search(r"^pids \d+ \d+$", log.text, re.MULTILINE)


async def test_timeout_after_the_response_keeps_the_response(
    tmp_path: Path, mark: str
) -> None:
    options = options_for(tmp_path, timeout_s=3)
    result, _ = await fake("hang_after_response", mark, options)
    assert result.is_ok
    assert result.payload == b'{ "n" : 1.0 }'
    assert result.report.status == "timeout"


async def test_exit_after_the_response_keeps_the_response(
    tmp_path: Path, mark: str
) -> None:
    result, log = await fake("exit_after_response", mark, options_for(tmp_path))
    assert result.is_ok
    assert result.report.status == "error"
    assert "Error: Runtime exited with error: exit status 7\n" in log.text


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("exit_3", "Runtime exited with error: exit status 3"),
        ("exit_0", "Runtime exited without providing a reason"),
        ("killed", "Runtime exited with error: signal: killed"),
        ("init_exit", "Runtime exited with error: exit status 4"),
    ],
)
async def test_exit_is_told_as_lambda_tells_it(
    tmp_path: Path, mark: str, mode: str, text: str
) -> None:
    result, log = await fake(mode, mark, options_for(tmp_path))
    message = f"RequestId: {result.request_id} Error: {text}"
    assert error_of(result) == ("Runtime.ExitError", message)
    assert result.report.status == "error"
    for word in ("START", "END", "REPORT"):
        assert log.text.count(f"{word} RequestId: {result.request_id}") == 1


async def test_exit_that_leaves_a_child_is_cleaned_up(
    tmp_path: Path, mark: str
) -> None:
    result, _ = await fake("exit_leaving_a_child", mark, options_for(tmp_path))
    assert "exit status 5" in error_of(result)[1]


STARTED_LATE = """
import os, sys
sys.stdin.read()
program = ["sh", "-c", "echo started; exec sleep 300"]
os.execve("/bin/sh", program, {sys.argv[1]: sys.argv[2], "PATH": os.defpath})
"""


def test_what_is_being_started_while_a_runtime_ends_is_ended_too(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an exec a process has no environment, and so no mark."""
    tree = ProcessTree(mark)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", STARTED_LATE, MARK_VARIABLE, mark],
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        gate, words = process.stdin, process.stdout

        def go_on(_pause_s: float) -> None:
            if not gate.closed:
                gate.close()
                words.readline()

        try:
            monkeypatch.setattr(time, "sleep", go_on)
            tree.kill()
            assert survivors(mark) == []
            assert gate.closed, "it was looked for once more"
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL


async def test_last_words_without_a_newline_are_logged(
    tmp_path: Path, mark: str
) -> None:
    result, log = await fake("exit_3", mark, options_for(tmp_path))
    before_end = log.text.partition(f"END RequestId: {result.request_id}")[0]
    assert "last words, no newline\n" in before_end


async def test_init_error_reaches_the_caller(tmp_path: Path, mark: str) -> None:
    result, log = await fake("init_error", mark, options_for(tmp_path))
    assert error_of(result) == ("Runtime.HandlerNotFound", "no handler")
    assert result.report.init_duration_ms is None
    assert result.report.status == "error"
    assert "after the init error\n" in log.text


async def test_init_that_does_not_end_times_out(tmp_path: Path, mark: str) -> None:
    options = options_for(tmp_path, timeout_s=0.3, init_limit_s=0.3)
    result, _ = await fake("init_hang", mark, options)
    assert error_of(result)[0] == "Sandbox.Timedout"
    assert result.report.init_duration_ms is None
    assert result.report.duration_ms >= 600


async def test_runtime_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, mark: str
) -> None:
    result, _ = await fake("stubborn", mark, options_for(tmp_path))
    assert len(json.loads(result.payload)) == 2


@pytest.mark.parametrize("mode", ["init_hang", "hang", "stubborn_hang"])
async def test_cancellation_leaves_nothing_behind(
    tmp_path: Path, mark: str, mode: str
) -> None:
    log = Log()
    task = asyncio.create_task(
        fake(mode, mark, options_for(tmp_path, timeout_s=60), log)
    )
    await log.wait_for("pids" if mode == "stubborn_hang" else "waiting")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert survivors(mark) == []


HTTP_TYPE = "application/vnd.awslambda.http-integration-response"


@pytest.fixture
def unread() -> Iterator[BinaryIO]:
    """A pipe that nobody empties."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        yield file
    os.close(reader)


async def test_http_prelude_is_told_in_the_log_and_not_in_the_output(
    tmp_path: Path, mark: str
) -> None:
    with (tmp_path / "output").open("wb") as output:
        result, log = await fake(
            "stream_http_in_bytes", mark, options_for(tmp_path), output=output
        )
    assert (tmp_path / "output").read_bytes() == result.payload == b"not\0found"
    assert log.text.count("HTTP 404; a: b; set-cookie: c=1; set-cookie: d=2\n") == 1
    assert (result.is_ok, result.is_streamed) == (True, True)
    assert result.content_type == HTTP_TYPE
    assert result.http is not None
    assert result.http.fields == {
        "statusCode": 404,
        "headers": {"a": "b"},
        "cookies": ["c=1", "d=2"],
    }


async def test_stream_without_output_is_in_the_result_only(
    tmp_path: Path, mark: str
) -> None:
    result, log = await fake("stream_http_in_bytes", mark, options_for(tmp_path))
    assert result.payload == b"not\0found"
    assert "HTTP" not in log.text


async def test_missing_prelude_is_noted_and_the_bytes_are_shown(
    tmp_path: Path, mark: str
) -> None:
    with (tmp_path / "output").open("wb") as output:
        result, log = await fake(
            "stream_http_without_prelude", mark, options_for(tmp_path), output=output
        )
    assert (tmp_path / "output").read_bytes() == result.payload == b"no prelude"
    assert result.http is None
    assert log.text.count("does not begin with a JSON object and 8 zeros") == 1


async def test_exit_in_the_middle_of_a_stream_keeps_what_came(
    tmp_path: Path, mark: str
) -> None:
    with (tmp_path / "output").open("wb") as output:
        result, log = await fake(
            "stream_then_exit", mark, options_for(tmp_path), output=output
        )
    assert (tmp_path / "output").read_bytes() == result.payload == b"so far"
    assert error_of(result)[0] == "Runtime.TruncatedResponse"
    assert result.report.status == "error"
    assert "Error: Runtime exited with error: exit status 3\n" in log.text


async def test_response_counts_though_its_runtime_exited_at_once(
    tmp_path: Path, mark: str
) -> None:
    result, log = await fake("respond_then_exit_unheard", mark, options_for(tmp_path))
    assert result.is_ok
    assert result.payload == b'{ "n" : 1.0 }'
    assert "Error: Runtime exited with error: exit status 3\n" in log.text


async def test_slow_reader_gets_all_that_a_runtime_sent_before_it_exited(
    tmp_path: Path, mark: str
) -> None:
    reader, writer = os.pipe()
    log = Log()
    with os.fdopen(reader, "rb") as output, os.fdopen(writer, "wb") as file:
        options = options_for(tmp_path, timeout_s=60)
        task = asyncio.create_task(
            fake("stream_much_then_exit", mark, options, log, output=file)
        )
        await log.wait_for("leaving")  # more than a pipe holds is on its way
        got = await asyncio.to_thread(output.read, 150_000)
        result, _ = await task
    assert got == result.payload == b"x" * 150_000
    assert error_of(result)[0] == "Runtime.TruncatedResponse"
    assert "Error: Runtime exited with error: exit status 3\n" in log.text


async def test_timeout_in_the_middle_of_a_stream_keeps_what_came(
    tmp_path: Path, mark: str
) -> None:
    with (tmp_path / "output").open("wb") as output:
        result, _ = await fake(
            "stream_then_hang",
            mark,
            options_for(tmp_path, timeout_s=3),
            output=output,
        )
    assert (tmp_path / "output").read_bytes() == result.payload == b"so far"
    assert error_of(result)[0] == "Sandbox.Timedout"
    assert result.content_type == "text/plain"


async def test_reader_who_does_not_read_holds_nothing_up(
    tmp_path: Path, mark: str, unread: BinaryIO
) -> None:
    result, _ = await fake(
        "stream_without_end", mark, options_for(tmp_path, timeout_s=3.0), output=unread
    )
    assert error_of(result)[0] == "Sandbox.Timedout"
    # A pipe's 64 KiB, and what emulator and view hold; the runtime waits with the rest.
    assert 65_536 <= len(result.payload) < 1_000_000
    assert result.report.duration_ms == 3000.0


async def test_reader_who_leaves_ends_a_stream_that_waits_for_him(
    tmp_path: Path, mark: str
) -> None:
    reader, writer = os.pipe()
    log = Log()
    options = options_for(tmp_path, timeout_s=60)
    mode = "stream_more_than_a_pipe_holds_then_hang"
    with os.fdopen(writer, "wb", buffering=0) as output:
        task = asyncio.create_task(fake(mode, mark, options, log, output=output))
        await log.wait_for("streaming")
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            await task
    assert survivors(mark) == []


async def test_view_waits_for_its_reader_and_tells_that_he_left() -> None:
    reader, writer = os.pipe()
    told: list[str] = []
    with os.fdopen(writer, "wb", buffering=0) as file:
        view = StreamView(file, told.append, lambda: told.append("left"))
        invocation = EmulatedInvocation("r-1", b"{}", timeout_s=3)
        showing = asyncio.create_task(view.show(invocation, b"x" * 300_000))
        got = b""
        async with asyncio.timeout(COMMAND_LIMIT_S):
            while len(got) < 70_000:  # what the pipe holds, and more
                got += await asyncio.to_thread(os.read, reader, 4096)
        assert (told, view.error, showing.done()) == ([], None, False)
        os.close(reader)
        async with asyncio.timeout(COMMAND_LIMIT_S):
            await showing
        assert told == ["left"]
        assert isinstance(view.error, BrokenPipeError)
        await view.show(invocation, b"to nobody")
        assert told == ["left"]


async def test_cancellation_does_not_wait_for_the_reader(
    tmp_path: Path, mark: str, unread: BinaryIO
) -> None:
    log = Log()
    options = options_for(tmp_path, timeout_s=60)
    task = asyncio.create_task(
        fake("stream_without_end", mark, options, log, output=unread)
    )
    await log.wait_for("streaming")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert survivors(mark) == []


async def test_invocation_carries_lambdas_headers(tmp_path: Path, mark: str) -> None:
    options = InvokeOptions(
        Function(tmp_path, "function.handler"),
        timeout_s=60,
        client_context='{"custom":{}}',
        tenant_id="blue",
    )
    before_epoch_ms = time.time() * 1000
    result, _ = await fake(
        "headers", mark, options, environ={"AWS_REGION": "eu-west-1"}
    )
    headers = {k.lower(): v for k, v in json.loads(result.payload).items()}
    deadline_epoch_ms = int(headers["lambda-runtime-deadline-ms"])
    assert before_epoch_ms + 59_000 < deadline_epoch_ms < before_epoch_ms + 90_000
    assert headers["lambda-runtime-aws-request-id"] == result.request_id
    assert headers["lambda-runtime-client-context"] == '{"custom":{}}'
    assert headers["lambda-runtime-aws-tenant-id"] == "blue"
    assert re.fullmatch(
        r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01];"
        r"Lineage=.+",
        headers["lambda-runtime-trace-id"],
    )
    arn = headers["lambda-runtime-invoked-function-arn"]
    assert re.fullmatch(r"arn:aws:lambda:eu-west-1:\d{12}:function:[\w-]+", arn)


async def test_runtime_has_lambdas_environment(tmp_path: Path, mark: str) -> None:
    options = InvokeOptions(
        Function(tmp_path, "src/api.get"),
        memory_mb=256,
        warm="off",
        variables={"STAGE": "dev", "TZ": "Asia/Tokyo"},
    )
    leftovers = {
        "AWS_LAMBDA_MAX_CONCURRENCY": "4",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "_X_AMZN_TRACE_ID": "Root=1",
        "_HANDLER": "other.handler",
        "LAMBDA_TASK_ROOT": "/other",
        "AWS_SECRET_ACCESS_KEY": "kept",
        "XDG_CACHE_HOME": "/caches",
    }
    result, _ = await fake("environ", mark, options, environ=leftovers)
    facts = json.loads(result.payload)
    variables = facts["environ"]
    name = variables["AWS_LAMBDA_FUNCTION_NAME"]
    assert facts["cwd"] == str(tmp_path)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", variables["AWS_LAMBDA_RUNTIME_API"])
    assert re.fullmatch(
        r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}",
        variables["AWS_LAMBDA_LOG_STREAM_NAME"],
    )
    expected = {
        "_HANDLER": "src/api.get",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": "kept",
        "DENO_DIR": "/caches/deno",
        "LAMBDA_DENO_WARM": "off",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(tmp_path),
        "LANG": "en_US.UTF-8",
        "STAGE": "dev",
        "TZ": "Asia/Tokyo",
    }
    assert {key: variables.get(key) for key in expected} == expected
    assert not {"AWS_LAMBDA_MAX_CONCURRENCY", "_X_AMZN_TRACE_ID"} & set(variables)
    assert not Path(variables["TMPDIR"]).exists()


# --- decisions that need no process ----------------------------------------------


def make_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("names", "handler"),
    [
        (["function.ts"], "function.handler"),
        (["handler.ts", "index.ts"], "index.handler"),
        (["main.js", "other.ts", "another.ts"], "main.handler"),
        (["api.mjs"], "api.handler"),
        (["api.ts", "api.bundle.js"], "api.handler"),
        (["api.ts", "api_test.ts", "types.d.ts", "README.md"], "api.handler"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_handler_is_found_in_a_folder(
    tmp_path: Path, names: list[str], handler: str
) -> None:
    function = find_function(make_files(tmp_path, *names))
    assert function == Function(tmp_path.resolve(), handler)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ["no source file", "function.ts", "new"]),
        (["README.md"], ["no source file", "function.ts", "new"]),
        (
            ["a.ts", "b.ts"],
            ["2 source files", "function", "index", "main", "mod", "handler"],
        ),
    ],
    ids=["empty", "no source", "two"],
)
def test_folder_without_a_clear_handler_is_refused(
    tmp_path: Path, names: list[str], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        find_function(make_files(tmp_path, *names))
    for word in words:
        assert word in str(caught.value)


def test_handler_option_needs_no_search(tmp_path: Path) -> None:
    function = find_function(tmp_path, "src/api.get")
    assert function == Function(tmp_path.resolve(), "src/api.get")


def test_file_that_another_wins_over_is_noticed(tmp_path: Path) -> None:
    make_files(tmp_path, "function.ts", "function.bundle.js")
    function = find_function(tmp_path / "function.ts")
    assert function.handler == "function.handler"
    assert function.shadowed_by == tmp_path / "function.bundle.js"
    assert find_function(tmp_path / "function.bundle.js").shadowed_by is None


def test_linked_file_keeps_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    make_files(tmp_path, "shared.ts")
    (folder / "function.ts").symlink_to(tmp_path / "shared.ts")
    function = find_function(folder / "function.ts")
    assert function == Function(folder.resolve(), "function.handler")


def test_variables_keep_everything_after_the_first_equals_sign() -> None:
    assert parse_variables(["A_1=b=c", "EMPTY="]) == {"A_1": "b=c", "EMPTY": ""}


@pytest.mark.parametrize(
    "assignment", ["NOTHING", "_HANDLER=x", "AWS_REGION=x", "1A=x", "A=x", "A-B=x"]
)
def test_bad_variable_is_refused_by_name(assignment: str) -> None:
    with pytest.raises(UsageError, match=re.escape(assignment.partition("=")[0])):
        parse_variables([assignment])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DENO_DIR": "/d", "HOME": "/h"}, "/d"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/deno"),
        ({}, None),
    ],
    ids=["DENO_DIR", "XDG_CACHE_HOME", "nothing"],
)
def test_denos_cache_is_the_users(
    tmp_path: Path,
    environ: dict[str, str],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user without a home
    variables = lambda_environ(options_for(tmp_path), "127.0.0.1:1", "/tmp", environ)
    assert variables.get("DENO_DIR") == expected


PRELUDE = b'{"statusCode":201}' + b"\0" * 8


@pytest.mark.parametrize("content_type", [HTTP_TYPE, f"{HTTP_TYPE.upper()}; a=b"])
def test_prelude_is_split_off_as_soon_as_it_is_complete(content_type: str) -> None:
    for end in range(len(PRELUDE)):
        assert split_prelude(PRELUDE[:end], content_type) is None
    prelude = HttpPrelude({"statusCode": 201, "headers": {}, "cookies": []})
    assert split_prelude(PRELUDE, content_type) == (prelude, b"")
    zeros = b"a" + b"\0" * 9
    assert split_prelude(PRELUDE + zeros, content_type) == (prelude, zeros)


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (PRELUDE, "text/plain"),
        (PRELUDE, ""),
        (b"[]" + b"\0" * 8, HTTP_TYPE),
        (b"{" + b"\0" * 8, HTTP_TYPE),
        (b'"\xff"' + b"\0" * 8, HTTP_TYPE),
        (b"[" * 16_000 + b"\0" * 8, HTTP_TYPE),
        (b"x" * (16 * 1024 + 8), HTTP_TYPE),
        (b"{}" + b" " * (16 * 1024 - 1) + b"\0" * 8, HTTP_TYPE),
    ],
    ids=["text", "untyped", "array", "not JSON", "not UTF-8", "deep", "endless",
         "too late"],
)  # fmt: skip
def test_what_is_no_prelude_is_body(payload: bytes, content_type: str) -> None:
    assert split_prelude(payload, content_type) == (None, payload)


@pytest.mark.parametrize(
    ("prelude", "line"),
    [
        ("{}", "HTTP 200"),
        (
            '{"statusCode":201,"headers":{"A":"1","B":2},"cookies":["c=1","d=2"]}',
            "HTTP 201; A: 1; B: 2; set-cookie: c=1; set-cookie: d=2",
        ),
        ('{"multiValueHeaders":{"a":["1","2"]}}', "HTTP 200; a: 1; a: 2"),
        ('{"headers":{"a":"1\\n2"},"cookies":null}', "HTTP 200; a: 1 2"),
        ('{"headers":[1],"statusCode":null}', "HTTP None"),
    ],
    ids=["empty", "all", "REST", "line break", "odd"],
)
def test_prelude_is_told_in_one_line(prelude: str, line: str) -> None:
    parsed = HttpPrelude.from_bytes(prelude.encode())
    assert parsed is not None
    assert parsed.line() == line


def test_bootstrap_command_runs_isolated_and_without_site() -> None:
    python, *flags, code = bootstrap_command()
    probe = code.partition("from lambda_deno_spawn")[0]
    names = "lambda_deno_spawn, h11"
    assert python == sys.executable
    assert flags == ["-I", "-S", "-c"]
    subprocess.run(
        [python, *flags, f"{probe} import {names}"],
        check=True,
        timeout=COMMAND_LIMIT_S,
        env={},
    )


# --- the command, with arguments that cannot be used ------------------------------


def cli(
    *arguments: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    mark: str = "",
) -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, MARK_VARIABLE: mark, "NO_COLOR": "1"}
    return run_command(
        *arguments, stdin=stdin, cwd=cwd, environ=environ, limit_s=COMMAND_LIMIT_S
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "function.ts").write_text(
        "export const handler = (event) => event;", encoding="utf-8"
    )
    return tmp_path


def test_version_is_printed() -> None:
    done = cli("--version")
    assert done.stdout.decode().strip() == f"lambda-deno-spawn {__version__}"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (
            ["-e", '{"a":\n tru}'],
            b"",
            "Cannot use the event from --event: it is not JSON, "
            "line 2 column 2: Expecting value",
        ),
        (
            ["-e", "-"],
            b"{",
            "Cannot use the event from stdin: it is not JSON, line 1 column 2",
        ),
        (["-e", "-"], b"", "Cannot use the event from stdin: it is empty; give JSON"),
        (["-e", "-"], b'"\xff"', "Cannot use the event from stdin: it is not JSON"),
        (
            ["--event-file", "function.ts"],
            b"",
            "Cannot use the event from --event-file 'function.ts': it is not JSON, "
            "line 1 column 1",
        ),
        (["-e", "NaN"], b"", "it is not JSON, NaN exists"),
        (["-e", "[" * 100_000], b"", "it is nested too deeply"),
        (
            ["-e", "-"],
            b'"%s"' % (b"x" * (6 * 1024 * 1024)),
            "it has 6291458 bytes, and Lambda accepts 6291456",
        ),
        (["-e", "@nowhere.json"], b"", "Cannot read the file 'nowhere.json' of"),
        (["--event-file", "nowhere"], b"", "Cannot read the file 'nowhere' of"),
        (["-e", "@."], b"", "Cannot read the file '.' of --event: is a directory"),
        (["-e", "{}", "--event-file", "x"], b"", "Cannot use both event sources"),
        (["--env", "A_B"], b"", "Cannot use --env 'A_B': there is no '='"),
        (["--env", "_HANDLER=x"], b"", "Lambda reserves _HANDLER"),
        (["--timeout", "0"], b"", "Cannot use --timeout 0"),
        (["--client-context", "{"], b"", "from --client-context: it is not JSON"),
        (["--client-context", "[]"], b"", "Cannot use --client-context: it is JSON"),
        (["--client-context", "@no"], b"", "Cannot read the file 'no' of"),
        (
            ["--client-context", json.dumps({"k": "x" * 2700})],
            b"",
            "it has 3612 bytes in base64, and Lambda accepts 3583",
        ),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:24],
)
def test_unusable_argument_is_told_in_one_sentence(
    folder: Path, arguments: Sequence[str], stdin: bytes, sentence: str
) -> None:
    done = cli("invoke", folder, *arguments, stdin=stdin, cwd=folder)
    message = done.stderr.decode()
    assert sentence in message
    assert message.count("\n") == 1
    assert not message.endswith(".\n")
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "Cannot find function 'nowhere'"),
        ("notes.md", "Cannot use function 'notes.md'"),
        ("empty", "Cannot find a handler in 'empty'"),
    ],
)
def test_unusable_function_is_told_in_one_sentence(
    tmp_path: Path, name: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    make_files(tmp_path, "notes.md")
    done = cli("invoke", name, cwd=tmp_path)
    assert done.stderr.decode().startswith(sentence)
    assert done.stderr.count(b"\n") == 1
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize(
    "arguments",
    [["--memory", "64"], ["--timeout", "901"], ["--warm", "cold"], ["--unknown"]],
    ids=" ".join,
)
def test_argument_out_of_range_is_a_usage_error(
    folder: Path, arguments: list[str]
) -> None:
    done = cli("invoke", folder, *arguments)
    assert arguments[0] in done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")


def test_traceback_is_shown_with_verbose_only(folder: Path) -> None:
    quiet = cli("invoke", folder, "-e", "{")
    verbose = cli("invoke", folder, "-e", "{", "--verbose")
    assert b"Traceback" not in quiet.stderr
    assert b"Traceback" in verbose.stderr
    assert verbose.returncode == 2


# --- the command, with the real runtime -------------------------------------------

# For events whose timeout is not what is tested.
PATIENT = ("--timeout", "60")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a handler's module and return its folder."""

    def write(source: str) -> Path:
        (tmp_path / "function.ts").write_text(source, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.deno
def test_result_is_on_stdout_and_the_log_on_stderr(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write(
        "export const handler = (event) => {"
        " console.log('from the handler'); return { got: event }; };"
    )
    done = cli("invoke", *PATIENT, folder, "-e", '{"a":1.50}', mark=mark)
    log = done.stderr.decode()
    assert done.returncode == 0, log
    assert done.stdout == b'{"got":{"a":1.5}}\n'
    words = ["START RequestId:", "from the handler", "END RequestId:", "REPORT "]
    positions = [log.index(word) for word in words]
    assert positions == sorted(positions)
    assert log.count("from the handler") == 1


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize("source", ["@event.json", "event.json", "-", "--event-file"])
def test_event_comes_from_a_file_or_stdin(
    write: Callable[[str], Path], mark: str, source: str
) -> None:
    folder = write("export const handler = (event) => event.name;")
    (folder / "event.json").write_bytes(b'{"name":"\xd0\xb6"}')
    arguments = ["--event-file", "event.json"] if "file" in source else ["-e", source]
    stdin = b'{"name":"\xd0\xb6"}' if source == "-" else b""
    done = cli("invoke", *PATIENT, ".", *arguments, stdin=stdin, cwd=folder, mark=mark)
    assert done.stdout == b'"\xd0\xb6"\n', done.stderr.decode()


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_what_the_module_prints_is_not_logged_again_for_the_next_process(
    write: Callable[[str], Path], mark: str, log_format: str
) -> None:
    folder = write(
        "console.log('loading'); console.log('number', Math.random());"
        "export const handler = () => { console.log('handling'); return 1; };"
    )
    variable = f"AWS_LAMBDA_LOG_FORMAT={log_format}"
    done = cli("invoke", *PATIENT, folder, "--env", variable, mark=mark)
    log = done.stderr.decode()
    assert done.returncode == 0, log
    counts = [log.count(what) for what in ("loading", "number", "handling")]
    assert counts == [1, 1, 1]
    assert "next event" not in log
    assert "Events are served" not in log
    # With more details, what differs is shown, and said to be of another process.
    done = cli("invoke", *PATIENT, folder, "--env", variable, "--verbose", mark=mark)
    log = done.stderr.decode()
    assert log.count("loading") == log.count("handling") == 1
    before, told, after = log.partition("(The process for the next event is starting.")
    assert told
    assert (before.count("number"), after.count("number")) == (1, 1)


@pytest.mark.deno
def test_json_output_is_one_object(write: Callable[[str], Path], mark: str) -> None:
    folder = write("export const handler = () => ({ n: [1, null] });")
    done = cli("invoke", *PATIENT, folder / "function.ts", "-o", "json", mark=mark)
    output = json.loads(done.stdout)
    assert output["ok"] is True
    assert output["result"] == {"n": [1, None]}
    assert output["error"] is None
    assert re.fullmatch(UUID4, output["requestId"])
    report = output["report"]
    assert set(report) == {
        "durationMs",
        "responseLatencyMs",
        "billedDurationMs",
        "initDurationMs",
        "memorySizeMb",
        "maxMemoryUsedMb",
    }
    assert report["memorySizeMb"] == 512
    assert report["maxMemoryUsedMb"] > 0


@pytest.mark.deno
def test_failing_handler_exits_with_1_and_its_error_on_stdout(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write("export const handler = () => { throw new RangeError('too far'); };")
    done = cli("invoke", *PATIENT, folder, mark=mark)
    body = json.loads(done.stdout)
    assert (body["errorType"], body["errorMessage"]) == ("RangeError", "too far")
    last = done.stderr.decode().splitlines()[-1]
    assert last == "The function failed: RangeError: too far"
    assert done.returncode == 1


@pytest.mark.deno
def test_failing_handler_in_json_output(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write("export const handler = () => { throw new RangeError('too far'); };")
    done = cli("invoke", *PATIENT, folder, "-o", "json", mark=mark)
    output = json.loads(done.stdout)
    assert (output["ok"], output["result"]) == (False, None)
    assert output["error"]["errorType"] == "RangeError"
    assert done.returncode == 1


@pytest.mark.deno
def test_missing_export_is_an_init_error(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write("export const other = 1;")
    done = cli("invoke", *PATIENT, folder, mark=mark)
    assert json.loads(done.stdout)["errorType"] == "Runtime.HandlerNotFound"
    assert done.returncode == 1


@pytest.mark.deno
def test_handler_option_names_another_export(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write("export const other = () => 'other';")
    done = cli("invoke", *PATIENT, folder, "--handler", "function.other", mark=mark)
    assert done.stdout == b'"other"\n', done.stderr.decode()


@pytest.mark.deno
def test_hanging_handler_is_stopped_by_the_runtime_in_time(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write("export const handler = () => { while (true); };")
    # A margin that a busy machine does not use up.
    margin = "LAMBDA_DENO_STOP_MARGIN_MS=4000"
    options = ("--timeout", "5", "--env", margin, "-o", "json")
    done = cli("invoke", folder, *options, mark=mark)
    output = json.loads(done.stdout)
    assert output["error"]["errorType"] == "Runtime.InvokeTimeout"
    assert output["report"]["durationMs"] <= 5000
    assert done.returncode == 1


@pytest.mark.deno
def test_options_reach_the_handler(write: Callable[[str], Path], mark: str) -> None:
    folder = write(
        "export const handler = (event, context) => ({"
        " stage: Deno.env.get('STAGE'), memory: context.memoryLimitInMB,"
        " custom: context.clientContext?.custom ?? context.clientContext?.Custom,"
        " tenant: context.tenantId,"
        " remaining: context.getRemainingTimeInMillis() > 5000 });"
    )
    done = cli(
        "invoke", folder, "--env", "STAGE=a=b", "--memory", "256", "--timeout", "10",
        "--client-context", '{"custom":{"k":"v"}}', "--tenant-id", "blue",
        "--warm", "off", mark=mark,
    )  # fmt: skip
    assert json.loads(done.stdout or b"null") == {
        "stage": "a=b",
        "memory": "256",
        "custom": {"k": "v"},
        "tenant": "blue",
        "remaining": True,
    }, done.stderr.decode()


@pytest.mark.deno
def test_shadowed_file_is_noted(write: Callable[[str], Path], mark: str) -> None:
    folder = write("export const handler = () => 'source';")
    (folder / "function.bundle.js").write_text(
        "export const handler = () => 'bundle';", encoding="utf-8"
    )
    done = cli("invoke", *PATIENT, "function.ts", cwd=folder, mark=mark)
    assert done.stdout == b'"bundle"\n'
    assert done.stderr.startswith(b"Note: 'function.bundle.js' runs instead of")


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["SIGINT", "SIGTERM"],
)
def test_signal_ends_everything(
    write: Callable[[str], Path], mark: str, number: signal.Signals, exit_code: int
) -> None:
    folder = write(
        "export const handler = () => {"
        " console.log('busy'); return new Promise((r) => setTimeout(r, 60000)); };"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "lambda_deno_spawn", "invoke", folder, "--timeout=60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, MARK_VARIABLE: mark},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # ends with the process; pytest-timeout bounds it
            if b"busy" in line:
                break
        process.send_signal(number)
        output, log = process.communicate(timeout=COMMAND_LIMIT_S)
    assert process.returncode == exit_code, log.decode()
    assert output == b""
    assert b"Traceback" not in log
    assert survivors(mark) == []


# --- the command, with streams ------------------------------------------------------


@contextlib.contextmanager
def running(
    *arguments: str | Path, mark: str
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """Start the command; yields its stdout and stderr too.

    Reads from them wait without a limit of their own: pytest-timeout bounds them.
    """
    # Whether stdout is flushed must not depend on who runs the tests.
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-m", "lambda_deno_spawn", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environ, MARK_VARIABLE: mark},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.kill()


TRICKLE = """
export async function* handler() {
  yield "first\\n";
  await Deno.readTextFile(new URL("./gate", import.meta.url));
  yield "last, without a line break";
}
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe: reading it ends once something was written to it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.mark.deno
def test_stream_is_on_stdout_before_its_end_is_made(
    write: Callable[[str], Path], mark: str, gate: Path
) -> None:
    folder = write(TRICKLE)
    with running("invoke", folder, *PATIENT, mark=mark) as (process, out, log):
        assert out.readline() == b"first\n"
        assert process.poll() is None
        gate.write_text("go on")
        assert out.read() == b"last, without a line break"
        assert process.wait(COMMAND_LIMIT_S) == 0, log.read().decode()
        assert b"REPORT RequestId: " in log.read()


@pytest.mark.deno
def test_stream_is_in_json_output_as_text(
    write: Callable[[str], Path], mark: str, gate: Path
) -> None:
    folder = write(TRICKLE)
    arguments = ("invoke", folder, "-o", "json", *PATIENT)
    with running(*arguments, mark=mark) as (process, out, log):
        gate.write_text("go on")
        output = json.loads(out.read())
        assert process.wait(COMMAND_LIMIT_S) == 0, log.read().decode()
    assert output["ok"] is True
    assert output["result"] == "first\nlast, without a line break"
    assert output["streamed"] is True
    assert output["contentType"] == "application/octet-stream"
    assert (output["error"], output["http"]) == (None, None)
    assert "base64" not in output


@pytest.mark.deno
def test_binary_stream_is_kept_byte_for_byte(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write(
        "export async function* handler() {"
        " for (let i = 0; i < 50; i++) yield new Uint8Array(100_000).fill(250 + i); }"
    )
    expected = b"".join(bytes([(250 + i) % 256]) * 100_000 for i in range(50))
    done = cli("invoke", *PATIENT, folder, mark=mark)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == expected
    done = cli("invoke", *PATIENT, folder, "-o", "json", mark=mark)
    output = json.loads(done.stdout)
    assert output["result"] is None
    assert base64.b64decode(output["base64"]) == expected


HTTP_STREAM = """
// @ts-ignore the global of AWS's runtime
export const handler = awslambda.streamifyResponse(async (_event, stream) => {
  // @ts-ignore the global of AWS's runtime
  stream = awslambda.HttpResponseStream.from(stream, {
    statusCode: 201,
    headers: { "content-type": "text/html" },
    cookies: ["a=1"],
  });
  stream.write("<p>");
  stream.end("</p>");
});
"""


@pytest.mark.deno
def test_http_stream_has_its_body_on_stdout_and_its_head_on_stderr(
    write: Callable[[str], Path], mark: str
) -> None:
    done = cli("invoke", *PATIENT, write(HTTP_STREAM), mark=mark)
    log = done.stderr.decode()
    assert (done.returncode, done.stdout) == (0, b"<p></p>"), log
    assert log.count("\nHTTP 201; content-type: text/html; set-cookie: a=1\n") == 1
    done = cli("invoke", *PATIENT, write(HTTP_STREAM), "-o", "json", mark=mark)
    output = json.loads(done.stdout)
    assert output["result"] == "<p></p>"
    assert output["http"] == {
        "statusCode": 201,
        "headers": {"content-type": "text/html"},
        "cookies": ["a=1"],
    }
    assert output["contentType"] == HTTP_TYPE
    assert b"HTTP 201" not in done.stderr


BREAKS_OFF = """
export async function* handler() {
  yield "half";
  throw new RangeError("too far\\nby a mile");
}
"""


@pytest.mark.deno
def test_stream_that_breaks_off_keeps_stdout_and_tells_its_error_on_stderr(
    write: Callable[[str], Path], mark: str
) -> None:
    done = cli("invoke", *PATIENT, write(BREAKS_OFF), mark=mark)
    assert (done.returncode, done.stdout) == (1, b"half")
    *_, body, summary, more = done.stderr.decode().splitlines()
    assert json.loads(body)["errorType"] == "RangeError"
    assert json.loads(body)["errorMessage"] == "too far\nby a mile"
    assert summary == "The response broke off: RangeError: too far"
    assert more == "by a mile"


@pytest.mark.deno
def test_stream_that_breaks_off_in_json_output(
    write: Callable[[str], Path], mark: str
) -> None:
    done = cli("invoke", *PATIENT, write(BREAKS_OFF), "-o", "json", mark=mark)
    output = json.loads(done.stdout)
    assert (output["ok"], output["result"]) == (False, "half")
    assert output["error"]["errorType"] == "RangeError"
    assert output["streamed"] is True
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-2:]
    assert last == ["The response broke off: RangeError: too far", "by a mile"]


@pytest.mark.deno
def test_error_before_the_first_byte_is_an_ordinary_error(
    write: Callable[[str], Path], mark: str
) -> None:
    folder = write("export async function* handler() { throw new RangeError('no'); }")
    done = cli("invoke", *PATIENT, folder, "-o", "json", mark=mark)
    output = json.loads(done.stdout)
    assert (output["ok"], output["result"], output["streamed"]) == (False, None, False)
    assert output["error"]["errorType"] == "RangeError"
    assert done.returncode == 1


ENDLESS = """
let made = 0;
export async function* handler() {
  setInterval(() => console.log(`made ${made}`), 50);
  for (;;) {
    made += 1;
    yield `piece ${made}\\n`.padEnd(10_000, ".");
  }
}
"""


@pytest.mark.deno
def test_reader_who_leaves_ends_everything(
    write: Callable[[str], Path], mark: str
) -> None:
    arguments = ("invoke", write(ENDLESS), "--timeout=60")
    with running(*arguments, mark=mark) as (process, out, log):
        assert out.readline() == b"piece 1\n"
        out.close()
        assert process.wait(COMMAND_LIMIT_S) == 1
        assert b"Traceback" not in log.read()
    assert survivors(mark) == []


@pytest.mark.cases(1)
@pytest.mark.deno
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["SIGINT", "SIGTERM"],
)
def test_signal_ends_a_stream_that_nobody_reads(
    write: Callable[[str], Path], mark: str, number: signal.Signals, exit_code: int
) -> None:
    arguments = ("invoke", write(ENDLESS), "--timeout=60")
    with running(*arguments, mark=mark) as (process, out, log):
        counts = (line.split()[-1] for line in log if b"made " in line)
        last = b""
        for count in counts:  # twice the same: the handler waits for the reader
            if count == last != b"0":
                break
            last = count
        process.send_signal(number)
        assert process.wait(COMMAND_LIMIT_S) == exit_code
        assert out.readline() == b"piece 1\n"
        assert b"Traceback" not in log.read()
    assert survivors(mark) == []


# --- what a shell or another program leaves to the command -----------------------


def test_streams_that_are_closed_are_done_without(tmp_path: Path) -> None:
    (tmp_path / "function.mjs").write_text("export const handler = (e) => e;")
    command = [sys.executable, "-m", "lambda_deno_spawn", "invoke", "."]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command, "--event", '{"a":1}'],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=False,
        timeout=COMMAND_LIMIT_S,
    )
    assert (done.returncode, done.stdout.strip()) == (0, b'{"a":1}')


def test_a_working_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-m", "lambda_deno_spawn", "events"]
    done = subprocess.run(
        ["sh", "-c", 'rmdir ../gone; exec "$@"', "sh", *command],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_LIMIT_S,
    )
    assert done.returncode == 2
    assert "working folder: it has been removed" in done.stderr

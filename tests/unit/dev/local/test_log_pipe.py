"""Which lines of a local runtime are passed on, and which only repeat others."""

from __future__ import annotations

import asyncio
import io
import json
import os

import pytest

from lambda_deno_spawn.dev.local.log_pipe import NEXT_PROCESS, LogPipe

ID = "8f5a"


def text(time: int, request_id: str, message: str) -> str:
    return f"2026-01-01T00:00:0{time}.000Z\t{request_id}\tINFO\t{message}\n"


def record(time: int, message: str) -> str:
    return f'{{"timestamp":"2026-01-01T00:00:0{time}Z","message":"{message}"}}\n'


@pytest.mark.parametrize("line", [text, lambda *given: record(given[0], given[2])])
async def test_a_repeated_line_of_the_next_process_is_left_out(line: object) -> None:
    assert callable(line)
    sink = io.BytesIO()
    with LogPipe(sink) as pipe:
        pipe.follow(asyncio.get_running_loop())

        def print_lines(*lines: str) -> None:
            os.write(pipe.writer, "".join(lines).encode())

        loads, loaded = line(1, "-", "loads"), line(2, "-", "2 ms")
        print_lines(loads, loaded)
        pipe.say("START")
        of_event = text(3, ID, "handles")
        print_lines(of_event)
        pipe.expect_next(ID)
        later, other = text(4, ID, "still at it"), line(6, "-", "3 ms")
        print_lines(later, line(5, "-", "loads"), other, line(7, "-", "4 ms"))
        pipe.say("END")
        pipe.close_writer()
    assert sink.getvalue().decode() == (
        f"{loads}{loaded}START\n{of_event}{later}{NEXT_PROCESS}\n{other}"
        f"{line(7, '-', '4 ms')}END\n"
    )


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_brief_log_has_only_problems_of_the_next_process(
    log_format: str,
) -> None:
    def line(level: str, message: str, request_id: str = "") -> str:
        if log_format == "json":
            content = {"timestamp": "x", "level": level, "message": message}
            given = {"requestId": request_id} if request_id else {}
            return json.dumps({**content, **given}) + "\n"
        return f"2026-01-01T00:00:00.000Z\t{request_id or '-'}\t{level}\t{message}\n"

    sink = io.BytesIO()
    served = "Events are served by forks of process 7"
    loads, quoted = line("INFO", "loads"), line("INFO", f"it says: {served}")
    of_event = line("INFO", served, ID)
    problem, raw = line("ERROR", "broken"), "raw\n"
    with LogPipe(sink, is_brief=True) as pipe:
        pipe.follow(asyncio.get_running_loop())
        text = "".join((loads, line("INFO", served), quoted, of_event))
        os.write(pipe.writer, text.encode())
        pipe.expect_next(ID)
        later = [line("INFO", served), line("INFO", "number 2"), of_event, problem]
        os.write(pipe.writer, "".join((*later, raw)).encode())
        pipe.close_writer()
    assert sink.getvalue().decode() == (
        f"{loads}{quoted}{of_event}{of_event}{NEXT_PROCESS}\n{problem}{raw}"
    )

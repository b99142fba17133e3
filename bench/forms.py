"""The cost of other kinds of handlers, compared to one that returns a value.

Time to the first byte of a streamed response, relative to a buffered response of one
byte; and the time to map an HTTP event to a Request and the Response back, relative to
the same Hono app called by a plain handler. All with a ready process, unfrozen,
alternately. Reproduce with ``python -m bench forms``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import orjson

from bench.contestants import DENO, HANDLERS, deno_environ, start
from bench.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 200
STREAM_TO_BUFFERED = 2.0
MAPPING_MS = 0.3
BUFFERED, GENERATOR, STREAMIFIED = (
    f"forms.{name}" for name in ("buffered", "generator", "streamified")
)
FETCH, PLAIN = "hono.default", "hono.plain"
EVENT = orjson.dumps(
    {
        "version": "2.0",
        "rawPath": "/hello",
        "rawQueryString": "",
        "headers": {"host": "localhost", "accept": "*/*", "user-agent": "bench"},
        "requestContext": {"http": {"method": "GET", "path": "/hello"}},
        "isBase64Encoded": False,
    }
)


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure each kind of handler ``events`` times."""
    count = events or EVENTS
    forms = (BUFFERED, GENERATOR, STREAMIFIED, FETCH, PLAIN)
    samples_ms: dict[str, list[float]] = {form: [] for form in forms}
    _fetch_packages(scratch)
    async with AsyncExitStack() as stack:
        contestants = {
            form: await stack.enter_async_context(
                start(
                    "ready", scratch, freezes=False, handler=form, warm_up_event=EVENT
                )
            )
            for form in forms
        }
        for _ in range(count):
            for form, contestant in contestants.items():
                response = await contestant.send(EVENT)
                samples_ms[form].append(response.first_piece_s * 1000)
    medians = {form: statistics.median(samples_ms[form]) for form in forms}
    buffered = medians[BUFFERED]
    return [
        *(
            Figure(
                f"forms: first byte, {form.partition('.')[2]} / buffered",
                medians[form] / buffered,
                "x",
                STREAM_TO_BUFFERED,
                count,
                f"{medians[form]:.3f} ms / {buffered:.3f} ms",
            )
            for form in (GENERATOR, STREAMIFIED)
        ),
        Figure(
            "forms: Hono by fetch - by a plain handler",
            medians[FETCH] - medians[PLAIN],
            "ms",
            MAPPING_MS,
            count,
            f"{medians[FETCH]:.3f} ms - {medians[PLAIN]:.3f} ms",
        ),
    ]


def _fetch_packages(scratch: Path) -> None:
    """Fill the cache; only this needs network access, and its settings."""
    environ = {**os.environ, "DENO_DIR": deno_environ(scratch)["DENO_DIR"]}
    program = [DENO, "cache", "--quiet", "--no-config", str(HANDLERS / "hono.mjs")]
    subprocess.run(program, env=environ, check=True)

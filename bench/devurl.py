"""Requests per second to a function URL of ``dev``, over those of the runtime alone.

Several clients, each with one kept-alive connection and a request at all times, against
``dev`` with as many environments. The baseline is the same number of runtimes of the
same kind, started with the same settings, with a Runtime API that responds to each
``next`` at once with the event that ``dev`` would make of such a request. Both stay
started and take turns: while one is measured, the other waits. All responses are
checked. Reproduce with ``python -m bench devurl``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import statistics
import sys
import time
import uuid
from typing import TYPE_CHECKING

from bench.contestants import HANDLERS, environ, forks
from bench.figures import Figure
from lambda_deno_spawn.dev.bench.runtime_api import ACCEPTED, Connection, delivery
from lambda_deno_spawn.dev.bench.ways import Way
from lambda_deno_spawn.dev.devserver.functions import EventForm
from lambda_deno_spawn.dev.devserver.http_events import HttpRequest, event_for
from lambda_deno_spawn.dev.local.runtime import bootstrap_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

AT_ONCE = 4
TURNS = 8
TURN_S = 2.0
# dev must reach half of what the runtimes reach without it.
TARGET = 2.0
LIMIT_S = 60.0  # far longer than any start or turn: something must have broken
WAYS = (Way.FORK.value, Way.SERVER.value)
NAME = "url"
HANDLER = "url.handler"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def run(events: int | None, scratch: Path) -> list[Figure]:
    """Measure each way, ``events`` requests or two seconds in each turn."""
    copies = await forks(scratch)
    ways = [way for way in WAYS if way != Way.FORK.value or copies]
    for way in ways:
        (scratch / way).mkdir()
    return [await _measure(way, events, scratch / way) for way in ways]


async def _measure(way: str, events: int | None, scratch: Path) -> Figure:
    ratios, per_s = [], {"dev": [], "runtime": []}  # type: ignore[var-annotated]
    answered = 0
    async with (
        asyncio.timeout(LIMIT_S * TURNS),
        _dev(way, scratch) as url,
        _runtimes(way, scratch) as runtimes,
    ):
        clients = await Clients.connect(url)
        sides: dict[str, Clients | Runtimes] = {"dev": clients, "runtime": runtimes}
        for side in sides.values():
            await side.warm_up()
        for turn in range(TURNS):
            order = list(sides) if turn % 2 else list(reversed(sides))
            for name in order:
                count, spent_s = await sides[name].turn(events)
                per_s[name].append(count / spent_s)
                answered += count
            ratios.append(per_s["runtime"][-1] / per_s["dev"][-1])
        clients.close()
    dev, runtime = (statistics.median(per_s[name]) for name in ("dev", "runtime"))
    return Figure(
        f"devurl: {way}, runtime / function URL",
        statistics.median(ratios),
        "x",
        TARGET,
        answered,
        f"{runtime:.0f} and {dev:.0f} requests/s, {AT_ONCE} at once",
    )


class Side:
    """One side of the comparison, which gets requests while its turn lasts."""

    def __init__(self) -> None:
        """Expect the first turn."""
        self.is_on = False
        self.answered = 0
        self._in_flight = 0
        self._changed = asyncio.Event()

    async def warm_up(self) -> None:
        """Let every environment start, and Deno compile what it calls often."""
        await self.turn(AT_ONCE * 25)

    async def turn(self, events: int | None) -> tuple[int, float]:
        """Return how many requests were answered, and how long that took."""
        self.answered = 0
        self.is_on = True
        begun_s = time.perf_counter()
        self._begin()
        async with asyncio.timeout(LIMIT_S):
            if events is None:
                failed = asyncio.ensure_future(self._until(lambda: False))
                await asyncio.wait([failed], timeout=TURN_S)
                if failed.done():
                    failed.result()
                failed.cancel()
            else:
                await self._until(lambda: self.answered >= events)
            count, spent_s = self.answered, time.perf_counter() - begun_s
            self.is_on = False
            await self._until(lambda: self._in_flight == 0)
        return count, spent_s

    def _begin(self) -> None:
        raise NotImplementedError

    problem: str | None = None

    def _sent(self) -> None:
        self._in_flight += 1

    def _came(self, found: bytes, expected: bytes) -> None:
        self._in_flight -= 1
        self.answered += 1
        if found != expected and self.problem is None:
            self.problem = f"{found[:500]!r} instead of {expected!r}"
        self._changed.set()

    async def _until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            if self.problem is not None:
                raise RuntimeError(self.problem)
            self._changed.clear()
            await self._changed.wait()


class Runtimes(Side):
    """A Runtime API for several runtimes."""

    def __init__(self) -> None:
        """Have no event in flight."""
        super().__init__()
        self._waiting: list[Connection] = []
        self._expected: dict[bytes, bytes] = {}
        self._count = 0

    def piece_came(self) -> None:
        """Do nothing: no response is streamed."""

    def handle(
        self, connection: Connection, method: bytes, path: bytes, body: bytes
    ) -> None:
        """Send an event, or check a response."""
        if method == b"GET":
            if self.is_on:
                self._deliver(connection)
            else:
                self._waiting.append(connection)
                self._changed.set()
            return
        connection.write(ACCEPTED)
        expected = self._expected.pop(path.split(b"/")[-2], b"")
        self._came(body, expected)

    async def ready(self) -> None:
        """Wait until all runtimes wait for an event."""
        async with asyncio.timeout(LIMIT_S):
            await self._until(lambda: len(self._waiting) == AT_ONCE)

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._deliver(connection)

    def _deliver(self, connection: Connection) -> None:
        self._count += 1
        number = f"n={self._count}"
        request_id = str(uuid.uuid4())
        self._expected[request_id.encode()] = json.dumps(
            {
                "statusCode": 200,
                "headers": {"content-type": "text/plain"},
                "body": number,
            },
            separators=(",", ":"),
        ).encode()
        connection.write(delivery(request_id, _event(number, request_id)))
        self._sent()


def _event(query: str, request_id: str) -> bytes:
    """Return what ``dev`` makes of a client's request."""
    headers = [
        (name.decode().lower(), value.decode())
        for name, _, value in (line.partition(b": ") for line in HEADERS.splitlines())
    ]
    request = HttpRequest(
        method="GET", path="/", query=query, headers=headers, body=b"",
        source_ip="127.0.0.1", port=80, epoch_s=time.time(), request_id=request_id,
    )  # fmt: skip
    return event_for(EventForm.URL, request, NAME)


HEADERS = b"Host: localhost:3000\r\nUser-Agent: bench\r\nAccept: */*\r\n"


class Clients(Side):
    """Clients of a function URL, each with one request at a time."""

    def __init__(self) -> None:
        """Have no connection yet."""
        super().__init__()
        self._clients: list[Client] = []
        self._count = 0

    @classmethod
    async def connect(cls, url: str) -> Clients:
        """Return clients that are connected to a server at ``url``."""
        clients = cls()
        host, _, port = url.removeprefix("http://").partition(":")
        loop = asyncio.get_running_loop()
        for _ in range(AT_ONCE):
            _, client = await loop.create_connection(
                lambda: Client(clients), host, int(port)
            )
            clients._clients.append(client)
        return clients

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _begin(self) -> None:
        for client in self._clients:
            self.request(client)

    def request(self, client: Client) -> None:
        """Have a client send the next request."""
        self._count += 1
        client.send(f"n={self._count}".encode())
        self._sent()

    def came(self, client: Client, found: bytes, expected: bytes) -> None:
        """Note a response."""
        self._came(found, expected)
        if self.is_on:
            self.request(client)


class Client(asyncio.Protocol):
    """A kept-alive connection."""

    def __init__(self, clients: Clients) -> None:
        """Expect no response."""
        self._clients = clients
        self._buffer = b""
        self._query = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._clients.problem = f"dev closed the connection: {error}"

    def send(self, query: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self._query = query
        self._transport.write(b"GET /?%b HTTP/1.1\r\n%b\r\n" % (query, HEADERS))

    def close(self) -> None:
        """Close the connection."""
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length is not None and len(body) < int(length[1])):
            return
        self._buffer = b""
        found = body if head.startswith(b"HTTP/1.1 200 ") else head + body
        self._clients.came(self, found, self._query)


@contextlib.asynccontextmanager
async def _dev(way: str, scratch: Path) -> AsyncIterator[str]:
    """Start ``dev``; yield its URL."""
    folder = scratch / NAME
    folder.mkdir()
    (folder / f"{NAME}.mjs").write_bytes((HANDLERS / f"{NAME}.mjs").read_bytes())
    (folder / "lambda.toml").write_text(f'handler = "{HANDLER}"\nmemory = 1024\n')
    variables = _variables(way, scratch, "")
    command = [
        sys.executable, "-m", "lambda_deno_spawn", "dev", str(folder), "--port", "0",
        "--environments", str(AT_ONCE),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, env=variables, stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    reading = None
    try:
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            first = (await process.stderr.readline()).decode()
        found = re.search(r"http://\S+", first)
        if found is None:
            raise RuntimeError(f"dev said {first!r}")
        # Its log is read, as a terminal would.
        reading = asyncio.create_task(_drain(process.stderr))
        yield found[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        await process.wait()
        if reading is not None:
            await reading


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 20):
        pass


@contextlib.asynccontextmanager
async def _runtimes(way: str, scratch: Path) -> AsyncIterator[Runtimes]:
    """Start the runtimes; yield what gives them events."""
    runtimes = Runtimes()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(runtimes), host="127.0.0.1", port=0
    )
    host, port = server.sockets[0].getsockname()
    processes = []
    try:
        with (scratch / "runtimes.log").open("wb") as log:
            for _ in range(AT_ONCE):
                process = await asyncio.create_subprocess_exec(
                    *bootstrap_command(),
                    env={
                        **_variables(way, scratch, f"{host}:{port}"),
                        "_HANDLER": HANDLER,
                    },
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                processes.append(process)
        await runtimes.ready()
        yield runtimes
    finally:
        server.close()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in processes:
            await process.wait()


def _variables(way: str, scratch: Path, address: str) -> dict[str, str]:
    own = {"LAMBDA_DENO_WARM": "ready", "LAMBDA_DENO_METRICS": "json"}
    return {**environ(way, scratch, address), **own}

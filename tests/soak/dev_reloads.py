"""``dev`` under load while its function is saved: ``python -m tests.soak.dev_reloads``.

Sends requests from several clients for a minute and saves new code every few seconds.
Prints how many were answered, lost, wrong or out of date, what is left of processes and
how memory grew, and the throughput beside that of ``deno serve`` with the same code,
which has one process for all requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.fixtures.ports import free_port
from tests.integration.dev_server import DevServer, write
from tests.integration.harness import deno_binary

CODE = """
const version = %d;
export default {
  fetch(request: Request) {
    const n = new URL(request.url).searchParams.get("n");
    return Response.json({ n, version });
  },
};
"""
# A request that comes so long after a save is to be answered by the new code.
SETTLED_S = 2.0


class Load:
    """Clients that send requests one after another, and check each answer."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self.stale = 0
        self._url = url
        self._saves: list[tuple[float, int]] = []

    def saved(self, version: int) -> None:
        """Note that code was saved."""
        self._saves.append((time.monotonic(), version))

    async def run(self, clients: int, seconds: float) -> float:
        """Send requests; return how many were answered in a second."""
        begun_s = time.monotonic()
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(
            limits=limits, timeout=30, trust_env=False
        ) as client:
            ends_s = begun_s + seconds
            tasks = [self._send(client, n, ends_s) for n in range(clients)]
            await asyncio.gather(*tasks)
        return self.answered / (time.monotonic() - begun_s)

    async def _send(self, client: httpx.AsyncClient, who: int, ends_s: float) -> None:
        count = 0
        while (sent_s := time.monotonic()) < ends_s:
            count += 1
            name = f"{who}-{count}"
            try:
                response = await client.get(self._url, params={"n": name})
                body = response.json() if response.status_code == 200 else None
            except (httpx.HTTPError, ValueError) as error:
                self.lost.append(repr(error))
                continue
            if body is None:
                self.lost.append(f"{response.status_code} {response.text[:200]}")
            elif body["n"] != name:
                self.wrong.append(f"{name}: {body}")
            else:
                self.answered += 1
                due = [v for at_s, v in self._saves if at_s + SETTLED_S < sent_s]
                self.stale += bool(due) and body["version"] < due[-1]


async def with_dev(clients: int, seconds: float, every_s: float) -> dict[str, Any]:
    """Load ``dev``, and save the function all the while."""
    with tempfile.TemporaryDirectory(prefix="lds-") as place:
        folder = write(Path(place), {"function.ts": CODE % 0})
        with DevServer(folder, "--environments", str(clients)) as dev:
            load = Load(f"{dev.url}/")
            await load.run(clients, 2.0)  # environments are started
            process = psutil.Process(dev.process.pid)
            before = process.memory_info().rss
            load.answered = 0
            loading = asyncio.create_task(load.run(clients, seconds))
            version = 0
            while not loading.done():
                await asyncio.wait([loading], timeout=every_s)
                version += 1
                write(folder, {"function.ts": CODE % version})
                load.saved(version)
            rate = await loading
            grown = process.memory_info().rss - before
        return {
            "per_s": round(rate, 1),
            "answered": load.answered,
            "lost": load.lost[:5],
            "wrong": load.wrong[:5],
            "stale": load.stale,
            "saves": version,
            "grown_mb": round(grown / 2**20, 1),
        }


def with_deno_serve(clients: int, seconds: float) -> dict[str, Any]:
    """Load ``deno serve`` with the same code."""
    with tempfile.TemporaryDirectory(prefix="lds-") as place:
        file = write(Path(place), {"function.ts": CODE % 0}) / "function.ts"
        port = free_port()
        command = [deno_binary(), "serve", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            [*command, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            for _ in range(200):
                try:
                    httpx.get(url, trust_env=False)
                    break
                except httpx.ConnectError:
                    time.sleep(0.05)
            load = Load(url)
            rate = asyncio.run(load.run(clients, seconds))
        finally:
            process.kill()
            process.wait()
        return {"per_s": round(rate, 1), "answered": load.answered, "lost": load.lost}


def main() -> int:
    """Run both, print what came of it; 1 if ``dev`` lost or mixed up a request."""
    parser = argparse.ArgumentParser(description=__doc__.split(":", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--every", type=float, default=5.0, help="seconds to a save")
    given = parser.parse_args()
    dev = asyncio.run(with_dev(given.clients, given.seconds, given.every))
    serve = with_deno_serve(given.clients, min(given.seconds, 10.0))
    ratio = dev["per_s"] / serve["per_s"]
    print(json.dumps({"dev": dev, "deno serve": serve, "ratio": round(ratio, 4)}))
    return 1 if dev["lost"] or dev["wrong"] or dev["stale"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""``bench``: a function in every way to serve its events; and the recorded ratios.

No test looks at how long something took, only at what must hold on any machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from lambda_deno_spawn.dev.bench.measure import BenchOptions, measure
from lambda_deno_spawn.dev.bench.sandbox import TreeSandbox
from lambda_deno_spawn.dev.bench.ways import Way
from lambda_deno_spawn.dev.project.function import find_function
from tests.fixtures.command import as_text, run_command
from tests.integration.harness import marked

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MARK_VARIABLE = "LDS_BENCH_TEST"
EVENTS = 10

pytestmark = pytest.mark.deno


@pytest.fixture
def mark() -> Iterator[str]:
    """A value that marks this test's processes; none may be left in the end."""
    value = uuid.uuid4().hex
    yield value
    assert not marked(f"{MARK_VARIABLE}={value}")


def run(mark: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, MARK_VARIABLE: mark}
    return as_text(run_command("bench", *arguments, environ=environ))


def write(folder: Path, source: str) -> Path:
    (folder / "function.mjs").write_text(source, encoding="utf-8")
    return folder


def test_a_function_is_measured_in_every_way(mark: str, tmp_path: Path) -> None:
    svg = tmp_path / "hello.svg"
    done = run(
        mark, ROOT / "examples/hello", "--event", '{"name":"Ada"}', "--events",
        str(EVENTS), "-o", "json", "--svg", svg,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["events"], result["freezer"]) == (EVENTS, freezer())
    ways = {way["way"]: way for way in result["ways"]}
    assert list(ways) == [way.value for way in Way]
    for way in ways.values():
        assert way["ok"], way
        check(way)
    # Both baselines are compared with all.
    for name in ("bare", "poller"):
        base = ways[name]
        for way in ways.values():
            expected = way["latencyMs"]["p50"] / base["latencyMs"]["p50"]
            found = way["ratios"][name]["latency p50"]
            assert found == pytest.approx(expected, rel=0.01, abs=0.001)
    texts = [one.text for one in ElementTree.parse(svg).iter()]
    assert {*ways} <= {*texts}


def freezer() -> str:
    is_possible = os.geteuid() == 0 and any(
        line.split()[2] == "cgroup2" and os.access(line.split()[1], os.W_OK)
        for line in Path("/proc/self/mounts").read_text().splitlines()
    )
    return "cgroup" if is_possible else "signals"


def check(way: dict[str, Any]) -> None:
    """Check what must hold for any measurement."""
    for spread in (way["latencyMs"], way["billedMs"]):
        assert 0 < spread["p50"] <= spread["p99"]
    assert way["billedMs"]["p50"] >= way["latencyMs"]["p50"]
    assert way["peakMemoryMb"] > 1
    assert (way["firstNextMs"] is None) == (way["way"] == "bare")
    assert way["firstAnswerMs"] > (way["firstNextMs"] or 0)
    costs = way["dollarsPerMillion"]
    assert [one["memoryMb"] for one in costs] == [128, 512, 1769]
    assert costs[0]["measured"] < costs[1]["measured"] < costs[2]["measured"]
    assert all(one["throttled"] >= one["measured"] > 0.2 for one in costs)
    assert way["note"] is None


@pytest.mark.long
async def test_a_way_that_cannot_be_run_says_why_and_the_others_go_on(
    tmp_path: Path, mark: str
) -> None:
    (tmp_path / "f").mkdir()
    source = """
        const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        export function handler(event, context) {
          console.log(listener.addr.port, event.n, context.awsRequestId.length);
          if (Deno.env.get("HOME") === undefined) throw new Error("no HOME");
          return new Promise((resolve) => setTimeout(() => resolve(event), 2));
        }
    """
    function = find_function(write(tmp_path / "f", source))
    options = BenchOptions(function, b'{"n":1}', EVENTS, starts=1)
    environ = {**os.environ, MARK_VARIABLE: mark}
    scratch = tmp_path / "s"
    scratch.mkdir()
    # As on a machine without control groups.
    results = await measure(
        options, environ, scratch, sandbox_of=lambda _label: TreeSandbox()
    )
    assert results.freezer == "signals"
    reasons = {one.way: one.reason for one in results.refused}
    assert set(reasons) <= {Way.FORK, Way.SERVER}  # the path of a socket has a limit
    assert "has a socket" in reasons[Way.FORK]
    measured = {one.way: one for one in results.measured}
    assert set(measured) == set(Way) - set(reasons)
    for one in measured.values():
        assert len(one.samples) == EVENTS
        assert all(0 < each.latency_s <= each.billed_s for each in one.samples)
        assert all(each.cpu_s >= 0 for each in one.samples)


def test_a_function_that_fails_ends_the_command_with_its_error(
    mark: str, tmp_path: Path
) -> None:
    source = 'export const handler = () => { throw new RangeError("none left"); };'
    write(tmp_path, source)
    done = run(mark, tmp_path, "--events", "10", "--way", "exec", "--way", "bare")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.endswith(
        "The function failed: RangeError: none left; the event was {}, give another "
        "by --event\n"
    )
    assert "Cannot measure bare: it exited 1: Uncaught " in done.stderr
    assert "RangeError: none left" in done.stderr.partition("Cannot measure bare")[2]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--events", "0"], "Cannot measure 0 events: too few for percentiles; give "
         "--events 10 or more"),
        (["--events", "9"], "Cannot measure 9 events: too few"),
        (["--events", "some"], "Invalid value for '--events'"),
        (["--way", "copy"], "'copy' is not one of 'fork', 'exec', 'reuse', 'server', "
         "'poller', 'bare'"),
        (["--event", "{"], "Cannot use the event from --event: it is not JSON"),
        (["--svg", "nowhere/f.svg"], "Cannot write 'nowhere/f.svg': its folder does "
         "not exist"),
        (["--handler", "function"], "Cannot use handler 'function'"),
        (["--timeout", "0"], "Cannot use --timeout 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    mark: str, arguments: list[str], problem: str
) -> None:
    done = run(mark, ROOT / "examples/hello", *arguments)
    assert done.returncode == (1 if "--handler" in arguments else 2)
    assert done.stdout == ""
    assert problem in " ".join(done.stderr.replace("│", " ").split())


def test_a_function_that_is_not_there_is_refused(mark: str) -> None:
    done = run(mark, "nowhere", "--events", "10")
    assert done.returncode == 2
    assert done.stderr.startswith("Cannot find function 'nowhere'")


@pytest.mark.long
def test_ratios_are_compared_with_the_recorded_ones(tmp_path: Path) -> None:
    figures, ratios = tmp_path / "figures.json", tmp_path / "ratios.json"
    figure = {"name": "cpu: off / bare deno run", "measured": 1.5, "unit": "x"}
    figures.write_text(json.dumps([figure, {**figure, "name": "ms", "unit": "ms"}]))

    def checked(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.check", "--from", str(figures)]
        return subprocess.run(
            [*command, "--ratios", str(ratios), *more],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert checked("--record").returncode == 0
    figures.write_text(json.dumps([{**figure, "measured": 3.0}]))
    done = checked()
    assert done.returncode == 1
    assert (
        "cpu: off / bare deno run  3         1.5       1.88       WORSE" in done.stdout
    )

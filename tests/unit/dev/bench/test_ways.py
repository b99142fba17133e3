"""The ways: settings that the runtime accepts, programs that name the handler."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.config import Metrics, Settings, Start, Strategy
from lambda_deno_spawn.dev.bench.contestant import error_text
from lambda_deno_spawn.dev.bench.measure import BenchOptions, copies_in
from lambda_deno_spawn.dev.bench.ways import (
    COLD_SETTINGS,
    DESCRIPTIONS,
    SETTINGS,
    Way,
    bare_source,
    poller_source,
)
from lambda_deno_spawn.dev.project.function import Function
from lambda_deno_spawn.launch.handler import Handler
from lambda_deno_spawn.serving.metrics import Measures, ReportForm, report_line

HANDLER = Handler('/task/it\'s "odd".ts', "api.get")


def settings(way: Way) -> Settings:
    environ = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "_HANDLER": "function.handler"}
    # A project's own choice does not count.
    chosen = {"LAMBDA_DENO_START": "auto", "LAMBDA_DENO_MAX_INVOCATIONS": "7"}
    return Settings.from_environ({**environ, **chosen, **SETTINGS[way]}, "/task")


@pytest.mark.parametrize(
    ("way", "start", "strategy", "invocations"),
    [
        (Way.FORK, Start.FORK, Strategy.FRESH, 1),
        (Way.EXEC, Start.EXEC, Strategy.FRESH, 1),
        (Way.REUSE, Start.EXEC, Strategy.FRESH, 1_000_000),
        (Way.SERVER, Start.EXEC, Strategy.SERVER, 0),
    ],
)
def test_a_way_is_what_its_settings_choose(
    way: Way, start: Start, strategy: Strategy, invocations: int
) -> None:
    chosen = settings(way)
    assert (chosen.start, chosen.strategy) == (start, strategy)
    assert chosen.invocations == invocations


def test_every_way_is_described_and_every_one_of_ours_has_settings() -> None:
    assert set(DESCRIPTIONS) == set(Way)
    ours = {way for way in Way if not way.is_baseline}
    assert set(SETTINGS) == set(COLD_SETTINGS) == ours


def test_a_baseline_imports_the_handler_by_a_literal() -> None:
    url = "file:///task/it's%20%22odd%22.ts"
    assert f'import("{url}"), "api.get");' in poller_source(HANDLER)
    source = bare_source(HANDLER, Path("/scratch/event.json"))
    assert f'import("{url}"), "api.get", "file:///scratch/event.json", 0);' in source


@pytest.mark.parametrize(
    ("events", "warm_up"), [(10, 5), (25, 5), (50, 10), (100, 20), (5000, 20)]
)
def test_more_events_are_warmed_up_longer(events: int, warm_up: int) -> None:
    options = BenchOptions(Function(Path("/task"), "function.handler"), events=events)
    assert options.warm_up == warm_up


def written(start: str) -> str:
    """Return the line that the runtime writes about an event."""
    measures = Measures("id", None, "success", 0.0, 0.0, 2, 2, start=start)
    line = report_line(measures, ReportForm(Metrics.JSON), "2026-11-25T08:08:42Z", 0)
    return line.decode()


def test_events_that_were_served_by_copies_are_counted() -> None:
    lines = [written(start) for start in ("exec", "exec", "fork", "exec", "fork")]
    assert copies_in("\n".join(lines), 3) == (2, None)
    assert copies_in("\n".join(lines), 5) == (2, None)


@pytest.mark.parametrize(
    "phrase",
    ["Events are served by processes of their own start: ", "Replacing the template: "],
)
def test_why_an_event_was_not_served_by_a_copy_is_in_the_log(phrase: str) -> None:
    source = Path(__file__).parents[4] / "src/lambda_deno_spawn/serving/template.py"
    assert phrase in source.read_text(encoding="utf-8")
    log = f"INFO\t{phrase}an old reason\nINFO\t{phrase}it has ended\nINFO\tmore"
    assert copies_in(log, 3) == (0, "it has ended")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"errorType":"TypeError","errorMessage":"no\\nmore"}', "TypeError: no"),
        (b'{"errorMessage":"alone"}', "alone"),
        (b"{}", "an error without a description"),
        (b"[1]", "[1]"),
        (b"no JSON", "no JSON"),
        (b"", "an error without a description"),
    ],
)
def test_an_error_is_one_line(body: bytes, text: str) -> None:
    assert error_text(body) == text

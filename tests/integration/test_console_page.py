"""The console page of ``dev``, in a browser.

A machine without Chromium skips these tests: CONTRIBUTING.md says how to have one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.fixtures.command import run_command
from tests.fixtures.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make install"
)

pytestmark = pytest.mark.deno

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<img src=x onerror='document.title=1'><script>document.title=2</script>"
SOURCE = """\
export async function handler(event: any) {
  console.log("began", event.text ?? "");
  if (event.until) while (!exists(event.until)) await pause();
  for (const gate of event.gates ?? []) {
    while (!exists(gate)) await pause();
    console.log("passed");
  }
  if (event.fails) throw new RangeError(`failed ${event.text ?? ""}`);
  return { said: event.text ?? "nothing" };
}
const pause = () => new Promise((resolve) => setTimeout(resolve, 10));
function exists(path: string) {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
"""
LIMIT_MS = 120_000


@dataclass
class Served:
    """A running ``dev``.

    Attributes:
        folder: Of the function, which may read it.
        state: Where recordings go.
    """

    url: str
    folder: Path
    state: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve one function; in the end nothing of it is left."""
    root = tmp_path_factory.mktemp("console")
    folder, state = root / "echo", root / "state"
    (folder / "events").mkdir(parents=True)
    (folder / "function.ts").write_text(SOURCE)
    (folder / "lambda.toml").write_text('name = "echo"\ntimeout = 300\n')
    (folder / "events" / "hello.json").write_text('{"text":"hello"}')
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "lambda_deno_spawn", "dev", folder,
         "--port", str(port), "--record", "failures"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "XDG_STATE_HOME": str(state)},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(
            transport=httpx.HTTPTransport(), timeout=LIMIT_MS / 1000
        ) as client:
            while process.poll() is None:
                with contextlib.suppress(httpx.ConnectError):
                    client.get(f"{url}/_/api/state")
                    break
                time.sleep(0.05)
        yield Served(url, folder, state)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LIMIT_MS / 1000)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: CONTRIBUTING.md has how")
    sync_api.expect.set_options(timeout=LIMIT_MS)
    with sync_api.sync_playwright() as playwright:
        # Its own sandbox cannot be set up by root, as whom containers run.
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """The page, live; it may load nothing from elsewhere and say nothing wrong."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(LIMIT_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def note(message: Any) -> None:
        if message.type == "error":
            wrong.append(message.text)

    page.on("console", note)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served.url}/_/")
    page.wait_for_selector(".connection.live")
    page.wait_for_selector("#page[aria-busy=false]")
    yield page
    page.close()
    assert wrong == []
    assert all(url.startswith(f"{served.url}/_/") for url in asked)


def send(page: Any, event: object) -> None:
    """Send an event; return once the page shows it in place of another one."""
    shown = page.locator("#details .id")
    before = shown.inner_text() if shown.count() else "none"
    page.fill("#event", json.dumps(event))
    page.press("#event", "Control+Enter")
    sync_api.expect(shown).not_to_have_text(before, timeout=LIMIT_MS)


def section(page: Any, title: str) -> Any:
    return page.locator(f"#details section[aria-label='{title}']")


def ended(page: Any) -> None:
    """Wait until the chosen request is over, as its button tells."""
    page.wait_for_selector("#record")


def test_an_event_is_sent_and_everything_about_it_shown_by_keyboard_alone(
    page: Any,
) -> None:
    # The first sample is in the field; its button follows it.
    expect = sync_api.expect
    expect(page.locator("#event")).to_have_value('{\n  "text": "hello"\n}')
    page.focus("#sample")
    page.keyboard.press("Tab")
    expect(page.locator("#event")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    ended(page)
    expect(section(page, "Result")).to_contain_text('"said": "hello"')
    expect(section(page, "Log")).to_contain_text("began hello")
    expect(section(page, "Event")).to_contain_text('"text": "hello"')
    expect(section(page, "Timeline")).to_contain_text("until the answer")
    process = section(page, "Process")
    expect(process).to_contain_text("Was ready before the event")
    expect(process).to_contain_text("Memory of the process")
    expect(process).to_contain_text("0 processes, 0 files")
    # Arrows go through the requests, Escape closes one.
    send(page, {"text": "second"})
    expect(section(page, "Event")).to_contain_text("second")
    ended(page)
    first = page.locator("#requests button").first
    first.focus()
    page.keyboard.press("ArrowDown")
    below = page.locator("#requests button").nth(1).get_attribute("data-id")
    expect(page.locator(f"button[data-id='{below}']")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"button[data-id='{below}'][aria-current=true]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#details .empty")


def test_a_log_is_live_and_a_failure_can_be_sent_again(
    page: Any, served: Served
) -> None:
    gate = served.folder / "gate.log"  # a name that is not watched
    send(page, {"text": "waits", "until": str(gate), "fails": True})
    page.wait_for_selector("#log >> text=began waits")
    sync_api.expect(page.locator("#details .mark")).to_have_text("runs")
    gate.write_text("")
    ended(page)
    gate.unlink()
    sync_api.expect(section(page, "Result")).to_contain_text("RangeError: failed waits")
    sync_api.expect(section(page, "Result")).to_contain_text("function.ts:8")
    gate.write_text("")
    page.click("#again")
    page.wait_for_selector("#details .title >> text=sent again")
    ended(page)
    gate.unlink()


# The next details that are asked for reach the page after a line that is newer.
LATE_DETAILS = """\
globalThis.late = { isWanted: false, isHeld: false };
const arrived = new Promise((resolve) => {
  const Source = EventSource;
  globalThis.EventSource = class extends Source {
    constructor(url) {
      super(url);
      this.addEventListener("log", ({ data }) => {
        if (data.includes("passed")) setTimeout(resolve);
      });
    }
  };
});
const ask = fetch;
globalThis.fetch = async (url, options) => {
  const response = await ask(url, options);
  if (!late.isWanted || !/requests\\/[^/]+$/.test(url)) return response;
  const details = await response.json();
  late = { isWanted: false, isHeld: true };
  await arrived;
  return Response.json(details);
};
"""


def test_a_line_that_comes_before_older_details_is_shown(
    page: Any, served: Served
) -> None:
    gates = [served.folder / name for name in ("first.log", "second.log")]
    page.add_init_script(LATE_DETAILS)
    page.reload()
    page.wait_for_selector("#page[aria-busy=false]")
    send(page, {"text": "early", "gates": [str(gate) for gate in gates]})
    page.wait_for_selector("#log >> text=began early")
    page.evaluate("late.isWanted = true")
    page.locator("#requests button").first.click()
    page.wait_for_function("late.isHeld")
    gates[0].write_text("")
    page.wait_for_selector("#log >> text=passed")
    assert page.locator("#details .mark").inner_text() == "runs"
    gates[1].write_text("")
    ended(page)
    assert section(page, "Log").inner_text().count("passed") == 2


def test_an_item_stays_in_the_list_when_others_come(page: Any) -> None:
    """A click is lost if what is under it is replaced meanwhile."""
    for text in ("stays", "comes"):
        send(page, {"text": text})
        ended(page)
        if text == "stays":
            page.evaluate("kept = document.querySelector('#requests li')")
            page.evaluate("one = document.querySelector('#functions button')")
    assert page.evaluate("kept === document.querySelectorAll('#requests li')[1]")
    assert page.evaluate("one === document.querySelector('#functions button')")
    assert page.evaluate("kept.querySelector('[aria-current]') === null")


def test_hostile_text_is_shown_and_never_run(page: Any) -> None:
    title = page.title()
    for event in ({"text": HOSTILE}, {"text": HOSTILE, "fails": True}):
        send(page, event)
        page.wait_for_selector("#log >> text=began <img")
        ended(page)
        sync_api.expect(section(page, "Result")).to_contain_text("<img src=x")
    assert page.locator("main img, main script").count() == 0
    assert page.title() == title


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 900, 1440])
def test_it_fits_every_width_in_both_schemes(
    page: Any, width: int, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    send(page, {"text": "x" * 300, "fails": True})
    page.wait_for_selector("#log")
    ended(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) is (scheme == "dark")
    if width == 400:
        page.click("#back")
        page.wait_for_selector("#requests button >> visible=true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_event_that_is_no_json_is_not_sent(page: Any) -> None:
    before = page.locator("#requests button").count()
    page.fill("#event", '{"a":')
    page.press("#event", "Control+Enter")
    sync_api.expect(page.locator("#event-problem")).to_contain_text("Not JSON")
    sync_api.expect(page.locator("#event")).to_have_attribute("aria-invalid", "true")
    assert page.locator("#requests button").count() == before


def test_a_request_is_recorded_and_replayed(page: Any, served: Served) -> None:
    send(page, {"text": "kept", "password": "hunter22"})
    ended(page)
    page.click("#record")
    page.wait_for_selector("#action-note >> text=Recorded:")
    file = Path(page.locator("#action-note").inner_text().removeprefix("Recorded: "))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "hunter22" not in file.read_text()
    assert file.is_relative_to(served.state)
    done = run_command("replay", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"Same outcome as recorded: success\n"


def test_dev_records_failures_by_itself(page: Any, served: Served) -> None:
    send(page, {"text": "unseen"})
    ended(page)
    send(page, {"text": "broken", "fails": True})
    page.wait_for_selector("#details .mark.bad")
    ended(page)
    request_id = page.locator("#details .id").inner_text().rpartition(" ")[2]
    page.wait_for_selector(f"#notices >> text={request_id[:8]} is recorded in")
    (file,) = served.state.rglob(f"*-{request_id}.json")
    form = json.loads(file.read_bytes())
    assert form["outcome"]["status"] == "RangeError"
    assert form["process"]["start"] in ("exec", "fork")
    assert "began broken" in form["log"]
    assert not any(
        "unseen" in path.read_text() for path in served.state.rglob("*.json")
    )
    environ = {**os.environ, "XDG_STATE_HOME": str(served.state)}
    done = run_command("replay", request_id, environ=environ)
    assert done.stdout == b"Same outcome as recorded: RangeError\n"
    assert done.returncode == 0


def test_other_origins_get_nothing(served: Served) -> None:
    with httpx.Client(timeout=LIMIT_MS / 1000, trust_env=False) as client:
        evil = {"Origin": "http://evil.example"}
        for path in ("/_/", "/_/api/state", "/_/api/changes"):
            assert client.get(served.url + path, headers=evil).status_code == 403
        url = f"{served.url}/_/api/functions/echo/send"
        assert client.post(url, content="{}", headers=evil).status_code == 403
        response = client.get(f"{served.url}/_/")
        policy = response.headers["content-security-policy"]
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'"
        )
        assert "unsafe" not in policy
        assert client.post(url, content="{").status_code == 400
        assert client.get(f"{served.url}/_/api/requests/none").status_code == 404

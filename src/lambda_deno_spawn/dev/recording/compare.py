"""Differences between two runs of one invocation.

Knows which of them count: outcome, error, HTTP status, result and, if asked for, the
log. Times, memory and the frames of a stack may differ. Does not know how an invocation
is run.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.recording.redaction import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DIFFERENCES_LIMIT = 20
SHOWN_LIMIT = 200  # characters of one value
MISSING = "(nothing)"
SIGNS = {"\n": "\u21b5", "\t": " "}
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
PLATFORM = re.compile(r"(?:START|END|REPORT|INIT_START) |\(The process for the next ")
OF_RUNTIME = re.compile(r"\S+Z\t-\t")  # outside of any invocation
# Members of an error that depend on the machine, not on the function.
ERROR_MEMBERS_LEFT_OUT = ("stackTrace", "logTail", "trace", "cause")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.

    Attributes:
        what: A name, or a path in the result.
        recorded: The old value, shortened.
        replayed: The new one, shortened.
    """

    what: str
    recorded: str
    replayed: str


def compare(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any], *, with_log: bool = False
) -> list[Difference]:
    """Return the first few differences between two recordings of one event."""
    before, after = recorded["outcome"], replayed["outcome"]
    found: list[Difference] = []

    def look(what: str, old: object, new: object) -> None:
        if old != new:
            found.append(Difference(what, _shown(old), _shown(new)))

    look("outcome", before["kind"], after["kind"])
    if before["status"] != after["status"]:
        look("error type", _status(before), _status(after))
    if before["kind"] != after["kind"]:
        look("error message", _message(before), _message(after))
    old_body, new_body = _body(before), _body(after)
    look("HTTP status", _http_status(before, old_body), _http_status(after, new_body))
    if before.get("http") and after.get("http"):
        # A request to `dev` has a known status only.
        known = {k: v for k, v in after["http"].items() if k in before["http"]}
        found += _differences(
            "HTTP", _without_status(before["http"]), _without_status(known)
        )
    if before["kind"] == after["kind"]:
        try:
            found += _payload(before, after, old_body, new_body)
        except RecursionError:  # nested as deeply as JSON may be
            look("result", before.get("payload"), after.get("payload"))
    if with_log and recorded.get("log") is not None:
        found += _log(recorded, replayed)
    return found[:DIFFERENCES_LIMIT]


def _payload(
    before: Mapping[str, Any], after: Mapping[str, Any], old: Any, new: Any
) -> Iterator[Difference]:
    if before.get("payload") is None or after.get("payload") is None:
        # It was too long, or streamed: its size is all there is.
        sizes = before.get("payloadBytes"), after.get("payloadBytes")
        if before["kind"] == "response" and sizes[0] != sizes[1]:
            yield Difference("bytes of the result", str(sizes[0]), str(sizes[1]))
        return
    if before["kind"] == "error":
        yield from _differences("error", _lasting(old), _lasting(new))
    else:
        yield from _differences("result", _without_status(old), _without_status(new))


def _lasting(error: Any) -> Any:
    if not isinstance(error, dict):
        return error
    return {
        k: v
        for k, v in error.items()
        if k not in (*ERROR_MEMBERS_LEFT_OUT, "errorType")
    }


def _without_status(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if name != "statusCode"}


def _status(outcome: Mapping[str, Any]) -> str:
    return "none" if outcome["status"] == "success" else str(outcome["status"])


def _message(outcome: Mapping[str, Any]) -> object:
    body = _body(outcome) if outcome["kind"] == "error" else None
    return body.get("errorMessage") if isinstance(body, dict) else body


def _http_status(outcome: Mapping[str, Any], body: Any) -> object:
    for source in (outcome.get("http"), body):
        if isinstance(source, dict) and isinstance(source.get("statusCode"), int):
            return source["statusCode"]
    return None


def _body(outcome: Mapping[str, Any]) -> Any:
    """Return the payload: as JSON if it is JSON, else as text or bytes."""
    data = body_bytes(outcome.get("payload"))
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode(errors="backslashreplace")


def body_bytes(body: Mapping[str, str] | None) -> bytes | None:
    """Return the bytes of an event or a payload; None: it was not kept."""
    if body is None:
        return None
    if "text" in body:
        return body["text"].encode(errors="surrogatepass")
    return base64.b64decode(body["base64"])


def _differences(path: str, old: Any, new: Any) -> Iterator[Difference]:
    """Yield the differences of two JSON values; secrets do not count."""
    if type(old) is type(new) and isinstance(old, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{path}.{name}"
            if name not in new:
                yield Difference(inner, _shown(old[name]), MISSING)
            elif name not in old:
                yield Difference(inner, MISSING, _shown(new[name]))
            else:
                yield from _differences(inner, old[name], new[name])
    elif type(old) is type(new) and isinstance(old, list):
        for index in range(max(len(old), len(new))):
            inner = f"{path}[{index}]"
            if index >= len(new):
                yield Difference(inner, _shown(old[index]), MISSING)
            elif index >= len(old):
                yield Difference(inner, MISSING, _shown(new[index]))
            else:
                yield from _differences(inner, old[index], new[index])
    elif isinstance(old, str) and isinstance(new, str):
        # JSON in a text, as the body of an HTTP response, is compared as JSON.
        inner_old, inner_new = _embedded(old), _embedded(new)
        if inner_old is not None and inner_new is not None:
            yield from _differences(path, inner_old, inner_new)
        elif old != new and MARK not in old:
            yield Difference(path, _shown(old), _shown(new))
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield Difference(path, _shown(old), _shown(new))


def _embedded(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _log(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any]
) -> Iterator[Difference]:
    old = log_lines(str(recorded["log"]), recorded["requestId"])
    new = log_lines(str(replayed.get("log") or ""), replayed["requestId"])
    for number in range(max(len(old), len(new))):
        before = old[number] if number < len(old) else MISSING
        after = new[number] if number < len(new) else MISSING
        if before != after:
            yield Difference(f"log line {number + 1}", _cut(before), _cut(after))


def log_lines(log: str, request_id: str) -> list[str]:
    """Return a function's own log lines, without times and ids."""
    return [
        TIME.sub("", line).replace(request_id, "").strip()
        for line in log.splitlines()
        if line.strip() and not PLATFORM.match(line) and not OF_RUNTIME.match(line)
    ]


def _shown(value: object) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cut(text)


def _cut(text: str) -> str:
    """Return text for one line of a terminal."""
    shown = "".join(SIGNS.get(c, c if c.isprintable() else "\ufffd") for c in text)
    return shown if len(shown) <= SHOWN_LIMIT else f"{shown[:SHOWN_LIMIT]}\u2026"

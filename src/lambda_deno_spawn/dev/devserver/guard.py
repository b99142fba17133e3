"""Who may send a request to ``dev``: this machine's tools, and pages it serves itself.

Any page in a browser can send requests to a port of the machine it runs on. So a
request is refused if its ``Host`` does not name this machine (DNS rebinding), or if the
browser says that a page of another origin sent it. Tools send neither ``Origin`` nor
``Sec-Fetch-Site``. Does not know what is asked for, but that some paths are our own.

Specification: Fetch Standard, "Origin header"; W3C "Fetch Metadata Request Headers".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Names that no name server can point elsewhere: RFC 6761, "localhost".
LOCAL_NAME = re.compile(r"(?:[a-z0-9_-]+\.)*localhost\.?")
LOCAL_ADDRESSES = frozenset({"127.0.0.1", "::1"})
ANY_ORIGIN = "*"


def refusal(
    headers: Mapping[str, str],
    *,
    method: str,
    is_own: bool,
    allowed_origins: Collection[str] = (),
) -> str | None:
    """Return why a request is refused, and what to do; None if it may pass.

    Args:
        headers: Headers of the request, names in lower case.
        method: HTTP method.
        is_own: The path belongs to ``dev`` or the Lambda API, not to a function.
        allowed_origins: Further origins whose pages may call functions.
    """
    host = headers.get("host", "")
    if not is_local(host):
        return (
            f"Cannot answer for the host {host!r}: dev answers only requests to "
            "127.0.0.1, localhost and names below it"
        )
    origin = headers.get("origin")
    if origin is not None:
        is_allowed = not is_own and (
            origin in allowed_origins or ANY_ORIGIN in allowed_origins
        )
        if is_allowed or _is_same(origin, host):
            return None
        return _foreign(origin, is_own=is_own)
    site = headers.get("sec-fetch-site", "none")
    if site in ("none", "same-origin"):
        return None
    if not is_own and (ANY_ORIGIN in allowed_origins or _follows_link(headers, method)):
        return None
    return _foreign("another origin", is_own=is_own)


def is_local(host: str) -> bool:
    """Return whether a ``Host`` header names this machine."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.netloc != host or "@" in host:
        return False
    return name in LOCAL_ADDRESSES or LOCAL_NAME.fullmatch(name) is not None


def names_function(host: str) -> bool:
    """Return whether a ``Host`` header names a function: ``NAME.localhost``."""
    name = host.lower().partition(":")[0].rstrip(".")
    return name.endswith(".localhost")


def _is_same(origin: str, host: str) -> bool:
    return origin.lower() == f"http://{host.lower()}"


def _follows_link(headers: Mapping[str, str], method: str) -> bool:
    """Return whether a person followed a link, or came back from a sign-in elsewhere.

    The page that has the link does not see the response.
    """
    return (
        method in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _foreign(origin: str, *, is_own: bool) -> str:
    advice = (
        "only its own pages and tools may use this path"
        if is_own
        else f"if the page is yours, start dev with --allow-origin {origin}"
        if origin.startswith("http")
        else "if the page is yours, start dev with --allow-origin and its origin"
    )
    return f"Cannot let a page of {origin} send requests to dev: {advice}"

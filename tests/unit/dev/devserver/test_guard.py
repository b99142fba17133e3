"""The guard: hosts and origins that may send requests."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.devserver.guard import (
    is_local,
    names_function,
    refusal,
)

LOCAL = {"host": "localhost:3000"}
LINK = {
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:3000",
        "LOCALHOST:1",
        "localhost.:80",
        "127.0.0.1",
        "127.0.0.1:3000",
        "[::1]:3000",
        "orders.localhost:3000",
    ],
)
def test_names_of_this_machine_are_local(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "127.0.0.2",
        "notlocalhost",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost:x",
        "localhost/path",
        "localhost#x",
        "[::1",
        "0.0.0.0",
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not is_local(host)
    assert refusal({"host": host}, method="GET", is_own=False) is not None


@pytest.mark.parametrize(
    ("headers", "method", "functions", "own"),
    [
        ({}, "POST", True, True),
        ({"origin": "http://localhost:3000"}, "POST", True, True),
        ({"sec-fetch-site": "same-origin"}, "GET", True, True),
        ({"sec-fetch-site": "none"}, "GET", True, True),
        ({"origin": "https://localhost:3000"}, "POST", False, False),
        ({"origin": "http://localhost:3001"}, "POST", False, False),
        ({"origin": "http://127.0.0.1:3000"}, "POST", False, False),
        ({"origin": "http://evil.example"}, "GET", False, False),
        ({"origin": "null"}, "POST", False, False),
        ({"origin": ""}, "POST", False, False),
        ({"sec-fetch-site": "cross-site"}, "GET", False, False),
        ({"sec-fetch-site": "same-site"}, "GET", False, False),
        (LINK, "GET", True, False),
        (LINK, "POST", False, False),
        ({**LINK, "sec-fetch-dest": "iframe"}, "GET", False, False),
        ({"origin": "http://friend.example"}, "POST", True, False),
    ],
)
def test_pages_of_other_origins_are_refused(
    headers: dict[str, str], method: str, functions: bool, own: bool
) -> None:
    def passes(*, is_own: bool) -> bool:
        problem = refusal(
            {**LOCAL, **headers},
            method=method,
            is_own=is_own,
            allowed_origins=["http://friend.example"],
        )
        return problem is None

    assert (passes(is_own=False), passes(is_own=True)) == (functions, own)


def test_every_origin_can_be_allowed_but_not_for_what_is_our_own() -> None:
    headers = {**LOCAL, "origin": "https://any.example"}
    allowed = {"method": "POST", "allowed_origins": ["*"]}
    assert refusal(headers, is_own=False, **allowed) is None  # type: ignore[arg-type]
    assert refusal(headers, is_own=True, **allowed) is not None  # type: ignore[arg-type]


def test_a_refusal_says_what_to_do() -> None:
    headers = {**LOCAL, "origin": "http://localhost:5173"}
    problem = refusal(headers, method="POST", is_own=False)
    assert problem is not None
    assert "--allow-origin http://localhost:5173" in problem


def test_names_below_localhost_are_those_of_functions() -> None:
    assert names_function("orders.localhost:3000")
    assert not names_function("localhost:3000")
    assert not names_function("127.0.0.1")

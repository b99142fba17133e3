"""When credentials are fetched, and what is taken for some."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial

import pytest

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.errors import RefusedError
from lambda_deno_spawn.launch.variables import handed_on
from lambda_deno_spawn.serving.credentials import Credentials, CredentialsKeeper

URI = "http://127.0.0.1:9001/2021-04-23/credentials"
NOW_EPOCH_S = 1_795_000_000.0
HOUR_S = 3600.0


def keys(name: str = "a", **more: object) -> bytes:
    members = {"AccessKeyId": name, "SecretAccessKey": "secret", "Token": "session"}
    return json.dumps({**members, **more}).encode()


@dataclass(slots=True)
class FakeSource:
    """Sends what it is told to, in turn; an error is raised."""

    answers: list[bytes | Exception]
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def credentials(self, uri: str, token: str) -> bytes:
        """Fetch them."""
        self.asked.append((uri, token))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("expiration", "expires_epoch_s"),
    [
        ("2026-11-18T14:26:40Z", 1_795_012_000.0),
        ("2026-11-18T15:26:40.5+01:00", 1_795_012_000.5),
        ("2026-11-18T14:26:40.123456789Z", 1_795_012_000.123456),
        ("2026-11-18T14:26:40", 1_795_012_000.0),
        (None, None),
    ],
)
def test_an_expiration_is_unix_time(
    expiration: str | None, expires_epoch_s: float | None
) -> None:
    found = Credentials.from_json(keys(Expiration=expiration))
    assert found.expires_epoch_s == expires_epoch_s
    assert found.variables == {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "session",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 2000,
        keys(Token=None),
        keys(Token=""),
        keys(Token=["session"]),
        keys(Token="session\0"),
        keys(Token="s\u00e9ance"),
        keys(Expiration="soon"),
        keys(Expiration=5),
    ],
)
def test_anything_else_is_no_credentials_and_is_not_quoted(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the answer holds no credentials$"):
        Credentials.from_json(body)


def test_no_secret_is_in_what_is_printed() -> None:
    assert "secret" not in repr(Credentials.from_json(keys()))


@pytest.mark.parametrize(
    ("left_s", "needed_s", "lasts"),
    [(60, 59, True), (60, 60, False), (60, 61, False), (None, 1e9, True)],
)
def test_credentials_last_until_they_expire(
    left_s: float | None, needed_s: float, lasts: bool
) -> None:
    expires = None if left_s is None else NOW_EPOCH_S + left_s
    assert Credentials({}, expires).lasts(needed_s, NOW_EPOCH_S) is lasts


async def test_they_are_fetched_when_they_do_not_last_long_enough() -> None:
    at = "2026-11-18T12:06:40Z"  # an hour later
    source = FakeSource([keys("first", Expiration=at), keys("second")])
    kept = CredentialsKeeper(source, URI, "token", dict, lambda: NOW_EPOCH_S)
    names = []
    for needed_s in (0, HOUR_S - 1, HOUR_S, 1e9):
        await kept.refresh(needed_s)
        assert kept.current is not None
        names.append(kept.current.variables["AWS_ACCESS_KEY_ID"])
    assert names == ["first", "first", "second", "second"]
    assert source.asked == [(URI, "token")] * 2
    kept.forget()
    assert kept.current is None


@pytest.mark.parametrize(
    "failure",
    [RefusedError("credentials", 404, "gone"), b"{}"],
    ids=["refused", "malformed"],
)
async def test_those_that_there_were_stay_if_no_others_come(
    failure: bytes | Exception,
) -> None:
    source = FakeSource([keys("first", Expiration="2020-01-01T00:00:00Z"), failure])
    kept = CredentialsKeeper(source, URI, "", dict)
    await kept.refresh(0.0)
    before = kept.current
    await kept.refresh(0.0)
    assert kept.current is before
    assert before is not None
    assert source.answers == []


@pytest.mark.parametrize("names", [(), ("*",), ("TABLE", "AWS_*")])
async def test_those_that_no_process_may_have_are_not_fetched(
    names: tuple[str, ...],
) -> None:
    source = FakeSource([])
    settings = Settings("", "", "", env_names=names)
    kept = CredentialsKeeper(source, URI, "", partial(handed_on, settings))
    await kept.refresh(0.0)
    assert source.asked == []
    assert kept.current is None
    assert kept.given() == {}


async def test_a_process_is_given_those_that_it_may_have() -> None:
    settings = Settings("", "", "", env_names=("AWS_ACCESS_KEY_ID",))
    source = FakeSource([keys("first")])
    kept = CredentialsKeeper(source, URI, "", partial(handed_on, settings))
    await kept.refresh(0.0)
    assert kept.given() == {"AWS_ACCESS_KEY_ID": "first"}

"""Secrets are replaced by name, by form and by value; all else stays as it is."""

from __future__ import annotations

import base64
import json

import pytest

from lambda_deno_spawn.recording.redaction import MARK, Redactor, is_secret_name

KEY_ID = "AKIA" + "IOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"


def clean(value: object) -> object:
    return json.loads(Redactor().body(json.dumps(value).encode(), "event") or "")


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "authorization", "Proxy-Authorization", "Cookie", "set-cookie",
        "cookies", "x-api-key", "X-Amz-Security-Token", "apiKey", "API_KEY", "password",
        "DB_PASSWORD", "clientSecret", "refresh_token", "AWS_SECRET_ACCESS_KEY",
        "authorizationToken", "x-csrf-token", "privateKey", "pwd", "sid",
    ],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["author", "host", "x-forwarded-for", "content-type", "key", "id", "spin", "path"],
)
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_name(name)


def test_an_event_without_secrets_stays_byte_for_byte() -> None:
    text = '{ "n": 1.0, "big": 12345678901234567890, "n": 2, "s": "\\u00e9"}'
    redactor = Redactor()
    assert redactor.body(text.encode(), "event") == text
    assert redactor.paths == []


def test_headers_are_replaced_and_noted_in_both_forms() -> None:
    redactor = Redactor()
    event = {
        "headers": {"authorization": "Bearer abcdefgh", "accept": "*/*"},
        "multiValueHeaders": {"Cookie": ["a=1", "b=2"]},
        "cookies": ["session=abc"],
        "tokenCount": 5,
    }
    text = redactor.body(json.dumps(event).encode(), "event")
    assert json.loads(text or "") == {
        "headers": {"authorization": MARK, "accept": "*/*"},
        "multiValueHeaders": {"Cookie": [MARK, MARK]},
        "cookies": [MARK],
        "tokenCount": 5,
    }
    assert redactor.paths[0] == "event.headers.authorization"


@pytest.mark.parametrize(
    "value",
    [
        {"headers": [{"key": "Authorization", "value": "hunter22"}]},
        {"headers": {"authorization": [{"key": "Authorization", "value": "hunter22"}]}},
        {"pairs": [["x-api-key", "hunter22"]]},
        {"body": json.dumps({"user": "ada", "password": "hunter22"})},
        {"body": "user=ada&password=hunter22"},
        {"rawQueryString": "q=1&access_token=hunter22&r=2"},
        {"Records": [{"body": json.dumps({"Message": '{"apiKey":"hunter22"}'})}]},
        {"password": {"current": "hunter22", "old": ["hunter22"]}},
        {"note": "Authorization: Basic hunter22hunter22"},
        {"note": 'sent {"client_secret": "hunter22"} to them'},
        {"note": "the secret key: 'hunter22'"},
        {"url": "https://ada:hunter22@example.com/"},
    ],
)
def test_a_secret_under_a_telling_name_is_replaced(value: object) -> None:
    assert "hunter22" not in json.dumps(clean(value))


def test_base64_of_a_body_is_looked_into() -> None:
    body = base64.b64encode(b'{"password":"hunter22","user":"ada"}').decode()
    found = clean({"body": body, "isBase64Encoded": True})
    assert isinstance(found, dict)
    assert json.loads(base64.b64decode(found["body"])) == {
        "password": MARK,
        "user": "ada",
    }


@pytest.mark.parametrize("picture", [b"", b"\xff\xd8\xff"], ids=["text", "picture"])
def test_a_password_in_a_form_of_parts_is_replaced(picture: bytes) -> None:
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="user"\r\n\r\nada\r\n'
        b'--b\r\nContent-Disposition: form-data; name="new_password"\r\n'
        b"Content-Type: text/plain\r\n\r\nhunter-two\r\n--b--\r\n"
    )
    body = base64.b64encode(picture + parts).decode()
    found = clean({"isBase64Encoded": True, "body": body})
    assert isinstance(found, dict)
    expected = picture + parts.replace(b"hunter-two", MARK.encode())
    assert base64.b64decode(found["body"]) == expected
    assert clean({"body": parts.decode()}) == {
        "body": parts.decode().replace("hunter-two", MARK)
    }


def test_a_value_is_replaced_however_it_is_spelled() -> None:
    redactor = Redactor(['p@ss "wörd"/1'])
    for text in (r'{"a":"p@ss \"wörd\"/1"', "/?q=p%40ss%20%22w%C3%B6rd%22%2F1"):
        assert MARK in redactor.text(text, "log")


@pytest.mark.parametrize("secret", [KEY_ID, SECRET_KEY, JWT, "IQoJ" + "b3JpZ2lu" * 20])
@pytest.mark.parametrize("around", ["{}", "see {} there", "k={};"])
def test_credentials_are_known_by_their_form(secret: str, around: str) -> None:
    text = around.format(secret)
    assert secret not in Redactor().text(text, "log")
    assert secret not in json.dumps(clean({"plain": text}))


def test_a_presigned_url_and_a_private_key_are_replaced() -> None:
    url = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AB%2F1&X-Amz-Signature=feed01"
    begin, end = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
    text = Redactor().text(f"{url} {begin}\nMIIE\n{end}", "log")
    assert "feed01" not in text
    assert "MIIE" not in text


def test_values_that_the_owner_tells_are_replaced_wherever_they_are() -> None:
    redactor = Redactor(["correct horse", "short"])
    text = redactor.body(b'{"note":"it is correct horse, short"}', "event")
    assert text == f'{{"note":"it is {MARK}, short"}}'


@pytest.mark.parametrize(
    "text",
    [
        "0b5c9a1de4f8a7b36c2d1e0f9a8b7c6d5e4f3a2b",  # a commit
        "2026-11-28T13:00:00.000Z request 8f507cfc-0f4e-4b9c-8d1b-2b0f8f3f3f3f",
        "GET https://example.com:8080/a@b done",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor().text(text, "log") == text


def test_what_is_no_text_is_left_to_the_caller() -> None:
    assert Redactor().body(b"\xff\xfe", "event") is None


def test_deep_and_hostile_text_takes_no_time_and_no_stack() -> None:
    pieces = (
        "a", "eyJ-", "://", "token", '"token":"', "Bearer ", "[", "AKIA", "[[",
        "-----BEGIN PRIVATE KEY-----", "token-", "IQoJ", "\\",
    )  # fmt: skip
    for piece in pieces:  # hours, if a repetition had no bounds
        Redactor().body((piece * (200_000 // len(piece))).encode(), "event")


def test_paths_are_limited() -> None:
    redactor = Redactor()
    redactor.body(json.dumps([{"token": "x"}] * 1000).encode(), "event")
    assert len(redactor.paths) == 100

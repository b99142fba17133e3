"""The messages between the supervisor and a template, byte for byte."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_deno_spawn.errors import TemplateError
from lambda_deno_spawn.native import control
from lambda_deno_spawn.native.control import (
    Answer,
    Folders,
    decode_answer,
    encode_request,
    template_environ,
)

HEADER = Path(control.__file__).with_name("message.h").read_text(encoding="utf-8")


def answer(
    *,
    magic: bytes = b"LDSF",
    version: int = control.VERSION,
    code: int = 0,
    number: int = 1,
    pid: int = 0,
    error: int = 0,
    detail: bytes = b"",
) -> bytes:
    return magic + struct.pack("=HHIii108s", version, code, number, pid, error, detail)


def test_a_request_is_eighty_bytes() -> None:
    packet = encode_request(control.LEARN, 258, 77)
    assert packet == b"LDSF" + struct.pack("=HHIi64x", 2, 4, 258, 77)
    assert len(packet) == 80


def test_a_request_names_the_folders_of_a_child() -> None:
    packet = encode_request(control.FORK, 1, 0, Folders("private", "cache"))
    assert packet[16:] == b"private".ljust(32, b"\0") + b"cache".ljust(32, b"\0")


def test_an_answer_is_read() -> None:
    packet = answer(code=13, number=7, detail=b"a socket (descriptor 21)\0rest")
    expected = Answer(7, control.SOCKET, 0, 0, "a socket (descriptor 21)")
    assert decode_answer(packet) == expected
    assert str(expected) == "socket: a socket (descriptor 21)"


def test_an_answer_says_what_the_system_said() -> None:
    decoded = decode_answer(answer(code=40, error=11, detail=b"clone"))
    assert str(decoded) == "fork failed: clone (Resource temporarily unavailable)"


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        answer()[:-1],
        answer() + b"x",
        answer(magic=b"LDSG"),
        answer(version=1),
        answer(code=9),
        answer(pid=-1),
        answer(error=-1),
    ],
    ids=["empty", "short", "long", "mark", "version", "code", "process", "error"],
)
def test_what_is_not_an_answer_is_refused(packet: bytes) -> None:
    with pytest.raises(TemplateError, match="Cannot use the template: "):
        decode_answer(packet)


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(packet: bytes) -> None:
    for candidate in (packet, (b"LDSF\2\0" + packet).ljust(128, b"\0")[:128]):
        try:
            decoded = decode_answer(candidate)
        except TemplateError:
            continue
        assert decoded.detail.isprintable()
        assert len(decoded.detail) <= 4 * 108


def test_the_codes_are_those_of_the_library() -> None:
    numbers = {
        name: int(value)
        for name, value in re.findall(r"^  ([A-Z_]+) = (\d+),", HEADER, re.M)
    }
    assert {"PROBE", "OK", "NO_CHILD"} <= numbers.keys()
    for name, value in numbers.items():
        assert getattr(control, name) == value, name
    kinds = {"PROBE", "FORK", "OBSERVE", "LEARN"}
    codes = {value for name, value in numbers.items() if name not in kinds}
    assert control.NAMES.keys() == codes
    assert control.KINDS.keys() == {numbers[name] for name in kinds}


def test_no_two_codes_have_the_same_name() -> None:
    assert len(set(control.NAMES.values())) == len(control.NAMES)


@pytest.mark.parametrize(
    ("before", "expected"),
    [(None, "/lib.so"), ("", "/lib.so"), ("/other.so", "/lib.so:/other.so")],
    ids=["none", "empty", "another"],
)
def test_the_library_is_preloaded_before_others(
    before: str | None, expected: str
) -> None:
    environ = {"PATH": "/bin"} | ({} if before is None else {"LD_PRELOAD": before})
    assert template_environ(environ, "/lib.so", 9) == {
        "PATH": "/bin",
        "LD_PRELOAD": expected,
        "DENO_SPAWN_FORK_FD": "9",
    }


def test_the_library_is_told_that_each_child_has_a_cache_of_its_own() -> None:
    environ = template_environ({}, "/lib.so", 3, has_own_cache=True)
    assert environ["DENO_SPAWN_FORK_CACHE"] == "1"


def test_the_library_is_told_the_path_that_leads_each_child_to_its_folder() -> None:
    environ = template_environ({}, "/lib.so", 3, alias="/state/self/own")
    assert environ["DENO_SPAWN_FORK_ALIAS"] == "/state/self/own"

"""Secrets in events, results and logs, replaced before anything of them is written.

Knows them by the names of fields, headers and variables, by the form of credentials,
and by values that its owner tells. Does not know where a text comes from, and promises
nothing about secrets under other names, or inside compressed or encrypted data.
Specification: docs/replay.md.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.strict_json import JsonError, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterable

MARK = "[redacted]"
# Shorter ones would blank out ordinary words.
SECRET_LEAST = 8
PATHS_LIMIT = 100
# How deep text may hold JSON that holds text that holds JSON.
NESTED_LIMIT = 3
# Parts of a name that tell a secret, letters and digits only.
PARTS = (
    "authorization", "cookie", "apikey", "password", "passwd", "passphrase", "secret",
    "token", "credential", "privatekey", "accesskey", "identitysource", "sessionid",
    "csrf", "xsrf",
)  # fmt: skip
NAMES = frozenset({"auth", "jwt", "otp", "pass", "pin", "pwd", "sid"})
# Members that hold a name, and those that hold its value: `{"key": …, "value": …}`.
NAME_MEMBERS = ("name", "key", "Name", "Key")
VALUE_MEMBERS = ("value", "Value", "stringValue", "StringValue")
# Every repetition is bounded, or cannot begin inside of a run: text may be hostile.
_SPELLED = (
    r"authori[sz]ation|cookie|api[-_]?key|passw(?:or)?d|passphrase|secret|token|"
    r"credential|private[-_]?key|access[-_]?key|session[-_]?id|[cx]srf"
)
_PATTERNS = (
    # AWS: ids of access keys, secret keys, session tokens.
    (re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"), MARK),
    (
        re.compile(
            r"(?<![A-Za-z0-9/+])(?=[A-Za-z0-9/+]{0,39}[a-z])"
            r"(?=[A-Za-z0-9/+]{0,39}[A-Z])(?=[A-Za-z0-9/+]{0,39}[0-9])"
            r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
        ),
        MARK,
    ),
    (
        re.compile(
            r"(?<![A-Za-z0-9/+_-])(?:IQoJ|IQoD|FwoG|FQoG|AgoJ)[A-Za-z0-9/+=_%-]{80,}"
        ),
        MARK,
    ),
    (
        re.compile(r"(?i)(X-Amz-(?:Signature|Credential)=)[^&\s\"']{1,500}"),
        rf"\1{MARK}",
    ),
    # Tokens, schemes of Authorization, keys, passwords in URLs.
    (
        re.compile(r"(?<![\w-])eyJ[\w-]{5,}\.eyJ[\w-]{5,}(?:\.[\w-]*)?"),
        MARK,
    ),
    (
        re.compile(r"(?i)\b(bearer|basic)(\s{1,3})[A-Za-z0-9._~+/=-]{8,}"),
        rf"\1\2{MARK}",
    ),
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,10000}?"
            r"-----END [A-Z ]{0,30}PRIVATE KEY-----",
            re.DOTALL,
        ),
        MARK,
    ),
    (re.compile(r"(://[^/\s:@]{1,100}:)[^/\s@]{1,300}@"), rf"\1{MARK}@"),
    # `name=value`, `name: value` and `"name": "value"` in text that is not JSON.
    (
        re.compile(
            rf"(?i)(?<![\w.-])([\w.-]{{0,60}}?(?:{_SPELLED})[\w.-]{{0,60}}"
            r"(?: (?:key|id|token))?\\?[\"']?\s{0,3}[=:]\s{0,3})"
            r"(?!\[redacted\])(?!(?:bearer|basic)\s)"
            r"(\\?\"[^\"\\\n]{1,10000}|'[^'\n]{1,10000}|[^\s&;,\"'\\{}\[\]]{1,10000})"
        ),
        None,
    ),
    # A field of a form in parts: its value is a line of its own.
    (
        re.compile(
            rf"(?i)(;\s{{0,3}}name=\"?[\w.-]{{0,60}}?(?:{_SPELLED})[\w.-]{{0,60}}\"?"
            r"(?:[^\r\n]{0,100}\r?\n){1,3}?\r?\n)(?!\[redacted\])[^\r\n]{1,10000}"
        ),
        rf"\1{MARK}",
    ),
)
_UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)


def is_secret_name(name: str) -> bool:
    """Tell whether a field, header or variable of this name holds a secret."""
    plain = re.sub(r"[^a-z0-9]", "", name[:200].lower())
    return plain in NAMES or any(part in plain for part in PARTS)


class Redactor:
    """Replaces secrets by ``MARK``, and notes where they were.

    Attributes:
        paths: Where, as ``event.headers.authorization``; the first ``PATHS_LIMIT``.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Replace these values too, wherever they are."""
        spelled = {
            form for one in secrets if len(one) >= SECRET_LEAST for form in _forms(one)
        }
        self._secrets = sorted(spelled, key=len, reverse=True)
        self.paths: list[str] = []

    def body(self, data: bytes, path: str) -> str | None:
        """Return JSON or other text without secrets; None if it is not UTF-8.

        Text without a secret stays as it is, character for character.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return None
        return self._embedded(text, path, 0)

    def text(self, text: str, path: str) -> str:
        """Return text without secrets, whatever it is."""
        found = text
        for secret in self._secrets:
            found = found.replace(secret, MARK)
        for pattern, by in _PATTERNS:
            found = pattern.sub(_named if by is None else by, found)
        if found != text:
            self._note(path)
        return found

    def variables(self, given: dict[str, str], path: str) -> dict[str, str]:
        """Return variables without secrets."""
        return {
            name: self.value(name, value, f"{path}.{name}")
            for name, value in given.items()
        }

    def value(self, name: str, value: str, path: str) -> str:
        """Return the value of a name without a secret."""
        if value and is_secret_name(name):
            self._note(path)
            return MARK
        return self.text(value, path)

    def _embedded(self, text: str, path: str, level: int) -> str:
        """Return text that may be JSON."""
        if text[:1] in ("{", "[", '"') or text.lstrip()[:1] in ("{", "["):
            try:
                value = loads(text.encode())
                clean = self._clean(value, path, level)
                return text if clean == value else dumps(clean).decode()
            except (JsonError, RecursionError, ValueError):
                pass
        return self.text(text, path)

    def _clean(self, value: Any, path: str, level: int) -> Any:
        match value:
            case str():
                if level < NESTED_LIMIT:
                    return self._embedded(value, path, level + 1)
                return self.text(value, path)
            case list():
                if len(value) == 2 and _is_pair(value):
                    return [value[0], self._all(value[1], f"{path}[1]")]
                return [
                    self._clean(item, f"{path}[{index}]", level)
                    for index, item in enumerate(value)
                ]
            case dict():
                return self._clean_object(value, path, level)
            case _:
                return value

    def _clean_object(
        self, value: dict[str, Any], path: str, level: int
    ) -> dict[str, Any]:
        named = next(
            (value[m] for m in NAME_MEMBERS if isinstance(value.get(m), str)), None
        )
        is_named_secret = named is not None and is_secret_name(named)
        clean = {}
        for name, item in value.items():
            inner = f"{path}.{name}"
            is_secret = is_secret_name(name)
            if is_secret or (is_named_secret and name in VALUE_MEMBERS):
                clean[name] = self._all(item, inner)
            elif isinstance(item, str) and (
                (name == "body" and value.get("isBase64Encoded") is True)
                or name == "data"
            ):
                clean[name] = self._encoded(item, inner, level)
            else:
                clean[name] = self._clean(item, inner, level)
        return clean

    def _encoded(self, text: str, path: str, level: int) -> str:
        """Redact base64 of text; anything else is redacted as text."""
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return self._embedded(text, path, level + 1)
        try:
            inner = data.decode()
            clean = self._embedded(inner, path, level + 1).encode()
        except UnicodeDecodeError:
            if b"form-data" not in data:
                return self._embedded(text, path, level + 1)
            # One part of a form may be a picture, another one a password.
            clean = self.text(data.decode("latin-1"), path).encode("latin-1")
        return text if clean == data else base64.b64encode(clean).decode()

    def _all(self, value: Any, path: str) -> Any:
        """Replace every text in a value whose name tells a secret."""
        match value:
            case str() if value:
                self._note(path)
                return MARK
            case list():
                return [self._all(item, f"{path}[{i}]") for i, item in enumerate(value)]
            case dict():
                return {
                    name: self._all(item, f"{path}.{name}")
                    for name, item in value.items()
                }
            case _:
                return value

    def _note(self, path: str) -> None:
        if len(self.paths) < PATHS_LIMIT and path not in self.paths:
            self.paths.append(path[:200])


def _forms(secret: str) -> list[str]:
    """Return a value as it is, and as it is written in JSON and in URLs."""
    data = secret.encode(errors="surrogateescape")
    in_url = "".join(chr(c) if c in _UNRESERVED else f"%{c:02X}" for c in data)
    forms = [secret, in_url]
    with contextlib.suppress(JsonError, ValueError):  # not text, so no JSON has it
        forms.append(dumps(secret).decode()[1:-1])
    return forms


def _is_pair(value: list[Any]) -> bool:
    name, item = value
    return isinstance(name, str) and isinstance(item, str) and is_secret_name(name)


def _named(match: re.Match[str]) -> str:
    """Replace the value after a name; a quotation mark before it stays."""
    value = match[2]
    mark = re.match(r"\\?[\"']?", value)
    return f"{match[1]}{mark[0] if mark else ''}{MARK}"

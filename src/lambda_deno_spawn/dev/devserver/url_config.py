"""Decisions of a function URL itself: which callers and which pages may call it.

Knows the table ``[url]`` of a project file, AuthType and CORS. Does not know sockets,
or how a function is run; signatures are looked for and not verified, as no secret is
known here. Specification: AWS Lambda Developer Guide, "Control access to Lambda
function URLs" and "Cross-origin resource sharing (CORS)"; AWS "Signature Version 4".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY = "*"
ALGORITHM = "AWS4-HMAC-SHA256"
CREDENTIAL = re.compile(r"([\w-]{1,128})/\d{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request")
SERVICE = "lambda"
ALLOW_ORIGIN = "access-control-allow-origin"


class NotSignedError(Exception):
    """A request has no signature, or not one for Lambda; says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """The table ``[url.cors]``; an empty tuple: not set."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int | None = None

    def allows(self, origin: str) -> bool:
        """Tell whether pages of an origin may read responses."""
        return bool(origin) and (ANY in self.origins or origin in self.origins)

    def of_response(self, origin: str) -> list[tuple[str, str]]:
        """Return the fields that a response to a page of an origin gets."""
        if not self.allows(origin):
            return []
        is_any = ANY in self.origins
        fields = [(ALLOW_ORIGIN, ANY if is_any else origin)]
        if not is_any:
            fields.append(("vary", "Origin"))
        if self.expose:
            fields.append(("access-control-expose-headers", ",".join(self.expose)))
        if self.credentials:
            fields.append(("access-control-allow-credentials", "true"))
        return fields

    def of_preflight(self, origin: str) -> list[tuple[str, str]]:
        """Return the fields of the response to a preflight request."""
        if not self.allows(origin):
            return []
        fields = self.of_response(origin)
        if self.methods:
            fields.append(("access-control-allow-methods", ",".join(self.methods)))
        if self.headers:
            fields.append(("access-control-allow-headers", ",".join(self.headers)))
        if self.max_age is not None:
            fields.append(("access-control-max-age", str(self.max_age)))
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlConfig:
    """The table ``[url]``.

    Attributes:
        is_signed: Its AuthType is AWS_IAM.
        cors: Its CORS; None: the function's own work.
    """

    is_signed: bool = False
    cors: Cors | None = None

    @classmethod
    def of(cls, keys: Mapping[str, object]) -> UrlConfig:
        """Return the configuration; without a table, what calls for no rules.

        Args:
            keys: Values of the keys for AWS, by dotted name.
        """
        if not keys.get("url.enabled"):
            return cls()
        table = {
            name.removeprefix("url.cors."): value
            for name, value in keys.items()
            if name.startswith("url.cors.")
        }
        return cls(
            is_signed=keys.get("url.auth", "AWS_IAM") == "AWS_IAM",
            cors=Cors(**table) if table else None,  # type: ignore[arg-type]
        )


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a browser asks what a page may send."""
    return (
        method == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
    )


def signer(headers: Mapping[str, str], query: str) -> str:
    """Return the access key that a request is signed with.

    Args:
        headers: Headers of the request, names in lower case.
        query: Query of the request: a presigned URL has the signature there.

    Raises:
        NotSignedError: It is not signed, or not for Lambda.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme == ALGORITHM:
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        has_date = "x-amz-date" in headers or "date" in headers
        names = ("Credential", "Signature")
    else:
        pairs = parse_qs(query, keep_blank_values=True)
        parts = {name: values[0] for name, values in pairs.items()}
        if parts.get("X-Amz-Algorithm") != ALGORITHM:
            raise NotSignedError("Forbidden")
        has_date = "X-Amz-Date" in parts
        names = ("X-Amz-Credential", "X-Amz-Signature")
    credential, signature = (parts.get(name, "") for name in names)
    found = CREDENTIAL.fullmatch(credential)
    if found is None or not signature or not has_date:
        raise NotSignedError("The signature is incomplete")
    if found[2] != SERVICE:
        raise NotSignedError(
            f"Credential should be scoped to correct service: {SERVICE!r}, not "
            f"{found[2]!r}"
        )
    return found[1]

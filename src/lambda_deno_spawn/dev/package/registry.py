"""Registries of container images: fetches a base, and pushes an image.

Knows the protocol of registries, how they ask for a login, and which failures pass. It
checks the digest of everything that it receives. Does not know images, nor where
passwords come from. Specification: OCI Distribution Specification 1.1; Docker's token
authentication; RFC 9110, "WWW-Authenticate".
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx

from lambda_deno_spawn.dev.package.oci import (
    CHUNK_BYTES,
    DOCUMENT_LIMIT_BYTES,
    MANIFEST,
    OCI_NAMES,
    Blob,
    Image,
    choose,
    digest_of,
    read_image,
)
from lambda_deno_spawn.dev.package.scratch import partial_file
from lambda_deno_spawn.errors import BuildError, DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lambda_deno_spawn.dev.project.project import Arch

ATTEMPTS = 5
FIRST_PAUSE_S = 0.5  # doubled with each attempt
PAUSE_LIMIT_S = 20.0
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
UNAUTHORIZED = 401
NOT_FOUND = 404
ERRORS = 400  # the lowest status of an error
ACCEPTED = ", ".join([*OCI_NAMES, *set(OCI_NAMES.values())])
# Distribution Specification, "Pulling manifests"; Docker's rule says which first part
# is a host.
NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9._-]+)*")
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image in a registry.

    Attributes:
        host: With the port, if there is one.
        name: Name of the repository.
        version: Tag or digest.
    """

    host: str
    name: str
    version: str

    def __str__(self) -> str:
        mark = "@" if DIGEST.fullmatch(self.version) else ":"
        return f"{self.host}/{self.name}{mark}{self.version}"

    @classmethod
    def parse(cls, text: str, default_tag: str = "latest") -> Reference:
        """Read ``HOST/NAME:TAG`` or ``HOST/NAME@sha256:…``.

        Raises:
            UsageError: It is something else.
        """
        host, slash, rest = text.partition("/")
        rest, at, digest = rest.partition("@")
        name, colon, tag = rest.partition(":")
        version = digest if at else tag if colon else default_tag
        rule = DIGEST if at else TAG
        is_host = "." in host or ":" in host or host == "localhost"
        if (
            not slash
            or not is_host
            or not HOST.fullmatch(host)
            or not NAME.fullmatch(name)
            or not rule.fullmatch(version)
        ):
            raise UsageError(
                f"Cannot use the image {text!r}: expected HOST/NAME:TAG, such as "
                "public.ecr.aws/lambda/python:3.13"
            )
        return cls(host, name, version)


Login = tuple[str, str]


def docker_login(host: str, home: Path) -> Login | None:
    """Return name and password of a registry in Docker's configuration, if any.

    Programs that keep passwords for Docker are not asked.
    """
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        config = json.loads((home / ".docker" / "config.json").read_bytes())
        text = base64.b64decode(config["auths"][host]["auth"]).decode()
        name, _, password = text.partition(":")
        if password:
            return name, password
    return None


class Registry:
    """One repository of a registry; a context manager.

    Attributes:
        reference: The image.
    """

    def __init__(
        self,
        reference: Reference,
        login: Login | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet.

        Args:
            reference: The image.
            login: Name and password, if there are any.
            sleep: Waits so many seconds.
        """
        self.reference = reference
        self._login = login
        self._sleep = sleep
        host = reference.host.rpartition(":")[0] or reference.host
        is_here = reference.host in LOOPBACK or host in LOOPBACK
        self._base = f"{'http' if is_here else 'https'}://{reference.host}"
        self._authorization: str | None = None
        self._client = httpx.Client(
            timeout=TIMEOUT,
            trust_env=not is_here,  # a proxy does not reach this machine
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},  # digests are those of the bytes
        )

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # --- Fetching

    def fetch(self, arch: Arch, cache: Path) -> tuple[Image, str]:
        """Fetch an image; return it, and the digest of its manifest or index.

        Args:
            arch: Instruction set.
            cache: Folder for its files, which are kept.

        Raises:
            BuildError: There is no such image, or it cannot be fetched.
        """
        shown = str(self.reference)
        try:
            content, digest = self._manifest(self.reference.version)

            def find(digest: str, media_type: str) -> Blob:
                if media_type in OCI_NAMES.values() and "manifest" in media_type:
                    document, _ = self._manifest(digest)
                    return Blob(media_type, digest, len(document), document)
                return self._blob(digest, media_type, cache)

            manifest = choose(json.loads(content), arch, find, shown)
            return read_image(manifest, arch, find, shown), digest
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"Cannot read the image {shown}: {error!r}") from error
        except DeployError as error:
            raise BuildError(str(error)) from error

    def _manifest(self, version: str) -> tuple[bytes, str]:
        url = self._url(f"manifests/{version}")
        response = self._ask("GET", url, headers={"Accept": ACCEPTED})
        content = response.content
        digest = digest_of(content)
        if DIGEST.fullmatch(version) and version != digest:
            raise DeployError(
                f"Cannot fetch {self.reference}: the registry sent other content than "
                f"that of {version}"
            )
        if len(content) > DOCUMENT_LIMIT_BYTES:
            raise DeployError(
                f"Cannot fetch {self.reference}: its manifest is too large"
            )
        return content, digest

    def _blob(self, digest: str, media_type: str, cache: Path) -> Blob:
        if not DIGEST.fullmatch(digest):
            raise DeployError(
                f"Cannot fetch {self.reference}: it refers to {digest[:80]!r}, and "
                "only sha256 digests are supported"
            )
        path = cache / digest.partition(":")[2]
        try:
            if not path.is_file():
                cache.mkdir(parents=True, exist_ok=True)
                self._download(digest, path)
        except OSError as error:
            raise DeployError(
                f"Cannot write {str(path)!r}: {error.strerror or error}"
            ) from error
        return Blob(media_type, digest, path.stat().st_size, path)

    def _download(self, digest: str, path: Path) -> None:
        """Fetch a blob into a file, which appears complete or not at all."""

        def receive(response: httpx.Response) -> None:
            hashed = hashlib.sha256()
            with partial_file(path) as partial, partial.open("wb") as file:
                for chunk in response.iter_raw(CHUNK_BYTES):
                    hashed.update(chunk)
                    file.write(chunk)
                if f"sha256:{hashed.hexdigest()}" != digest:
                    raise _DamagedError

        self._ask("GET", self._url(f"blobs/{digest}"), receive=receive)

    # --- Pushing

    def push(self, image: Image, on_blob: Callable[[Blob, bool], None]) -> str:
        """Push an image; return its whole name with its digest.

        Pushed again, it sends only what the registry does not have.

        Args:
            image: The image.
            on_blob: Called with each of its files, and whether it was sent.

        Raises:
            DeployError: The registry refused it, or cannot be reached.
        """
        for blob in {blob.digest: blob for blob in image.blobs}.values():
            on_blob(blob, self._push_blob(blob))
        manifest = image.manifest
        version = self.reference.version
        self._ask(
            "PUT",
            self._url(f"manifests/{version}"),
            headers={"Content-Type": MANIFEST},
            content=lambda: _chunks(manifest),
            size_bytes=manifest.size_bytes,
        )
        _, digest = self._manifest(version)
        if digest != manifest.digest:
            raise DeployError(
                f"Cannot push {self.reference}: the registry has {digest} under this "
                f"name, and {manifest.digest} was sent; another push may have come "
                "between: run the command again"
            )
        return f"{self.reference.host}/{self.reference.name}@{manifest.digest}"

    def _push_blob(self, blob: Blob) -> bool:
        url = self._url(f"blobs/{blob.digest}")
        if self._ask("HEAD", url, is_optional=True).status_code != NOT_FOUND:
            return False

        # In one piece, as other clients do: ECR takes no small pieces. An upload that
        # broke off is begun anew.
        sent = self._ask(
            "PATCH",
            lambda: _location(self._ask("POST", self._url("blobs/uploads/"))),
            headers={"Content-Type": "application/octet-stream"},
            content=lambda: _chunks(blob),
            size_bytes=blob.size_bytes,
        )
        location = _location(sent)
        mark = "&" if urlsplit(location).query else "?"
        # If the answer to an earlier attempt was lost, this upload is gone already.
        self._ask("PUT", f"{location}{mark}digest={blob.digest}", is_optional=True)
        self._ask("HEAD", url)
        return True

    # --- Requests

    def _url(self, path: str) -> str:
        return f"{self._base}/v2/{self.reference.name}/{path}"

    def _ask(
        self,
        method: str,
        url: str | Callable[[], str],
        *,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        size_bytes: int = 0,
        receive: Callable[[httpx.Response], None] | None = None,
        is_optional: bool = False,
    ) -> httpx.Response:
        """Send a request, again after a failure that passes.

        Args:
            method: Method of the request.
            url: Its URL, or a function that returns it for each attempt.
            headers: Further headers.
            content: Returns the body, for each attempt.
            size_bytes: Size of the body.
            receive: Reads a body that is too large for memory.
            is_optional: 404 is not an error.

        Raises:
            DeployError: The registry refused it, or cannot be reached.
        """
        pause_s = FIRST_PAUSE_S
        reason = ""
        has_login = False
        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(min(pause_s, PAUSE_LIMIT_S))
                pause_s *= 2
            try:
                where = url if isinstance(url, str) else url()
                response = self._send(
                    method, where, headers, content, size_bytes, receive
                )
                is_own = self._is_own(str(response.url))  # no bucket asks for a login
                if response.status_code == UNAUTHORIZED and is_own and not has_login:
                    has_login = True
                    self._log_in(response)
                    where = url if isinstance(url, str) else url()
                    response = self._send(
                        method, where, headers, content, size_bytes, receive
                    )
            except (httpx.TransportError, _DamagedError) as error:
                reason = str(error) or type(error).__name__
                continue
            if response.status_code in PASSING:
                reason = f"status {response.status_code}"
                pause_s = max(pause_s, _retry_after_s(response))
                continue
            is_missing = response.status_code == NOT_FOUND
            if response.status_code < ERRORS or (is_missing and is_optional):
                return response
            raise self._refused(response)
        raise DeployError(
            f"Cannot complete {method} for {self.reference} in {ATTEMPTS} attempts: "
            f"{reason}; run the command again, and it continues from here"
        )

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: Callable[[], Iterator[bytes]] | None,
        size_bytes: int,
        receive: Callable[[httpx.Response], None] | None,
    ) -> httpx.Response:
        """Send a request once; follow redirects to where the bytes are."""
        sent = dict(headers or {})
        if content is not None:
            sent["Content-Length"] = str(size_bytes)
        for _ in range(5):
            target = urlsplit(url)
            # Other servers, such as a bucket's, must not get the password.
            is_own = self._is_own(url)
            own = dict(sent)
            if is_own and self._authorization is not None:
                own["Authorization"] = self._authorization
            elif target.scheme != "https" and not is_own:
                raise DeployError(
                    f"Cannot use {self.reference}: its registry sends to "
                    f"{target.scheme}://{target.netloc}, which is not encrypted"
                )
            request = self._client.build_request(
                method, url, headers=own, content=None if content is None else content()
            )
            response = self._client.send(request, stream=True)
            try:
                if response.has_redirect_location and method in ("GET", "HEAD"):
                    url = urljoin(url, response.headers["Location"])
                    continue
                if receive is not None and response.status_code < ERRORS:
                    receive(response)
                else:
                    _read(response)
            finally:
                response.close()
            return response
        raise DeployError(f"Cannot use {self.reference}: too many redirects")

    def _is_own(self, url: str) -> bool:
        """Return whether a URL is of the registry, and not of another server."""
        target, origin = urlsplit(url), urlsplit(self._base)
        return (target.scheme, target.netloc) == (origin.scheme, origin.netloc)

    def _log_in(self, response: httpx.Response) -> None:
        """Do what a registry asks for in its answer without a login."""
        challenge = response.headers.get("WWW-Authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._login is not None:
            self._authorization = _basic(self._login)
        if scheme.lower() != "bearer":
            return
        values = dict(CHALLENGE.findall(rest))
        realm = values.get("realm", "")
        target = urlsplit(realm)
        is_here = (target.hostname or "") in ("localhost", "127.0.0.1", "::1")
        if target.scheme != "https" and not (
            is_here and self._base.startswith("http:")
        ):
            raise DeployError(
                f"Cannot log in to {self.reference.host}: it refers to {realm!r} for a "
                "token, and that address is not encrypted"
            )
        asked = {name: values[name] for name in ("service", "scope") if name in values}
        own = {} if self._login is None else {"Authorization": _basic(self._login)}
        answer = self._client.get(realm, params=asked, headers=own)
        if answer.status_code >= ERRORS:
            raise self._refused(answer)
        try:
            members = answer.json()
            token = members.get("token") or members["access_token"]
        except (ValueError, KeyError, AttributeError) as error:
            raise DeployError(
                f"Cannot log in to {self.reference.host}: it sent no token"
            ) from error
        self._authorization = f"Bearer {token}"

    def _refused(self, response: httpx.Response) -> DeployError:
        status = response.status_code
        detail = _detail(response)
        advice = ""
        if status in (UNAUTHORIZED, 403):
            advice = f"; log in to {self.reference.host}, or ask for access"
        elif status == NOT_FOUND:
            advice = "; check its name and tag, and that the repository exists"
        return DeployError(
            f"Cannot use {self.reference}: the registry answers {status}{detail}"
            f"{advice}"
        )


class _DamagedError(Exception):
    """The received content has another digest."""

    def __str__(self) -> str:
        return "the content has another digest"


def _read(response: httpx.Response) -> None:
    """Read a body into memory, up to a limit."""
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > DOCUMENT_LIMIT_BYTES:
            break
    response._content = bytes(content)  # as `read` does, with a limit


def _retry_after_s(response: httpx.Response) -> float:
    """Return how long a registry asks to wait: in seconds, or until a date."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return parsedate_to_datetime(text).timestamp() - time.time()
    return 0.0


def _location(response: httpx.Response) -> str:
    location: str = response.headers.get("Location", "")
    return urljoin(str(response.url), location)


def _detail(response: httpx.Response) -> str:
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        error: Any = response.json()["errors"][0]
        text = f"{error.get('code')}: {error.get('message')}"
        return f" ({text[:200]})"
    return ""


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def _chunks(blob: Blob) -> Iterator[bytes]:
    with blob.opened() as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

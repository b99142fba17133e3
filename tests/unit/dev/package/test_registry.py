"""Registries that misbehave: logins, pauses, other servers. No network."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from lambda_deno_spawn.dev.package.oci import Blob, digest_of
from lambda_deno_spawn.dev.package.registry import Reference, Registry
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError, DeployError
from tests.fixtures.images import empty_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST, BUCKET, AUTH = "registry.example", "bucket.example", "auth.example"
LOGIN = ("ada", "hunter2")
PASSWORD = base64.b64encode(b"ada:hunter2").decode()
IMAGE = empty_image(Arch.X86_64)


class Server:
    """Answers requests, and remembers them.

    Attributes:
        seen: Each request.
        pauses: What the client has waited, in seconds.
    """

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.seen: list[httpx.Request] = []
        self.pauses: list[float] = []
        self._answer = answer

    def registry(self, login: tuple[str, str] | None = LOGIN) -> Registry:
        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            self.seen.append(request)
            made = self._answer(request)
            # As from a network: not read yet.
            body = httpx.ByteStream(made.content)
            return httpx.Response(made.status_code, headers=made.headers, stream=body)

        reference = Reference.parse(f"{HOST}/orders:v1")
        found = Registry(reference, login, sleep=self.pauses.append)
        found._client.close()
        found._client = httpx.Client(transport=httpx.MockTransport(handle))
        return found

    def push(self) -> str:
        with self.registry() as registry:
            return registry.push(IMAGE, lambda *_: None)

    def secrets_at(self, host: str) -> list[str]:
        """Return what a server got that looks like a password or a token."""
        asked = [request for request in self.seen if request.url.host == host]
        return [
            request.headers["Authorization"]
            for request in asked
            if "Authorization" in request.headers
        ]


def challenge(realm: str = f"https://{AUTH}/token") -> httpx.Response:
    return httpx.Response(
        401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}
    )


def test_registry_that_refuses_the_login_is_asked_once() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == AUTH:
            return httpx.Response(200, json={"token": "t"})
        return challenge()

    server = Server(answer)
    with pytest.raises(DeployError, match=r"answers 401; log in to registry\.ex"):
        server.push()
    assert server.secrets_at(AUTH) == [f"Basic {PASSWORD}"]
    assert server.secrets_at(HOST) == ["Bearer t"]
    assert server.pauses == []


def test_ecr_asks_for_the_login_itself() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != f"Basic {PASSWORD}":
            asks = 'Basic realm="https://123456789012.dkr.ecr/",service="ecr"'
            return httpx.Response(401, headers={"WWW-Authenticate": asks})
        content = IMAGE.manifest.content if request.method == "GET" else b""
        assert isinstance(content, bytes)
        return httpx.Response(200, content=content)

    server = Server(answer)
    assert server.push().endswith(IMAGE.manifest.digest)
    assert len(server.seen) == len(server.secrets_at(HOST)) + 1


def test_login_that_fails_is_said() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401) if request.url.host == AUTH else challenge()

    with pytest.raises(DeployError, match="answers 401; log in to"):
        Server(answer).push()
    bad = Server(lambda _: challenge("http://auth.example/token"))
    with pytest.raises(DeployError, match="that address is not encrypted"):
        bad.push()
    assert bad.secrets_at("auth.example") == []


@pytest.mark.parametrize("status", [202, 401])
def test_another_server_that_takes_the_upload_gets_no_login(status: int) -> None:
    """Nor can it ask for one."""
    heads = iter([404, 200])

    def answer(request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.host == AUTH:
            return httpx.Response(200, json={"token": "t"})
        if url.host == "evil.example":
            return httpx.Response(200, json={"token": "stolen"})
        if url.host == BUCKET:
            headers = {"Location": str(url)}
            if status == 401:
                headers["WWW-Authenticate"] = (
                    'Bearer realm="https://evil.example/token"'
                )
            return httpx.Response(status, headers=headers)
        if "Authorization" not in request.headers:
            return challenge()
        if request.method == "HEAD":
            return httpx.Response(next(heads))
        if request.method == "POST":
            upload = {"Location": f"https://{BUCKET}/upload?id=1"}
            return httpx.Response(202, headers=upload)
        content = IMAGE.manifest.content if request.method == "GET" else b""
        assert isinstance(content, bytes)
        return httpx.Response(200, content=content)

    server = Server(answer)
    if status == 401:
        with pytest.raises(DeployError, match="answers 401"):
            server.push()
    else:
        assert server.push().endswith(IMAGE.manifest.digest)
        (put,) = [
            request for request in server.seen
            if request.method == "PUT" and request.url.host == BUCKET
        ]  # fmt: skip
        assert put.url.params["digest"] == IMAGE.config_blob.digest
    assert server.secrets_at(BUCKET) == []
    assert "evil.example" not in {request.url.host for request in server.seen}


def test_upload_over_a_connection_without_tls_is_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(404)
        return httpx.Response(202, headers={"Location": f"http://{BUCKET}/upload"})

    server = Server(answer)
    with pytest.raises(DeployError, match=r"http://bucket\.example, which is not e"):
        server.push()
    assert {request.url.host for request in server.seen} == {HOST}


@pytest.mark.parametrize(
    ("headers", "first_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "99999999"}, 20.0),
        ({"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, 20.0),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.5),
        ({"Retry-After": "nan"}, 0.5),
        ({"Retry-After": "-5"}, 0.5),
        ({"Retry-After": "²"}, 0.5),
        ({}, 0.5),
    ],
    ids=str,
)
def test_registry_that_asks_to_wait_is_waited_for(
    headers: dict[str, str], first_s: float
) -> None:
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    server = Server(lambda _: httpx.Response(429, headers=encoded))
    with pytest.raises(DeployError, match="5 attempts: status 429; run the command"):
        server.push()
    assert server.pauses[0] == first_s
    assert len(server.pauses) == 4
    assert max(server.pauses) <= 20.0


def fetch(server: Server, cache: Path) -> Any:
    with server.registry(None) as registry:
        return registry.fetch(Arch.X86_64, cache)


def test_documents_with_another_digest_are_refused(tmp_path: Path) -> None:
    other = empty_image(Arch.X86_64, {"X": "1"}).config_blob.content

    def answer(request: httpx.Request) -> httpx.Response:
        is_manifest = "/manifests/" in request.url.path
        content = IMAGE.manifest.content if is_manifest else other
        assert isinstance(content, bytes)
        return httpx.Response(200, content=content)

    with pytest.raises(BuildError, match="5 attempts: the content has another digest"):
        fetch(Server(answer), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_index_that_leads_to_another_manifest_is_refused(tmp_path: Path) -> None:
    entry = {"digest": digest_of(b"another"), "platform": {
        "os": "linux", "architecture": "amd64"}}  # fmt: skip
    index = httpx.Response(200, json={"manifests": [entry]})
    wrong = Blob("", "", 0, IMAGE.manifest.content).content
    assert isinstance(wrong, bytes)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/v1"):
            return httpx.Response(200, content=index.content)
        return httpx.Response(200, content=wrong)

    with pytest.raises(BuildError, match="sent other content than that of sha256:"):
        fetch(Server(answer), tmp_path)

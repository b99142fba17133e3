"""Deno's own parts, its module loader above all, are no way from one event to others.

They have clients, permissions and stores of their own, and obey variables that a
handler could set. The Runtime API of these tests counts what it accepts; a server that
nobody is kept from shows that the attempts are real.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.doubles import Answer, FakeRuntimeApi
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

LOADER = Path(__file__).parents[1] / "fixtures" / "loader.mjs"
NEXT = "/2018-06-01/runtime/invocation/next"
# With port 443, these are hosts that Deno lets everybody import from.
PLAIN, SECURE = f"http://esm.sh:443{NEXT}", "https://esm.sh/a@1.0.0"
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
TLS_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
UNSTABLE = ["kv", "cron", "net", "worker-options", "raw-imports"]
DENO_JSON = json.dumps({"unstable": UNSTABLE})
SETS = {
    "default": {"net": True, "env": True, "sys": True, "import": True},
    "listed": {"net": True, "env": ["HTTP*", "ALL_PROXY", "DENO_*"], "read": True},
    "everything": {"all": True},
}


def attempts(api: str) -> dict[str, dict[str, Any]]:
    """Return events, by what they try."""
    http, socks = f"http://{api}", f"socks5://{api}"
    registry = f"{http}/2018-06-01/runtime/invocation/"
    found: dict[str, dict[str, Any]] = {}
    for name in PROXIES:
        found[f"json by {name}"] = event("json", PLAIN, {name: http})
    for name in TLS_PROXIES:
        found[f"tunnel by {name}"] = event("import", SECURE, {name: http})
        found[f"npm by {name}"] = event("import", "npm:left-pad@1.3.0", {name: http})
    found |= {
        "by process.env": event("json", PLAIN, {"HTTP_PROXY": http}, byProcess=True),
        "text": event("text", PLAIN, {"HTTP_PROXY": http}),
        "bytes": event("bytes", PLAIN, {"HTTP_PROXY": http}),
        "worker": event("worker", PLAIN, {"HTTP_PROXY": http}),
        "import in a worker": event("importInWorker", PLAIN, {"HTTP_PROXY": http}),
        "npm in a worker": event("worker", "npm:left-pad", {"HTTPS_PROXY": http}),
        "jsr": event("import", "jsr:@std/assert", {"HTTPS_PROXY": http}),
        "socks": event("import", SECURE, {"ALL_PROXY": socks}),
        "npm by socks": event("import", "npm:left-pad@1.3.0", {"ALL_PROXY": socks}),
        "registry": event("import", "npm:next", {"NPM_CONFIG_REGISTRY": registry}),
        "registry, small": event(
            "import", "npm:next", {"npm_config_registry": registry}
        ),
        "registry in HOME": event(
            "import", "npm:next", files={".npmrc": f"registry={registry}\n"}
        ),
        "JSR_URL": event("import", "jsr:@std/assert", {"JSR_URL": http}),
        "JSR_NPM_URL": event("import", "npm:@jsr/std__assert", {"JSR_NPM_URL": http}),
        "cache": event("cache", env={"DENO_CACHE_LSC_ENDPOINT": f"{http},token"}),
        "cache in a worker": event(
            "cacheInWorker", env={"DENO_CACHE_LSC_ENDPOINT": f"{http},token"}
        ),
        "cron": event("cron", env={"DENO_UNSTABLE_CRON_SOCK": f"tcp:{api}"}),
        "kv by proxy": event(
            "kv",
            "http://a.test/x",
            {"HTTP_PROXY": http, "DENO_KV_ACCESS_TOKEN": "token"},
        ),
        "kv": event("kv", http, {"DENO_KV_ACCESS_TOKEN": "token"}),
        "kv by default": event("kv", env={"DENO_KV_DEFAULT_PATH": http}),
        "serve": event("serve", env={"DENO_SERVE_ADDRESS": f"tcp:{api}"}),
        "fetch": event("fetch", "http://a.test/", {"HTTP_PROXY": http}),
        "wasm": event("wasm", f"{http}{NEXT}"),
        "import": event("json", f"{http}{NEXT}"),
        "require": event("require", f"{http}{NEXT}"),
        "resolve": event("resolve", f"{http}{NEXT}"),
        "source map": event("sourceMap", f"{http}/map"),
        "source map of a module": event("sourceMapOfModule", f"{http}/map"),
    }
    return found


def event(
    way: str,
    argument: str | None = None,
    env: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {"way": way, "argument": argument, "env": env or {}, **more}


SETTINGS = {
    "default": "",
    "default-and-more": "default --deny-import=a.test",
    "none": "none",
    "environment-and-files": "--allow-env --allow-read",
    "imports": "--allow-env --allow-net --allow-import",
    "some-variables": f"--allow-env={','.join(PROXIES)},DENO_* --allow-net",
    "all": "all",
    "set": "-P",
    "set-with-variables": "-P=listed --allow-read",
    "set-of-everything": "-P=everything",
}


def files(setting: str = "") -> dict[str, str]:
    config: dict[str, Any] = {"unstable": UNSTABLE}
    if setting.startswith("-P"):
        config["permissions"] = SETS
    return {
        "function.mjs": LOADER.read_text(encoding="utf-8"),
        "deno.json": json.dumps(config),
    }


async def ask(api: FakeRuntimeApi, attempt: dict[str, Any]) -> Answer:
    """Have an event handled that is waited for, to the wait for the one after it."""
    api.deliver(json.dumps(attempt).encode())
    answer = await api.answer()
    await api.wait_for_next()
    return answer


# What shows a difference between settings at all; under a few everything is tried.
SHORT = (
    "json by HTTP_PROXY", "json by all_proxy", "tunnel by HTTPS_PROXY",
    "npm by HTTPS_PROXY", "by process.env", "import in a worker", "worker",
    "npm by socks", "registry in HOME", "cache in a worker", "kv by proxy", "import",
)  # fmt: skip
IN_FULL = ("default", "all", "imports")


@pytest.mark.cases(1)
@pytest.mark.parametrize("setting", SETTINGS)
async def test_the_loader_cannot_be_sent_to_the_runtime_api(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, setting: str
) -> None:
    environ = {"LAMBDA_DENO_PERMISSIONS": SETTINGS[setting]}
    async with make_runtime(files(SETTINGS[setting]), **environ):
        await api.wait_for_next()
        before = api.connections
        for name, attempt in attempts(api.address).items():
            if setting not in IN_FULL and name not in SHORT:
                continue
            answer = await ask(api, attempt)
            assert answer.call == "response", (name, answer.body)
            assert api.connections == before, (name, answer.body)


@pytest.mark.every_way("reuse", "server")
@pytest.mark.parametrize(
    "name",
    [
        "json by HTTP_PROXY", "tunnel by HTTPS_PROXY", "npm by HTTPS_PROXY", "worker",
        "cache in a worker", "kv by proxy",
    ],
)  # fmt: skip
async def test_nor_where_a_process_serves_more_than_one_event(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, name: str
) -> None:
    async with make_runtime(files()):
        await api.wait_for_next()
        before = api.connections
        answer = await ask(api, attempts(api.address)[name])
        assert answer.call == "response", answer.body
        assert api.connections == before, answer.body


async def bare(tmp_path: Path, attempt: dict[str, Any], **environ: str) -> str:
    """Run the same handler as it would be run anywhere else."""
    (tmp_path / "deno.json").write_text(DENO_JSON)
    script = tmp_path / "bare.mjs"
    script.write_text(
        f"{LOADER.read_text(encoding='utf-8')}\n"
        f"console.log(JSON.stringify(await handler({json.dumps(attempt)})));\n"
        "Deno.exit(0);\n"
    )
    process = await asyncio.create_subprocess_exec(
        deno_binary(), "run", "--quiet", "--no-prompt", "--allow-net", "--allow-env",
        "--allow-sys", f"--allow-read={tmp_path}", f"--allow-write={tmp_path}",
        f"--config={tmp_path / 'deno.json'}", script,
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path),
            "DENO_DIR": str(tmp_path / "bare_dir"), "NO_COLOR": "1",
            "DENO_NO_UPDATE_CHECK": "1", **environ,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(300):
        output, _ = await process.communicate()
    return output.decode(errors="replace")


@pytest.mark.parametrize(
    "name",
    [
        "json by HTTP_PROXY", "json by all_proxy", "tunnel by https_proxy",
        "npm by HTTPS_PROXY", "npm by ALL_PROXY", "by process.env", "worker", "socks",
        "npm by socks", "cache in a worker", "kv by proxy",
    ],
)  # fmt: skip
async def test_the_attempts_reach_a_server_that_nobody_is_kept_from(
    tmp_path: Path, name: str
) -> None:
    accepted = 0

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read(65_536)
        body = b'{"event": "of the next caller"}'
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        output = await bare(tmp_path, attempts(f"127.0.0.1:{port}")[name])
    assert accepted > 0, output
    assert ("of the next caller" in output) == (name.startswith(("json", "by")))


# Whom it trusts, and what it keeps.


class Impostor(NamedTuple):
    """A server that is trusted by whoever trusts its authority.

    Attributes:
        requests: First lines of what it was asked.
    """

    proxy: str
    authority: str
    requests: list[str]


@pytest.fixture
async def impostor(tmp_path: Path) -> AsyncIterator[Impostor]:
    """A proxy that serves modules of its own as esm.sh."""
    requests: list[str] = []
    certificate, key, authority = certificates()
    for name, text in (("cert.pem", certificate), ("key.pem", key)):
        (tmp_path / name).write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def tunnel(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.start_tls(context)
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(head.partition(b"\r\n")[0].decode())
        module = b"export default 'planted'"
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/javascript\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(module), module)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Impostor(f"http://127.0.0.1:{port}", authority.decode(), requests)
    finally:
        server.close()


def certificates() -> tuple[bytes, bytes, bytes]:
    """Return a certificate for esm.sh, its key, and the authority that signed it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def signed(name: str, public: ec.EllipticCurvePublicKey, ca: bool) -> bytes:
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("authority.test"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(
                x509.BasicConstraints(ca=ca, path_length=None), critical=True
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        done = builder.sign(authority_key, hashes.SHA256())
        return done.public_bytes(serialization.Encoding.PEM)

    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    authority = signed("authority.test", authority_key.public_key(), ca=True)
    return signed("esm.sh", key.public_key(), ca=False), private, authority


TRUST = {
    "DENO_CERT": {"DENO_CERT": "$TMPDIR/ca.pem"},
    "NODE_EXTRA_CA_CERTS": {"NODE_EXTRA_CA_CERTS": "$TMPDIR/ca.pem"},
    "SSL_CERT_FILE": {
        "DENO_TLS_CA_STORE": "system", "SSL_CERT_FILE": "$TMPDIR/ca.pem",
    },
}  # fmt: skip


@pytest.mark.parametrize("trust", TRUST)
async def test_bare_deno_is_planted_with_modules(
    tmp_path: Path, impostor: Impostor, trust: str
) -> None:
    proxy, authority, _ = impostor
    planted = event(
        "import", SECURE, {**TRUST[trust], "HTTPS_PROXY": proxy},
        files={"ca.pem": authority}, limitMs=10_000,
    )  # fmt: skip
    assert "planted" in await bare(tmp_path, planted)
    again = event("import", SECURE, limitMs=10_000)
    assert "planted" in await bare(tmp_path, again)


@pytest.mark.every_way("fresh", "reuse")
@pytest.mark.parametrize("cache", ["given", "own"])
@pytest.mark.parametrize("trust", TRUST)
async def test_no_event_plants_a_module(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    impostor: Impostor,
    trust: str,
    cache: str,
) -> None:
    proxy, authority, _ = impostor
    environ = {} if cache == "given" else {"DENO_DIR": ""}
    async with make_runtime(files(), **environ):
        planted = event(
            "import", SECURE, {**TRUST[trust], "HTTPS_PROXY": proxy},
            files={"ca.pem": authority},
        )  # fmt: skip
        for attempt in (planted, event("import", SECURE)):
            answer = await api.invoke(attempt)
            assert b"planted" not in answer.body, answer.body
            assert answer.call == "response"


@pytest.mark.parametrize("cache", ["given", "own"])
async def test_what_a_trusted_proxy_gives_to_one_event_is_not_the_next_one_s(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    impostor: Impostor,
    tmp_path: Path,
    cache: str,
) -> None:
    """Whoever deploys may name a proxy; what an event gets by it still ends with it."""
    proxy, authority, _ = impostor
    (tmp_path / "ca.pem").write_text(authority)
    environ = {"HTTPS_PROXY": proxy, "DENO_CERT": str(tmp_path / "ca.pem")}
    environ |= {} if cache == "given" else {"DENO_DIR": ""}
    given = tmp_path / "deno_dir"
    async with make_runtime(files(), **environ) as runtime:
        await api.wait_for_next()
        for _ in range(3):
            answer = await ask(api, event("import", SECURE, limitMs=10_000))
            assert answer.json() == {"found": '"planted"'}, "it is loaded"
            found = [*runtime.temp_root.rglob("*"), *given.rglob("*")]
            assert not any(
                path.is_file() and b"planted" in path.read_bytes() for path in found
            )


GROWS = """
const text = (name: string) =>
  `export const ${name}: string = "${"x".repeat(100_000)}"`;
export async function handler(event: { n: number }) {
  const name = `n${event.n}`;
  const source = text(name);
  await import(`data:text/typescript,${encodeURIComponent(source)}`);
  await import(URL.createObjectURL(
    new Blob([source], { type: "application/typescript" })));
  const file = `${Deno.env.get("TMPDIR")}/${name}.ts`;
  Deno.writeTextFileSync(file, source);
  await import(file);
  return Object.keys(await import(`${file}?again`));
}
"""


@pytest.mark.parametrize("cache", ["given", "own"])
@pytest.mark.parametrize("warm", ["ready", "off"])
async def test_what_an_event_imports_leaves_nothing_on_the_disk(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    tmp_path: Path,
    cache: str,
    warm: str,
) -> None:
    environ = {"LAMBDA_DENO_WARM": warm}
    environ |= {} if cache == "given" else {"DENO_DIR": ""}
    async with make_runtime({"function.ts": GROWS}, **environ) as runtime:
        sizes: list[tuple[int, int]] = []
        await api.wait_for_next()
        for n in range(40):
            answer = await ask(api, {"n": n})
            assert answer.json() == [f"n{n}"]
            paths = [*runtime.temp_root.rglob("*"), *(tmp_path / "deno_dir").rglob("*")]
            kept = [path for path in paths if path.is_file() and not path.is_symlink()]
            assert not any(
                "data" in path.parts or "blob" in path.parts for path in kept
            )
            sizes.append((len(paths), sum(path.stat().st_size for path in kept)))
            # Until other processes have loaded, what there is to learn is written down.
            if n >= 7 and len(set(sizes[-5:])) == 1:
                break
        else:
            pytest.fail(f"it grows: {sizes}")


# Variables that libraries look at.

LOOKS = """
import process from "node:process";
export function handler(event: any) {
  const seen = (name: string) => [
    Deno.env.get(name) ?? null, Deno.env.has(name), process.env[name] ?? null,
    name in process.env, Deno.env.toObject()[name] ?? null,
    Object.keys(process.env).includes(name),
  ];
  const before = seen(event.name);
  Deno.env.set(event.name, "set");
  const set = seen(event.name);
  process.env[event.name] = "set by process";
  const byProcess = seen(event.name);
  Deno.env.delete(event.name);
  const deleted = seen(event.name);
  Deno.env.set("OTHER", "other");
  return { before, set, byProcess, deleted, other: Deno.env.get("OTHER") };
}
"""


@pytest.mark.every_way
@pytest.mark.parametrize("has_set", [False, True])
async def test_what_deno_obeys_can_be_read_and_set_like_any_variable(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, has_set: bool
) -> None:
    environ = {"NODE_EXTRA_CA_CERTS": "/there/ca.pem"}
    config = json.dumps({"permissions": {"default": {"env": True}}})
    files = {"function.ts": LOOKS, "deno.json": config if has_set else "{}"}
    async with make_runtime(files, **environ):
        # Of a process that serves more than one, what was set stays, as everywhere.
        seen = (await api.invoke({"name": "NODE_EXTRA_CA_CERTS"})).json()
        there = "/there/ca.pem"
        assert seen["before"] == [there, True, there, True, there, True]
        assert seen["set"] == ["set", True, "set", True, "set", True]
        by = "set by process"
        assert seen["byProcess"] == [by, True, by, True, by, True]
        assert seen["deleted"] == [None, False, None, False, None, False]
        assert seen["other"] == "other"
        seen = (await api.invoke({"name": "HTTP_PROXY"})).json()
        assert seen["before"] == [None, False, None, False, None, False]
        assert seen["set"] == ["set", True, "set", True, "set", True]


async def test_a_file_of_variables_says_what_to_use_instead(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """It would set what must not be set; the error names the way that works."""
    source = """
import process from "node:process";
import { parseEnv } from "node:util";
export function handler(event: any) {
  if (event.loads) process.loadEnvFile("variables.env");
  for (const [name, value] of Object.entries(
    parseEnv(Deno.readTextFileSync("variables.env")))) {
    process.env[name] ??= value;
  }
  return Deno.env.get("TABLE");
}
"""
    files = {"function.ts": source, "variables.env": "TABLE=orders\n"}
    for permissions in ("", "all"):
        async with make_runtime(files, LAMBDA_DENO_PERMISSIONS=permissions):
            answer = (await api.invoke({"loads": True})).json()
            assert "use util.parseEnv" in answer["errorMessage"]
            assert (await api.invoke({})).json() == "orders"


@pytest.mark.parametrize("cache", ["given", "own"])
async def test_remote_modules_are_loaded_once_and_found_by_all(
    make_runtime: MakeRuntime,
    api: FakeRuntimeApi,
    impostor: Impostor,
    tmp_path: Path,
    cache: str,
) -> None:
    proxy, authority, _ = impostor
    (tmp_path / "ca.pem").write_text(authority)
    environ = {"HTTPS_PROXY": proxy, "DENO_CERT": str(tmp_path / "ca.pem")}
    environ |= {} if cache == "given" else {"DENO_DIR": ""}
    source = f'import said from "{SECURE}"; export const handler = () => said;'
    async with make_runtime({"function.ts": source}, **environ):
        for _ in range(4):
            assert (await api.invoke({})).json() == "planted"
        assert impostor.requests == ["GET /a@1.0.0 HTTP/1.1"]
        await api.wait_for_next()


async def test_a_package_that_cannot_be_added_says_what_to_do(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Deno's own words come from a registry, which tests have not: they are thrown."""
    source = """
export function handler() {
  throw new TypeError("Failed caching npm package 'left-pad@1.3.0'");
}
"""
    async with make_runtime({"function.ts": source}):
        message = (await api.invoke({})).json()["errorMessage"]
        assert "'left-pad@1.3.0'" in message
        assert "import it at the top of the module, or package it" in message
        await api.wait_for_next()

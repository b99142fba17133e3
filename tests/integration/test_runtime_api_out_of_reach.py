"""No handler reaches the Runtime API: every spelling, every client, every setting.

The server in its role listens on every address of this machine and counts what it
accepts. A second one, which nobody is kept from, shows that the attempts are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from lambda_deno_spawn.launch.addresses import local_addresses
from tests.doubles import FakeRuntimeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

REACH = (Path(__file__).parents[1] / "fixtures" / "reach.ts").read_text(
    encoding="utf-8"
)
# Set by the test that repeats this file's matrix in a network of its own.
NAMED_VARIABLE = "LDS_TEST_RUNTIME_API"
NAMES_VARIABLE = "LDS_TEST_NAMES"
NETWORK_LIMIT_S = 250.0

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1",
    "0177.0.0.1", "0177.1", "017700000001", "0x7f.0.0.01", "0177.0.0.0x1", "127.0.0.1.",
    "localhost", "LOCALHOST", "localhost.", "LocalHost.",
    "0.0.0.0", "0", "0x0", "00", "0.0", "0.0.0.0.",
    "127.0.0.2", "127.255.255.254", "0x7f.2",
    "127。0。0。1", "127｡0｡0｡1", "\uff11\uff12\uff17.0.0.1", "①②⑦.0.0.1", "ⓛocalhost",
    "%31%32%37.0.0.1", "127%2e0.0.1", "loc%61lhost",
]  # fmt: skip
LOOPBACK_IPV6 = [
    "[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "[::]", "[0::0]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:127.0.0.1]", "[::ffff:0.0.0.0]",
    "[::ffff:127.0.0.2]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
]  # fmt: skip
CLIENT_HOSTS = ["127.0.0.1", "localhost"]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = has_ipv6()
WILDCARDS = ("0.0.0.0", "::") if IPV6 else ("0.0.0.0",)


def own_names() -> list[str]:
    """Return names for this machine that its resolver knows, however it does."""
    names = [socket.gethostname(), "ip6-localhost", "localhost.localdomain"]
    names += os.environ.get(NAMES_VARIABLE, "").split()
    known = []
    for name in names:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(name, 1)
            known.append(name)
    return known


def spellings(host: str) -> list[str]:
    """Return all ways to write an address that this test knows."""
    if host == "169.254.100.1":
        return [
            host, "169.254.25601", "0xa9.0xfe.0x64.1", "0xa9fe6401", "2852021249",
            "0251.0376.0144.1", "169.16671745", "169。254。100。1", f"{host}.",
            "[::ffff:169.254.100.1]", "[::ffff:a9fe:6401]",
        ]  # fmt: skip
    return [host]


def all_hosts(named: str) -> list[str]:
    hosts = [*LOOPBACK, *(LOOPBACK_IPV6 if IPV6 else []), *local_addresses()]
    return list(dict.fromkeys([*hosts, *own_names(), *spellings(named)]))


@pytest.fixture(params=["127.0.0.1", "localhost", "[::1]"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[FakeRuntimeApi]:
    """A Runtime API on every address of this machine, named by one of them."""
    named = os.environ.get(NAMED_VARIABLE) or request.param
    if named == "[::1]" and not IPV6:
        pytest.skip("this machine has no IPv6 loopback")
    async with FakeRuntimeApi(hosts=WILDCARDS, named=named) as server:
        yield server


on_loopback = pytest.mark.parametrize("api", ["127.0.0.1"], indirect=True)

UNSTABLE = '"unstable": ["kv", "net"]'
SET = '"permissions": {"%s": {"net": true, "env": true, "sys": true, "import": %s}}'
ALLOW_ALL_BUT_RUN = (
    "--allow-net --allow-env --allow-sys --allow-read --allow-write --allow-import"
)
# What a user may write who wants just that: it must not lift the denial.
NAMES_IT = "--allow-env --allow-sys --allow-net={0} --allow-import={0}"
SETTINGS = {
    "default": ("", ""),
    "default-and-more": (
        "default --deny-net=10.0.0.0/8 --allow-import --deny-import=a.test", ""
    ),
    "none": ("none", ""),
    "flags": (ALLOW_ALL_BUT_RUN, ""),
    "flags-that-deny": (f"{ALLOW_ALL_BUT_RUN} --deny-net=a.test:1,b.test", ""),
    "flags-that-name-it": (NAMES_IT, ""),
    "set": ("", SET % ("default", "true")),
    "set-that-denies": (
        "-P=open",
        '"permissions": {"open": {"all": true, "net": {"allow": true, '
        '"deny": ["a.test"]}, "import": {"allow": true, "deny": ["b.test"]}}}',
    ),
    "all": ("all", ""),
    "allow-all": ("-A --deny-net=a.test", ""),
}  # fmt: skip


@pytest.mark.cases(1)
@pytest.mark.parametrize("setting", SETTINGS)
@on_loopback
async def test_no_spelling_and_no_client_reaches_it(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, setting: str
) -> None:
    await check(make_runtime, api, *SETTINGS[setting])


@pytest.mark.long
@pytest.mark.parametrize("api", ["localhost", "[::1]"], indirect=True)
async def test_nor_by_another_name_of_the_same(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    await check(make_runtime, api, "all", "")


async def check(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, permissions: str, config: str
) -> None:
    host = api.address.rpartition(":")[0]
    hosts = all_hosts(host)
    named = ["127.0.0.1", "127.0.0.2", "localhost", "[::1]", *local_addresses(), host]
    allowed = ",".join(f"{name}:{api.port}" for name in dict.fromkeys(named))
    content = ", ".join(part for part in (UNSTABLE, config) if part)
    files = {"function.ts": REACH, "deno.json": f"{{{content}}}"}
    runtime = make_runtime(files, LAMBDA_DENO_PERMISSIONS=permissions.format(allowed))
    event = {
        "hosts": hosts,
        "clients": list(dict.fromkeys([*CLIENT_HOSTS, host])),
        "names": ["0x7f.1", *own_names()],
        "port": api.port,
        "plainPatienceMs": 15_000,
    }
    async with runtime:
        await api.wait_for_next()
        before = api.connections
        api.deliver(orjson.dumps(event), timeout_s=30)
        answer = await api.answer()
        await api.wait_for_next()
        assert api.connections == before, answer.body
    assert answer.call == "response", answer.body
    results = answer.json()
    assert [name for name, said in results.items() if said == "REACHED"] == []
    if permissions == "none":
        return
    # By the denial, not by chance: everything that is an address of this machine.
    for host in ["127.0.0.1", "0x7f.1", "localhost", "0.0.0.0", *local_addresses()]:
        for name in ("fetch", "connect"):
            assert "net access" in results[f"{name} {host}"]


@on_loopback
async def test_the_attempts_reach_a_server_that_nobody_is_kept_from(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    files = {"function.ts": REACH, "deno.json": f"{{{UNSTABLE}}}"}
    async with (
        FakeRuntimeApi(hosts=WILDCARDS) as other,
        make_runtime(files, LAMBDA_DENO_PERMISSIONS="all"),
    ):
        event = {"hosts": all_hosts("127.0.0.1"), "clients": ["127.0.0.1"],
                 "names": [], "port": other.port, "plainPatienceMs": 6000}  # fmt: skip
        results = (await api.invoke(event, timeout_s=30)).json()
        assert other.connections > len(LOOPBACK)
        reached = {name for name, said in results.items() if said == "REACHED"}
        for host in ("127.1", "0x7f000001", "localhost", "0", *own_names()):
            assert f"connect {host}" in reached
        for client in ("nodeNet", "nodeNetLookup", "nodeHttp2"):
            assert f"{client} 127.0.0.1" in reached
        # Their connections are accepted; that nobody speaks their language is another
        # matter.
        attempts = {name.split()[0] for name in results}
        denied = {name.split()[0] for name, said in results.items() if "access" in said}
        assert denied == set(), {n: s for n, s in results.items() if "access" in s}
        assert {"import", "workerModule", "httpProxy", "socksProxy"} <= attempts
        await api.wait_for_next()


SOCKS = """
export async function handler(event: any) {
  const client = Deno.createHttpClient({ proxy: { url: `socks5://${event.host}` } });
  try {
    const signal = AbortSignal.timeout(300);
    const url = `http://${event.target}/2018-06-01/runtime/invocation/next`;
    return (await fetch(url, { client, signal } as any)).status;
  } catch (error) {
    return String(error);
  }
}
"""


@on_loopback
async def test_the_name_of_a_socks_proxy_lets_a_greeting_through_and_no_request(
    make_runtime: MakeRuntime, api: FakeRuntimeApi
) -> None:
    """Deno 2.9.8 does not look at what the name of such a proxy resolves to."""
    host = f"{socket.gethostname()}:{api.port}"
    async with make_runtime({"function.ts": SOCKS}, LAMBDA_DENO_PERMISSIONS="all"):
        for target in ("example.invalid", "a.test:80"):
            answer = await api.invoke({"host": host, "target": target})
            assert "Error" in answer.json()
        # Had it asked for an event, this one would have gone to it.
        assert "Error" in (await api.invoke({"host": host, "target": "b"})).json()
        await api.wait_for_next()


@pytest.mark.cases(1)
@on_loopback
@pytest.mark.parametrize("permissions", ["", "all", "--allow-env --allow-read"])
async def test_its_address_is_not_in_the_environment_either(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, permissions: str
) -> None:
    source = """
import { env } from "node:process";
export function handler(event: any) {
  const args = ["-c", `tr '\\\\0' '\\\\n' < /proc/${Deno.pid}/environ`];
  const listed = event.runs
    ? new TextDecoder().decode(new Deno.Command("sh", { args }).outputSync().stdout)
    : "";
  return [Deno.env.toObject(), { ...env }, listed];
}
"""
    async with make_runtime(
        {"function.ts": source}, LAMBDA_DENO_PERMISSIONS=permissions
    ):
        answer = await api.invoke({"runs": permissions == "all"})
        by_deno, by_node, listed = answer.json()
        assert by_deno["LDS_TEST_ID"] == by_node["LDS_TEST_ID"]
        assert ("LDS_TEST_ID" in listed) == (permissions == "all")
        assert b"AWS_LAMBDA_RUNTIME_API" not in answer.body
        assert api.address.encode() not in answer.body
        await api.wait_for_next()


@pytest.mark.long
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network of its own: needs root")
@pytest.mark.skipif(NAMED_VARIABLE in os.environ, reason="runs the others in a network")
async def test_all_of_this_holds_for_the_address_that_lambda_uses(
    tmp_path: Path,
) -> None:
    """With its own names for it, in a network and a view of the files of its own."""
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n169.254.100.1 runtime.test\n"
        f"127.0.0.1 loopback.test {socket.gethostname()}\n"
    )
    script = (
        "ip link set lo up && ip addr add 169.254.100.1/32 dev lo && "
        'mount --bind "$HOSTS" /etc/hosts && exec "$@"'
    )
    chosen = " or ".join(["default]", "all]", "name-it]"])
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", "--mount", "sh", "-c", script, "sh",
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        f"--basetemp={tmp_path}/inner", __file__,
        "-k", f"reaches_it and ({chosen})",
        env={**os.environ, "HOSTS": str(hosts), NAMED_VARIABLE: "169.254.100.1",
             NAMES_VARIABLE: "runtime.test loopback.test"},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(NETWORK_LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert b" passed" in output

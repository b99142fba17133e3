"""A loaded Deno that is forked for each event, by itself: without the supervisor."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.native import MACHINES, SOURCES, build_library
from lambda_deno_spawn.errors import TemplateError
from lambda_deno_spawn.native import control
from lambda_deno_spawn.native.control import (
    Folders,
    closed_environ,
    encode_request,
    library_path,
)
from lambda_deno_spawn.processes.launch import PASSED, launch
from tests.native.driver import LIMIT_S, GoneError, RefusedError, Template, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = [pytest.mark.deno, pytest.mark.as_lambda]

NATIVE = Path(__file__).parents[1] / "native"
FUNCTIONS = NATIVE / "functions.mjs"
NAMES = re.findall(
    r"^  (?:async )?(\w+)\(\) {", FUNCTIONS.read_text(encoding="utf-8"), re.M
)
ECHO = "export const handler = (event) => event;"
ASKED = 100  # how many children draw from every source
KILLED = 300


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library for this machine, built from the sources as they are."""
    machine = os.uname().machine
    if machine not in MACHINES:
        pytest.skip(f"Deno's library is not built for {machine}")
    changed_s = max(path.stat().st_mtime for path in SOURCES.glob("*.[ch]"))
    built = library_path()
    if built is not None and Path(built).stat().st_mtime > changed_s:
        return Path(built)
    return build_library(machine, tmp_path_factory.mktemp("native"))


@pytest.fixture
def echo(tmp_path: Path, library: Path) -> Iterator[Template]:
    """Return a template whose handler returns its event."""
    with Template(tmp_path, ECHO, library) as template:
        yield template


@pytest.fixture(scope="module")
def all_functions(
    tmp_path_factory: pytest.TempPathFactory, library: Path
) -> Iterator[Template]:
    """Return a template whose handler does what it is told."""
    folder = tmp_path_factory.mktemp("functions")
    with Template(folder, FUNCTIONS, library) as template:
        yield template


def descriptors(pid: int) -> dict[str, str]:
    folder = Path(f"/proc/{pid}/fd")
    return {path.name: str(path.readlink()) for path in folder.iterdir()}


def identity(number: str) -> str:
    """Leave of a link what does not tell one pipe from another."""
    return re.sub(r"\[\d+\]", "[]", number)


# ---- What a child can do ----


def test_a_template_says_that_it_is_one_and_may_be_forked(echo: Template) -> None:
    assert echo.greeting is not None
    assert echo.greeting.code == control.OK
    assert echo.greeting.pid == echo.process.pid
    assert echo.rested().code == control.OK


def test_each_child_answers_its_own_event(echo: Template) -> None:
    children = [echo.fork() for _ in range(8)]
    for number, child in enumerate(children):
        child.send({"number": number})
    answers = [child.finish() for child in children]
    assert [answer.value for answer in answers] == [{"number": n} for n in range(8)]
    assert {answer.kind for answer in answers} == {"RESULT"}


@pytest.mark.parametrize("name", NAMES)
def test_a_child_can_do_what_a_process_of_its_own_can(
    all_functions: Template, name: str
) -> None:
    outcome = all_functions.fork().run({"names": [name]})
    assert outcome.value == {name: True}


def test_a_child_can_do_all_of_it_one_after_the_other(all_functions: Template) -> None:
    outcome = all_functions.fork().run({"names": NAMES})
    assert outcome.value == dict.fromkeys(NAMES, True)


def test_the_functions_are_those_of_a_whole_process(all_functions: Template) -> None:
    names = [name for name in NAMES if name != "ownGroup"]
    assert all_functions.spawn().run({"names": names}).value == dict.fromkeys(
        names, True
    )


def test_a_child_begins_with_the_module_as_it_was_loaded(
    tmp_path: Path, library: Path
) -> None:
    source = "let count = 0;\nexport const handler = () => ++count;"
    with Template(tmp_path, source, library) as template:
        assert [template.fork().run().value for _ in range(3)] == [1, 1, 1]


def test_a_timer_of_the_module_fires_once_in_each_child(
    tmp_path: Path, library: Path
) -> None:
    source = """
    let fired = 0;
    setTimeout(() => fired++, 50);
    export async function handler() {
      await new Promise((resolve) => setTimeout(resolve, 150));
      return fired;
    }"""
    with Template(tmp_path, source, library) as template:
        assert [template.fork().run().value for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    "prelude",
    [
        "Deno.addSignalListener('SIGUSR2', () => come(1));",
        # After half a second Deno listens for a debugger's signal, by a thread.
        "await new Promise((resolve) => setTimeout(resolve, 800));"
        "Deno.addSignalListener('SIGUSR2', () => come(1));",
    ],
    ids=["at-once", "slow-to-load"],
)
def test_signals_reach_the_process_that_they_are_for(
    tmp_path: Path, library: Path, prelude: str
) -> None:
    source = f"""
    let come;
    const signalled = new Promise((resolve) => come = resolve);
    {prelude}
    export async function handler() {{
      setTimeout(() => {{}}, 10_000);
      return await signalled;
    }}"""
    with Template(tmp_path, source, library) as template:
        children = [template.fork() for _ in range(3)]
        for child in children:
            child.send()
        time.sleep(0.1)
        for child in children:
            os.kill(child.pid, signal.SIGUSR2)
            assert child.finish().value == 1
        assert template.fork().end() is not None
        assert template.rested().code == control.OK


@pytest.mark.long
def test_threads_that_have_waited_too_long_are_replaced(
    tmp_path: Path, library: Path
) -> None:
    """tokio gives up a thread after ten seconds, and joins the one before it."""
    source = """
    import { readFile } from "node:fs/promises";
    const read = () => Promise.all([1, 2, 3, 4].map(() => readFile("/etc/passwd")));
    await read();
    export async function handler() {
      await read();
      await new Promise((resolve) => setTimeout(resolve, 10_500));
      await read();
      await new Promise((resolve) => setTimeout(resolve, 10_500));
      return (await read()).length;
    }"""
    with Template(tmp_path, source, library) as template:
        assert template.fork().run().value == 4


# ---- Whose child it is ----


def test_a_child_is_the_supervisors_and_leads_a_group(echo: Template) -> None:
    child = echo.fork()
    text = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii")
    parent, group = text.rpartition(") ")[2].split()[1:3]
    assert (int(parent), int(group)) == (os.getpid(), child.pid)
    child.end()


def test_a_child_has_the_descriptors_of_a_whole_process(echo: Template) -> None:
    child, whole = echo.fork(), echo.spawn()
    forked = Counter(map(identity, descriptors(child.pid).values()))
    started = Counter(map(identity, descriptors(whole.pid).values()))
    databases = [link for link in started if "cache_v" in link]
    assert len(databases) == 9
    assert forked == (started - Counter(databases)) + Counter(
        {"/memfd:no-cache (deleted)": 9}
    )
    child.end()
    whole.end()


@pytest.mark.root  # a template is closed to its own user
def test_a_child_shares_nothing_with_its_template_or_another_child(
    echo: Template,
) -> None:
    children = [echo.fork(), echo.fork()]
    links = [
        {link for link in descriptors(pid).values() if re.search(r":\[\d+\]$", link)}
        for pid in (echo.process.pid, children[0].pid, children[1].pid)
    ]
    inherited = str(Path("/proc/self/fd/2").readlink())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert links[one] & links[other] <= {inherited}
    # All event counters have the same name; the kernel numbers them.
    numbers = [counters(pid) for pid in (echo.process.pid, *(c.pid for c in children))]
    assert len(set.union(*numbers)) == sum(map(len, numbers))
    for child in children:
        child.end()


def counters(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = path.read_text(encoding="ascii")
        found |= set(re.findall(r"^eventfd-id: *(\d+)$", text, re.M))
    return found


def test_a_child_ends_when_nobody_will_give_it_an_event(echo: Template) -> None:
    child = echo.fork()
    os.close(child.stdin)
    child.stdin = os.open(os.devnull, os.O_RDONLY)
    assert child.wait() == 0


# ---- What makes a process one that is not forked ----

REFUSALS = {
    "listener": ("Deno.listen({ port: 0 });", control.SOCKET),
    "server": ("Deno.serve({ port: 0, onListen() {} }, () => new Response());",
               control.SOCKET),
    "connection": (
        "const l = Deno.listen({ port: 0, hostname: '127.0.0.1' });"
        "await Deno.connect({ port: l.addr.port, hostname: '127.0.0.1' });"
        "l.close();",
        control.SOCKET,
    ),
    "node-server": (
        "import http from 'node:http'; http.createServer(() => {}).listen(0);",
        control.SOCKET,
    ),
    "datagrams": (
        "import dgram from 'node:dgram'; dgram.createSocket('udp4').bind(0);",
        control.SOCKET,
    ),
    "watcher": ("Deno.watchFs(Deno.env.get('TMPDIR'));", control.WATCHER),
    "worker": (
        "new Worker('data:application/javascript,onmessage = () => {}', "
        "{ type: 'module' });",
        control.WORKER,
    ),
    "node-worker": (
        "import { Worker } from 'node:worker_threads';"
        "new Worker('setInterval(() => {}, 1000)', { eval: true });",
        control.WORKER,
    ),
    "child-process": (
        "new Deno.Command('/bin/sleep', { args: ['60'] }).spawn().unref();",
        control.CHILD_PROCESS,
    ),
    "node-child-process": (
        "import { spawn } from 'node:child_process'; spawn('/bin/sleep', ['60']);",
        control.CHILD_PROCESS,
    ),
    "file": (
        "Deno.openSync(Deno.env.get('TMPDIR') + '/f', { write: true, create: true });",
        control.FILE_FOR_WRITING,
    ),
    "database": (
        "import { DatabaseSync } from 'node:sqlite';"
        "globalThis.d = new DatabaseSync(Deno.env.get('TMPDIR') + '/d');"
        "d.exec('create table t(a)');",
        control.FILE_FOR_WRITING,
    ),
    "pipe": (
        "import { openSync } from 'node:fs';"
        "const path = Deno.env.get('TMPDIR') + '/p';"
        "new Deno.Command('/usr/bin/mkfifo', { args: [path] }).outputSync();"
        "openSync(path, 'r+');",
        control.PIPE,
    ),
    # Two of them, as one may be lucky and find its primes at once.
    "work": (
        "for (const _ of [1, 2]) "
        "crypto.subtle.generateKey({ name: 'RSA-PSS', modulusLength: 8192, "
        "publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' }, true, "
        "['sign']);",
        control.BUSY,
    ),
}  # fmt: skip


@pytest.mark.cases(1)
@pytest.mark.parametrize(("source", "code"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_two_processes_cannot_share_is_refused_by_name(
    tmp_path: Path, library: Path, source: str, code: int
) -> None:
    with Template(tmp_path, f"{source}\n{ECHO}", library) as template:
        # The module is still busy with what it has begun, if that is not the reason.
        answer = template.probe() if code == control.BUSY else template.rested()
        assert (answer.code, answer.name) == (code, control.NAMES[code])
        assert answer.detail
        with pytest.raises(RefusedError, match=control.NAMES[code]):
            template.fork_now()
        # It still is an ordinary process.
        assert template.process.run({"a": 1}).value == {"a": 1}


SHARED = {
    "file-for-reading": "const f = Deno.openSync('/etc/passwd');",
    "database-in-memory": (
        "import { DatabaseSync } from 'node:sqlite';"
        "globalThis.d = new DatabaseSync(':memory:');"
    ),
    "interval": "setInterval(() => {}, 10);",
    "channel": "new BroadcastChannel('a').onmessage = () => {};",
    "waiting": "Atomics.waitAsync(new Int32Array(new SharedArrayBuffer(4)), 0, 0);",
    "foreign-function": (
        "Deno.dlopen('libc.so.6', { getpid: { parameters: [], result: 'i32' } });"
    ),
    "reading-is-not-done": "Deno.readTextFile('/etc/passwd');",
}


@pytest.mark.parametrize("source", SHARED.values(), ids=SHARED.keys())
def test_what_a_copy_can_have_is_no_reason_to_refuse(
    tmp_path: Path, library: Path, source: str
) -> None:
    with Template(tmp_path, f"{source}\n{ECHO}", library) as template:
        assert template.rested().code == control.OK
        assert template.fork().run({"a": 1}).value == {"a": 1}


def test_each_child_reads_a_file_of_the_module_from_its_own_place(
    tmp_path: Path, library: Path
) -> None:
    source = """
    const file = Deno.openSync("/etc/passwd");
    file.readSync(new Uint8Array(3));
    export function handler() {
      const bytes = new Uint8Array(4);
      file.readSync(bytes);
      return new TextDecoder().decode(bytes);
    }"""
    expected = Path("/etc/passwd").read_text(encoding="utf-8")[3:7]
    with Template(tmp_path, source, library) as template:
        assert [template.fork().run().value for _ in range(3)] == [expected] * 3


# ---- Chance ----


@pytest.mark.parametrize("forks", [120, pytest.param(1000, marks=pytest.mark.long)])
def test_no_source_of_randomness_repeats_in_many_children(
    tmp_path: Path, library: Path, forks: int
) -> None:
    seen: dict[str, set[str]] = {}
    drawn: Counter[str] = Counter()
    with Template(tmp_path, NATIVE / "randomness.mjs", library) as template:
        for begun in range(0, forks, 10):
            children = [template.fork() for _ in range(10)]
            for child in children:
                child.send({"all": begun < ASKED})
            for child in children:
                outcome = child.finish()
                assert outcome.kind == "RESULT", outcome.value
                for name, value in outcome.value.items():
                    seen.setdefault(name, set()).add(str(value))
                    drawn[name] += 1
    assert {name: len(values) for name, values in seen.items()} == drawn
    assert sum(count == forks for count in drawn.values()) == 6
    assert sum(count == ASKED for count in drawn.values()) == 18


def test_no_two_children_begin_tls_with_the_same_random_numbers(
    tmp_path: Path, library: Path
) -> None:
    """The server only takes down how each connection begins, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT_S)
    address = f"https://127.0.0.1:{listener.getsockname()[1]}/"
    source = f"""
    import {{ connect }} from "node:tls";
    const ask = () => fetch("{address}").catch(() => {{}});
    const askNode = () => new Promise((resolve) => {{
      const port = new URL("{address}").port;
      connect({{ port, host: "127.0.0.1" }}).on("error", resolve).on("close", resolve);
    }});
    await ask();
    await askNode();
    export async function handler() {{
      await ask();
      await askNode();
    }}"""
    hellos: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(LIMIT_S)
                    hellos.append(connection.recv(4096))

    server = threading.Thread(target=serve)
    server.start()
    try:
        with Template(tmp_path, source, library) as template:
            for _ in range(50):
                assert template.fork().run().kind == "RESULT"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
        listener.close()
    # RFC 8446, 4.1.2: behind record (5), message (4) and version (2).
    randoms = {hello[11:43] for hello in hellos if hello[:1] == b"\x16"}
    assert len(hellos) == len(randoms) == 102


# ---- Deno's databases ----


def test_children_that_are_killed_while_they_import_spoil_no_database(
    tmp_path: Path, library: Path
) -> None:
    source = """
    export async function handler({ from }) {
      for (let i = from; i < from + 20; i++) {
        const text = `export default ${i};` + "[].map((each) => each + 1);".repeat(100);
        const path = `${Deno.env.get("TMPDIR")}/imported-${i}.mjs`;
        Deno.writeTextFileSync(path, text);
        await import(`file://${path}`);
      }
    }"""
    databases = ("dep_analysis_cache_v2", "node_analysis_cache_v2", "v8_code_cache_v2")
    with Template(tmp_path, source, library) as template:
        folder = Path(template.environ["DENO_DIR"])
        before = {name: rows(folder / name) for name in databases}
        for number in range(KILLED):
            child = template.fork()
            child.send({"from": number * 20})
            time.sleep(number % 10 / 1000)
            child.end()
        # Another whole process uses them at the same time.
        outcome = template.spawn().run({"from": 0})
        assert outcome.kind == "RESULT", outcome.value
        for name in databases:
            connection = sqlite3.connect(folder / name)
            check = connection.execute("PRAGMA integrity_check").fetchone()
            connection.close()
            assert check == ("ok",)
        after = {name: rows(folder / name) for name in databases}
        assert all(after[name] >= before[name] for name in databases)
        assert template.fork().run({"from": 0}).kind == "RESULT"


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "select name from sqlite_master where type = 'table' and name != 'info'"
        ).fetchall()
        return sum(
            int(connection.execute(f"select count(*) from {name}").fetchone()[0])
            for (name,) in tables
        )


# ---- What goes wrong ----


def test_a_template_exits_once_the_supervisor_has_gone(echo: Template) -> None:
    child = echo.fork()
    echo.control.close()
    assert echo.process.wait() == 0
    assert child.run({"a": 1}).value == {"a": 1}


def test_a_template_that_was_killed_leaves_its_children_alive(echo: Template) -> None:
    child = echo.fork()
    os.kill(echo.process.pid, signal.SIGKILL)
    with pytest.raises(TemplateError):
        echo.fork()
    assert child.run({"a": 1}).value == {"a": 1}


def test_a_template_killed_at_any_moment_is_noticed(
    tmp_path: Path, library: Path
) -> None:
    before = children_of_this_process()
    for number in range(12):
        with Template(tmp_path / str(number), ECHO, library) as template:
            template.probe()
            (its_stdin, stdin), (stdout, its_stdout) = os.pipe(), os.pipe()
            template.control.fork(its_stdin, its_stdout, 2)
            os.close(its_stdin)
            os.close(its_stdout)
            time.sleep(number * 0.00008)
            os.kill(template.process.pid, signal.SIGKILL)
            with contextlib.suppress(TemplateError):
                answer = template.receive()
                if answer.code == control.BUSY:  # there is no child
                    os.close(stdin)
                    os.close(stdout)
                    continue
                assert answer.code == control.OK
                assert Waiting(answer.pid, stdin, stdout).run(1).value == 1
                continue
            template.process.end()
            # A child that nobody has heard of ends when its stdin does.
            os.close(stdin)
            os.close(stdout)
            for pid in children_of_this_process() - before:
                await_end(pid)


def children_of_this_process() -> set[int]:
    found = set()
    for path in Path("/proc/self/task").iterdir():
        found |= set(map(int, (path / "children").read_text().split()))
    return found


def await_end(pid: int) -> None:
    limit = time.monotonic() + LIMIT_S
    while not os.waitpid(pid, os.WNOHANG)[0]:
        assert time.monotonic() < limit, f"child {pid} lives on"
        time.sleep(0.005)


def test_an_event_that_comes_to_the_template_itself_is_served(echo: Template) -> None:
    assert echo.rested().code == control.OK
    echo.process.send({"a": 1})
    with pytest.raises(TemplateError, match="it has gone"):
        echo.receive()
    assert echo.process.finish().value == {"a": 1}


PACKETS = {
    "empty-kind": encode_request(0, 1),
    "unknown-kind": encode_request(9, 1),
    "short": b"LDSF",
    "long": encode_request(control.PROBE, 1) + b"x",
    "another-version": control.REQUEST.pack(
        control.MAGIC, 1, control.PROBE, 1, 0, b"", b""
    ),
    "another-mark": control.REQUEST.pack(7, 2, control.PROBE, 1, 0, b"", b""),
    "fork-without-descriptors": encode_request(control.FORK, 1),
    "folder-elsewhere": encode_request(control.PROBE, 1, 0, Folders("../elsewhere")),
    "folder-without-end": encode_request(control.PROBE, 1, 0, Folders("x" * 32)),
    "cache-without-folder": encode_request(control.PROBE, 1, 0, Folders("", "x")),
}


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS.keys())
def test_a_request_that_is_none_is_refused_and_the_next_one_served(
    echo: Template, packet: bytes
) -> None:
    raw = socket.socket(fileno=os.dup(echo.control.fileno()))
    raw.setblocking(True)
    raw.send(packet)
    refused = control.decode_answer(raw.recv(1024))
    raw.close()
    assert refused.code == control.BAD_REQUEST
    assert echo.fork().run(1).value == 1


@pytest.mark.root  # a template is closed to its own user
def test_descriptors_too_many_or_too_few_are_refused_and_closed(echo: Template) -> None:
    echo.probe()
    before = descriptors(echo.process.pid)
    raw = socket.socket(fileno=os.dup(echo.control.fileno()))
    raw.setblocking(True)
    for count in (1, 2, 4, 9):
        socket.send_fds(raw, [encode_request(control.FORK, 7)], [2] * count)
        assert control.decode_answer(raw.recv(1024)).code == control.BAD_REQUEST
    socket.send_fds(raw, [encode_request(control.PROBE, 7)], [2])
    assert control.decode_answer(raw.recv(1024)).code == control.BAD_REQUEST
    raw.close()
    assert descriptors(echo.process.pid) == before


def test_a_fork_that_the_system_refuses_is_an_answer(echo: Template) -> None:
    if os.geteuid() == 0:
        pytest.skip("no limit holds for root; `make test-as-lambda` runs it")
    assert echo.rested().code == control.OK
    before = resource.prlimit(echo.process.pid, resource.RLIMIT_NPROC)
    resource.prlimit(echo.process.pid, resource.RLIMIT_NPROC, (1, before[1]))
    with pytest.raises(RefusedError, match="fork failed: clone"):
        echo.fork()
    resource.prlimit(echo.process.pid, resource.RLIMIT_NPROC, before)
    assert echo.fork().run(1).value == 1


def test_a_module_that_exits_while_it_loads_ends_the_template(
    tmp_path: Path, library: Path
) -> None:
    template = Template(tmp_path, "Deno.exit(3);", library, stderr=subprocess.DEVNULL)
    with pytest.raises(GoneError):
        template.start()
    with contextlib.closing(template.control) as socket_, pytest.raises(TemplateError):
        socket_.receive()  # its greeting is from a process that is gone


@pytest.mark.root  # a template is closed to its own user
def test_many_children_leave_nothing_in_the_template(echo: Template) -> None:
    echo.fork().run(1)
    before = (descriptors(echo.process.pid), resident_kb(echo.process.pid))
    for _ in range(200):
        echo.fork().end()
    assert descriptors(echo.process.pid) == before[0]
    assert resident_kb(echo.process.pid) < before[1] + 512


def resident_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("RssAnon:")[2].split()[0])


# ---- A library that is not asked for, or is not there ----


def test_without_the_variable_the_library_does_nothing(
    tmp_path: Path, library: Path
) -> None:
    environ = {"LD_PRELOAD": str(library)}
    template = Template(tmp_path, ECHO, library, environ=environ)
    with contextlib.closing(template.control):
        assert template.spawn().run({"a": 1}).value == {"a": 1}


@pytest.mark.parametrize("value", ["", "2", "x", "99999999999", "0", "-1", "900"])
def test_a_variable_that_makes_no_sense_leaves_an_ordinary_process(
    tmp_path: Path, library: Path, value: str
) -> None:
    environ = {"LD_PRELOAD": str(library), control.VARIABLE: value}
    template = Template(tmp_path, ECHO, library, environ=environ)
    with contextlib.closing(template.control):
        assert template.spawn().run({"a": 1}).value == {"a": 1}


def test_a_library_that_is_not_there_leaves_an_ordinary_process(
    tmp_path: Path,
) -> None:
    missing = tmp_path / "missing.so"
    with Template(tmp_path, ECHO, missing, stderr=subprocess.DEVNULL) as template:
        assert template.greeting is None
        assert template.process.run({"a": 1}).value == {"a": 1}


def test_one_path_leads_each_child_to_its_own_folder(
    tmp_path: Path, library: Path
) -> None:
    (tmp_path / "s").symlink_to(control.ALIAS_TARGET)
    alias = str(tmp_path / "s" / "own")
    source = """
    export function handler() {
      const folder = Deno.env.get("TMPDIR");
      Deno.chdir(folder);
      Deno.writeTextFileSync("a", "");
      return [folder, Deno.realPathSync("."), Deno.cwd()];
    }
    """
    with Template(
        tmp_path, source, library, environ={control.ALIAS: alias},
        flags=[f"--allow-read={alias}", f"--allow-write={alias}", "--allow-env"],
    ) as template:  # fmt: skip
        (tmp_path / "another").mkdir()
        child = template.fork(folders=control.Folders("another"))
        assert child.run().value == [alias] * 3
    assert (tmp_path / "another" / "own" / "a").exists()


def test_a_template_whose_folder_that_path_cannot_lead_to_is_none(
    tmp_path: Path, library: Path
) -> None:
    environ = {control.ALIAS: str(tmp_path / "s" / "own")}
    with Template(tmp_path, ECHO, library, environ=environ) as template:
        assert str(template.greeting) == "system: the path that leads to its folder"
        assert template.process.run({"a": 1}).value == {"a": 1}


def test_another_library_that_is_preloaded_stays(tmp_path: Path, library: Path) -> None:
    source = 'export const handler = () => Deno.env.get("LD_PRELOAD");'
    other = "/other/library.so"
    environ = {"LD_PRELOAD": other}
    with Template(
        tmp_path, source, library, environ=environ, stderr=subprocess.DEVNULL
    ) as template:
        assert template.fork().run().value == other


def test_a_program_that_is_no_deno_can_have_it_too(library: Path) -> None:
    environ = {**os.environ, "LD_PRELOAD": str(library)}
    script = "import os, sys; sys.stdout.write(os.read(0, 5).decode())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"hello",
        env=environ,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"hello"


# ---- The price ----


def test_a_child_costs_a_fraction_of_a_whole_process(echo: Template) -> None:
    begun_s = echo.cpu_s()
    forked, started = [], []
    for _ in range(20):
        forked.append(spent_s(echo.fork().run(1).usage))
        started.append(spent_s(echo.spawn().run(1).usage))
    own_s = (echo.cpu_s() - begun_s) / 20
    assert statistics.median(forked) + own_s < 0.3 * statistics.median(started)


def spent_s(usage: Any) -> float:
    return float(usage.ru_utime + usage.ru_stime)


def test_what_one_child_has_touched_the_next_one_has_before_its_event(
    echo: Template,
) -> None:
    def faults_of_an_event() -> int:
        child = echo.fork()
        observed.append(echo.observe(child).code)
        before = faults(child.pid)
        child.send({"a": 1})
        child.read_until(b'"RESULT"')
        found = faults(child.pid) - before
        learned.append(echo.learn(child).code)
        child.end()
        return found

    observed: list[int] = []
    learned: list[int] = []
    first, second = faults_of_an_event(), faults_of_an_event()
    assert observed == learned == [control.OK, control.OK]
    assert second < first / 4


def faults(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    return int(text.rpartition(") ")[2].split()[7])


def test_there_is_nothing_to_learn_from_a_process_that_is_gone(echo: Template) -> None:
    child = echo.fork()
    child.end()
    assert echo.observe(child).code == control.NO_CHILD
    assert echo.learn(child).code == control.NO_CHILD
    assert echo.fork().run(1).value == 1


# What the library does, by a program that says what it had before.
TAKES_STREAMS = """
import os, socket
before = [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]
with socket.socket(fileno=4) as given:
    for n, fd in enumerate(socket.recv_fds(given, 1, 3)[1]):
        os.dup2(fd, n)
print(*before, os.readlink("/proc/self/fd/1").partition(":")[0])
"""


def said_by(argv: list[str], environ: dict[str, str]) -> str:
    """Start a program that is closed to others; return what it writes to stdout."""
    started = launch(argv, environ, str(Path.cwd()), is_closed=True)
    os.close(started.stdin)
    os.set_blocking(started.stdout, True)
    with os.fdopen(started.stdout, encoding="utf-8") as stdout:
        said = stdout.read()
    os.waitpid(started.pid, 0)
    os.close(started.stderr)
    return said


def test_a_closed_process_has_no_streams_before_it_takes_them(library: Path) -> None:
    """Before it has closed itself, other processes of its user could open them."""
    said = said_by([sys.executable, "-S", "-c", TAKES_STREAMS], {})
    assert said.split() == [os.devnull] * 3 + ["pipe"]
    environ = closed_environ({"PATH": os.environ["PATH"]}, str(library), PASSED)
    script = "cat; env; test -r /proc/$$/environ && echo open"
    variables = said_by(["/bin/sh", "-c", script], environ).splitlines()
    assert not [one for one in variables if "SPAWN" in one or "PRELOAD" in one]
    assert ("open" in variables) is (os.geteuid() == 0)

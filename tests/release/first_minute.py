"""A newcomer's first minute, timed: ``python -m tests.release.first_minute``.

Runs the lines of README's "Install" and "Sixty seconds" in an empty place: Python 3.11
is all that is on PATH, home and caches are empty, and as root it has mounts and
processes of its own, with an empty ``/tmp``. Two things are stand-ins: the package
comes from a wheel built here in place of PyPI (its dependencies come from the index),
and AWS is moto's server.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.package.interpreter import find_interpreter
from tests.fixtures.aws import aws_stand_in
from tests.fixtures.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PYTHON = "3.11"
LIMIT_S = 600.0
# Of the caller's variables: how registries of packages are reached, and the stand-in's.
KEPT = (
    "PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "DENO_CERT", "DENO_TLS_",
    "NODE_EXTRA_CA_CERTS", "NPM_CONFIG_", "npm_config_", "AWS_", "LANG",
)  # fmt: skip


class StepError(Exception):
    """A line of README does not do what it says."""


def main() -> int:
    """Start the stand-in, build the wheel, and go through README elsewhere."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inside", metavar="WHEEL", help=argparse.SUPPRESS)
    inside = parser.parse_args().inside
    if inside is not None:
        return go_through(Path(inside), enclosed=True)
    with (
        tempfile.TemporaryDirectory(dir=ROOT / ".venv") as folder,
        aws_stand_in() as aws,
    ):
        build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir")
        subprocess.run([*build, folder, "."], cwd=ROOT, check=True, capture_output=True)
        (wheel,) = Path(folder).glob("*.whl")
        os.environ.update(aws, AWS_DEFAULT_REGION=aws["AWS_REGION"])
        unshare = shutil.which("unshare")
        if os.geteuid() != 0 or unshare is None or sys.platform != "linux":
            return go_through(wheel, enclosed=False)
        command = [
            unshare,
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ]
        command += [sys.executable, "-m", __spec__.name, "--inside", str(wheel)]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


def go_through(wheel: Path, *, enclosed: bool) -> int:
    """Run README's lines in an empty place, and print how long each took."""
    if enclosed:
        # Only here: the namespace ends with this process.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)
    interpreter = find_interpreter(PYTHON, os.environ)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        programs = place / "bin"
        programs.mkdir()
        for name in ("python3", f"python{PYTHON}"):
            (programs / name).symlink_to(interpreter.path.resolve())
        for name in ("home", "project"):
            (place / name).mkdir()
        environ = {
            **{k: v for k, v in os.environ.items() if k.startswith(KEPT)},
            "PATH": f"{place}/project/.venv/bin:{programs}",
            "HOME": str(place / "home"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_COLOR": "1",
        }
        environ.pop("PIP_CACHE_DIR", None)
        print(
            f"Python {interpreter.release}, {'' if enclosed else 'not '}in namespaces "
            f"of its own; empty home and caches; {wheel.name} in place of PyPI's",
            flush=True,
        )
        total_s = 0.0
        for line in readme_lines():
            passed_s, shown = step(line, wheel, place / "project", environ)
            total_s += passed_s
            print(f"{passed_s:6.1f} s  {line}\n{shown}", flush=True)
        print(f"{total_s:6.1f} s  all of it")
    return 0


def readme_lines() -> list[str]:
    """Return the commands of README's two first sections, without comments."""
    text = (ROOT / "README.md").read_text("utf-8")
    lines = ["python3 -m venv .venv"]
    for heading, part in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## )", text, re.S | re.M):
        if heading == "Install":
            lines += re.findall(r"^    (pip install .*)$", part, re.M)[:1]
        if heading.startswith("Sixty seconds"):
            lines += re.findall(r"^    (lambda-deno-spawn [^#\n]*)", part, re.M)
    lines = [line.strip() for line in lines]
    for wanted in ("pip install", "-spawn new", "-spawn dev", "-spawn deploy"):
        if not any(wanted in line for line in lines):
            raise StepError(f"README.md has no line with {wanted!r}")
    # This one does not end by itself.
    return [line for line in lines if "--follow" not in line]


def step(
    line: str, wheel: Path, folder: Path, environ: Mapping[str, str]
) -> tuple[float, str]:
    """Run a line; return the seconds it took, and a part of its output."""
    words = shlex.split(line)
    if words[0] == "pip":
        words = [str(wheel) if word == "lambda-deno-spawn" else word for word in words]
        words.insert(2, "--quiet")
    if words[1] == "dev":
        return first_answers(words, folder, environ)
    if words[1] == "deploy":
        words.append("--yes")
    program = shutil.which(words[0], path=environ["PATH"])
    if program is None:
        raise StepError(f"{line}: {words[0]!r} is not on PATH")
    started_s = time.monotonic()
    done = subprocess.run(
        [program, *words[1:]],
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    passed_s = time.monotonic() - started_s
    if done.returncode != 0:
        raise StepError(f"{line}: exit code {done.returncode}\n{done.stderr}")
    return passed_s, last_lines(done.stdout)


def last_lines(text: str, count: int = 3) -> str:
    """Return the end of an output, indented."""
    return "".join(f"          {line[:100]}\n" for line in text.splitlines()[-count:])


def first_answers(
    words: list[str], folder: Path, environ: Mapping[str, str]
) -> tuple[float, str]:
    """Start ``dev``, ask once, and again; return the seconds until the first answer."""
    port = free_port()
    program = shutil.which(words[0], path=environ["PATH"])
    assert program is not None
    started_s = time.monotonic()
    server = subprocess.Popen(
        [program, *words[1:], "--port", str(port)],
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        wait_for_port(port, server, started_s)
        status, body = ask(port)
        passed_s = time.monotonic() - started_s
        asked_s = time.monotonic()
        ask(port)
        again_s = time.monotonic() - asked_s
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        _, log = server.communicate(timeout=60)
    if status >= 500:
        raise StepError(f"dev answered {status}: {body}\n{log.decode()}")
    return passed_s, last_lines(f"{status} {body}; the second request: {again_s:.3f} s")


def wait_for_port(port: int, server: subprocess.Popen[bytes], since_s: float) -> None:
    """Return when a server listens."""
    while time.monotonic() - since_s < LIMIT_S:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if server.poll() is not None:
            raise StepError(f"dev ended with {server.returncode}")
        time.sleep(0.02)
    raise StepError("dev does not listen")


def ask(port: int) -> tuple[int, str]:
    """Send one request to the function."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/hello/Ada")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StepError as error:
        sys.exit(f"Stopped: {error}")

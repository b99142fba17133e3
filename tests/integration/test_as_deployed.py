"""What ``build`` and ``layer build`` make, run where Lambda would run it.

The zips are unpacked to where Lambda unpacks them and nothing else of ours is there:
``/opt`` and ``/var/task`` read-only, a ``/tmp`` of 512 MB, an unprivileged user, memory
and CPU of the function's size. AWS's emulator starts the runtime, AWS's SDK calls it.
The interpreter of a managed runtime is stood in for by one of this machine; so are the
few lines of AWS's own start script (tests/fixtures/var_runtime).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import zipfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import orjson
import pytest

from lambda_deno_spawn.dev.package.build import BuildOptions, build
from lambda_deno_spawn.dev.package.interpreter import find_interpreter
from lambda_deno_spawn.dev.package.layer import DEFAULT_PYTHON
from lambda_deno_spawn.dev.project.project import Arch, load_project
from tests.cgroups import MIB, Cgroup, unavailable
from tests.fixtures.aws import aws_stand_in
from tests.fixtures.packages import DENO_DIR, download, fetch_bundler
from tests.integration.rie import INVOKE_PATH, MARK, running_rie
from tests.lambda_root import ROOT, LambdaRoot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from tests.integration.rie import Rie

pytestmark = [
    pytest.mark.root,
    pytest.mark.rie,
    pytest.mark.deno,
]

PYTHON = DEFAULT_PYTHON
EXAMPLES = ROOT / "examples"
RIE = "/var/rapid/aws-lambda-rie"
# The emulator runs in the same control group, where Lambda's own part does not.
EMULATOR_BYTES = 24 * MIB
MEGABYTES_OF_A_CPU = 1769  # AWS "Configure Lambda function memory"
READ_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Place:
    """A way to run on Lambda: what lies where, and how the runtime is started."""

    places: Mapping[str, Path]
    command: tuple[str, ...]
    environ: Mapping[str, str]


def unzip(archives: Sequence[Path], target: Path) -> Path:
    """Unpack as Lambda does: later ones over earlier ones, readable by everybody."""
    for archive in archives:
        with zipfile.ZipFile(archive) as content:
            for info in content.infolist():
                mode = info.external_attr >> 16
                path = target / info.filename
                if stat.S_ISLNK(mode):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(content.read(info).decode())
                else:
                    content.extract(info, target)
                    path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)
    return target


@pytest.fixture(scope="session")
def managed(layers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Managed Python with the deno and the runtime layer, and the exec wrapper."""
    arch = Arch.here()
    opt = unzip(
        [layers / f"{kind}-layer-{arch}.zip" for kind in ("deno", "runtime")],
        tmp_path_factory.mktemp("managed") / "opt",
    )
    lang = find_interpreter(PYTHON, os.environ).path.resolve().parent.parent
    yield Place(
        {
            "/opt": opt,
            "/var/lang": lang,
            "/var/runtime": ROOT / "tests" / "fixtures" / "var_runtime",
        },
        ("/var/runtime/bootstrap",),
        {
            "AWS_LAMBDA_EXEC_WRAPPER": "/opt/lambda-deno-spawn",
            "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:"
            "/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
            "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
            "PYTHONPATH": "/opt/python/lib/python3.13/site-packages:/opt/python",
            "TEST_PYTHON": f"python{PYTHON}",
        },
    )
    shutil.rmtree(opt)


@pytest.fixture(scope="session")
def os_only(layers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """``provided.al2023`` with all three layers; the emulator looks for a bootstrap."""
    arch = Arch.here()
    opt = unzip(
        [layers / f"{kind}-layer-{arch}.zip" for kind in ("deno", "runtime", "python")],
        tmp_path_factory.mktemp("os-only") / "opt",
    )
    yield Place(
        {"/opt": opt},
        (),
        {
            "LD_LIBRARY_PATH": "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:"
            "/var/task:/var/task/lib:/opt/lib",
            "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        },
    )
    shutil.rmtree(opt)


@pytest.fixture(params=["managed", "os_only"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


class Deploy:
    """Builds examples, each of them once, and runs them in a place."""

    def __init__(self, rie_binary: Path, scratch: Path) -> None:
        self._rie = rie_binary
        self._scratch = scratch
        self._tasks: dict[str, Path] = {}

    def task(self, example: str) -> Path:
        """Return the unpacked package of an example."""
        if example not in self._tasks:
            folder = EXAMPLES / example
            fetch_bundler()
            if (folder / "deno.lock").exists():
                download(folder)
            options = BuildOptions(
                load_project(folder),
                Arch.here(),
                self._scratch / "dist",
                is_bundled=load_project(folder).bundle,
            )
            package = build(options, {**os.environ, "DENO_DIR": str(DENO_DIR)})
            self._tasks[example] = unzip([package.path], self._scratch / example)
        return self._tasks[example]

    @contextmanager
    def run(
        self,
        place: Place,
        task: Path,
        *,
        handler: str = "function.handler",
        memory_mb: int = 512,
        is_limited: bool = False,
        environ: Mapping[str, str] | None = None,
        as_root: bool = False,
    ) -> Iterator[Rie]:
        """Start the emulator there; with limits it has the CPU that goes with them."""
        places = {**place.places, "/var/task": task, RIE: self._rie}
        root = LambdaRoot(places, as_root=as_root)
        limits = (
            Cgroup.create(
                memory_bytes=memory_mb * MIB + EMULATOR_BYTES,
                cpus=memory_mb / MEGABYTES_OF_A_CPU,
            )
            if is_limited
            else nullcontext()
        )
        log = self._scratch / f"log-{task.name}"
        with limits as group:

            def start(
                arguments: Sequence[str], output: IO[bytes], mark: str
            ) -> subprocess.Popen[bytes]:
                command = root.command([RIE, *arguments, *place.command])
                return subprocess.Popen(
                    command if group is None else group.command(command),
                    cwd=ROOT,
                    env={
                        **variables(handler, memory_mb, mark),
                        **place.environ,
                        **(environ or {}),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

            with running_rie(start, log, read_timeout_s=READ_TIMEOUT_S) as rie:
                try:
                    yield rie
                finally:
                    assert rie.stop() == []


def variables(handler: str, memory_mb: int, mark: str) -> dict[str, str]:
    """Return what Lambda sets and the emulator does not; nothing of this machine."""
    return {
        MARK: mark,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "90",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_REGION": "eu-central-1",
        "AWS_SECRET_ACCESS_KEY": "test",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": handler,
    }


@pytest.fixture(scope="session")
def deploy(rie_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    return Deploy(rie_binary, tmp_path_factory.mktemp("deploy"))


def event(path: str) -> Any:
    """Read an example's event."""
    return orjson.loads((EXAMPLES / path).read_bytes())


@pytest.mark.cases(1)
def test_hello_is_served_by_a_process_of_its_own(place: Place, deploy: Deploy) -> None:
    with deploy.run(place, deploy.task("hello")) as rie:
        for _ in range(2):
            answer = rie.invoke(event("hello/event.json"))
            assert answer["message"] == "Hello Lambda"
            assert answer["servedByThisProcess"] == 1
    assert "Greeting Lambda" in rie.log.read_text()


def hono(rie: Rie, name: str) -> tuple[int, Any]:
    result = rie.invoke(event(f"hono-api/events/{name}.json"))
    return result["statusCode"], orjson.loads(result["body"])


def test_hono_api_answers_from_its_bundle(place: Place, deploy: Deploy) -> None:
    with deploy.run(place, deploy.task("hono-api")) as rie:
        status, body = hono(rie, "search")
        assert status == 200
        assert [book["title"] for book in body["books"]] == ["Pride and Prejudice"]
        status, body = hono(rie, "order")
        assert (status, body["total"]) == (201, 19.98)
        status, body = hono(rie, "bad-order")
        assert status == 400
        assert sorted(body["error"]["fieldErrors"]) == ["isbn", "quantity"]


def test_inventory_finds_its_data_and_names_its_files(
    place: Place, deploy: Deploy
) -> None:
    with deploy.run(place, deploy.task("inventory")) as rie:
        listed = rie.invoke(event("inventory/events/list.json"))
        assert [item["sku"] for item in listed["items"]] == ["lamp-01", "chair-02"]
        failed = rie.invoke(event("inventory/events/out-of-stock.json"))
        assert failed["errorMessage"] == "The order cannot be fulfilled"
        assert "/var/task/lib/stock.ts:" in failed["cause"]["stackTrace"][0]


@pytest.mark.cases(1)
def test_s3_csv_is_summarised_by_the_sdk_in_the_bundle(
    place: Place, deploy: Deploy
) -> None:
    with aws_stand_in() as aws:
        client = boto3.client("s3", **client_arguments(aws))
        location = {"LocationConstraint": aws["AWS_REGION"]}
        client.create_bucket(Bucket="reports", CreateBucketConfiguration=location)
        csv = (EXAMPLES / "s3-thumbnail-or-csv/sales.csv").read_bytes()
        client.put_object(Bucket="reports", Key="2026/sales north.csv", Body=csv)
        task = deploy.task("s3-thumbnail-or-csv")
        with deploy.run(place, task, environ=aws) as rie:
            answer = rie.invoke(event("s3-thumbnail-or-csv/events/created.json"))
    key = "2026/sales north.summary.json"
    assert answer == {"written": [{"bucket": "reports", "key": key}]}


def client_arguments(aws: Mapping[str, str]) -> dict[str, str]:
    return {
        "endpoint_url": aws["AWS_ENDPOINT_URL_S3"],
        "region_name": aws["AWS_REGION"],
        "aws_access_key_id": aws["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": aws["AWS_SECRET_ACCESS_KEY"],
    }


def test_sqs_batch_reports_the_messages_that_failed(
    place: Place, deploy: Deploy
) -> None:
    with deploy.run(place, deploy.task("sqs-batch")) as rie:
        failures = rie.invoke(event("sqs-batch/events/batch.json"))
    failed = [item["itemIdentifier"] for item in failures["batchItemFailures"]]
    assert [identifier[:8] for identifier in failed] == ["00000002", "00000004"]
    log = rie.log.read_text()
    assert "RangeError: Cannot book -5 cents for grace" in log
    assert "(file:///var/task/function.ts:" in log, "by the bundle's source map"


def test_stream_is_complete(place: Place, deploy: Deploy) -> None:
    with deploy.run(place, deploy.task("stream")) as rie:
        body = rie.post(event("stream/events/prompt.json")).text
    assert body.startswith("You asked: Why does an event")
    assert body.endswith("is left behind.")


def test_webhook_refuses_what_is_forged(place: Place, deploy: Deploy) -> None:
    task = deploy.task("webhook")
    with deploy.run(place, task, environ={"WEBHOOK_SECRET": "local-secret"}) as rie:
        assert rie.invoke(event("webhook/events/push.json"))["statusCode"] == 202
        assert rie.invoke(event("webhook/events/forged.json"))["statusCode"] == 401


@pytest.mark.skipif(
    unavailable("memory", "cpu") != "", reason=unavailable("memory", "cpu")
)
@pytest.mark.parametrize("memory_mb", [128, 256, 1769], ids="{}-mb".format)
def test_size_of_the_function_is_enough(
    managed: Place, deploy: Deploy, memory_mb: int
) -> None:
    """128 MB is 7 % of a CPU: all of it is slow, and none of it may fail."""
    task = deploy.task("hono-api")
    with deploy.run(managed, task, memory_mb=memory_mb, is_limited=True) as rie:
        for _ in range(2):
            status, body = hono(rie, "order")
            assert (status, body["total"]) == (201, 19.98)
    assert "Runtime.OutOfMemory" not in rie.log.read_text()


def test_cache_of_the_package_is_used(managed: Place, deploy: Deploy) -> None:
    """V8's code of the bundle and of the runtime's own module was made by ``build``."""
    task = deploy.task("hono-api")
    with deploy.run(managed, task, environ={"DENO_LOG": "debug"}) as rie:
        assert hono(rie, "search")[0] == 200
    log = rie.log.read_text()
    runtime_js = "/opt/lib/lambda-deno-spawn/lambda_deno_spawn/js/runtime.js"
    for module in ("/var/task/function.bundle.js", runtime_js):
        hit, miss = (
            f"{what} ES module: file://{module}"
            for what in ("V8 code cache hit for", "Updating V8 code cache for")
        )
        assert hit in log
        assert miss not in log


def test_layer_for_another_python_says_so(managed: Place, deploy: Deploy) -> None:
    with deploy.run(
        managed, deploy.task("hello"), environ={"TEST_PYTHON": "python3.12"}
    ) as rie:
        rie.post({})
    sentence = (
        "Cannot start lambda-deno-spawn: the function's runtime is 'python3.12', and "
        "the runtime layer is not made for it (it is for: python3.13)"
    )
    assert sentence in rie.log.read_text()


CONCURRENCY = 16
# The emulator's name for: nobody has asked for an event.
UNAVAILABLE = "Runtime.Unavailable"
LOOK = """
export const handler = async (event, context) => {
  await new Promise((go) => setTimeout(go, event.wait));
  return { n: event.n, id: context.awsRequestId, pid: Deno.pid, uid: Deno.uid() };
};
"""


@pytest.mark.parametrize("strategy", ["fresh", "server"])
def test_sixteen_events_in_flight_on_a_managed_instance(
    os_only: Place, deploy: Deploy, tmp_path: Path, strategy: str
) -> None:
    task = tmp_path / "task"
    task.mkdir()
    (task / "function.mjs").write_text(LOOK)
    environ = {
        "AWS_LAMBDA_MAX_CONCURRENCY": str(CONCURRENCY),
        "LAMBDA_DENO_STRATEGY": strategy,
    }
    # The emulator of this mode starts its runtime as Lambda's user by itself.
    with deploy.run(
        os_only, task, memory_mb=2048, environ=environ, as_root=True
    ) as rie:
        for number in range(3):
            answers = asyncio.run(post_all(rie, number))
            assert [answer["n"] for answer in answers] == [
                f"{number}-{n}" for n in range(CONCURRENCY)
            ]
            assert {answer["uid"] for answer in answers} == {993}
            assert len({answer["id"] for answer in answers}) == CONCURRENCY
            pids = {answer["pid"] for answer in answers}
            assert len(pids) == (CONCURRENCY if strategy == "fresh" else 1)


async def post_all(rie: Rie, number: int) -> list[Any]:
    """Send events at once, each again while nobody has asked for it."""
    url = f"http://{rie.address}{INVOKE_PATH}"
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(
        trust_env=False, timeout=READ_TIMEOUT_S, limits=limits
    ) as client:

        async def post(n: int) -> Any:
            event = {"n": f"{number}-{n}", "wait": 300 + 10 * n}
            while True:
                answer = await client.post(url, json=event)
                if answer.headers.get("Error-Type") != UNAVAILABLE:
                    return answer.json()

        return await asyncio.gather(*(post(n) for n in range(CONCURRENCY)))

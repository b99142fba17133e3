"""Fixtures of the tests that cross a process or socket boundary."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from lambda_deno_spawn.dev.package.layer import Kind, LayerOptions, build_layers
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.launch.module_cache import LEARNED, ROUNDS
from lambda_deno_spawn.native.control import library_path
from tests.doubles import FakeRuntimeApi
from tests.fixtures.aws import reset
from tests.fixtures.cloud import Cloud, moto
from tests.fixtures.layers import layer_python
from tests.fixtures.registry import programs, registry
from tests.integration.harness import RuntimeUnderTest
from tests.integration.rie import RieUnavailableError
from tests.integration.rie import rie_binary as find_rie_binary
from tests.short import WAY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class MakeRuntime(Protocol):
    """Builds a runtime for files given by name; ``async with`` starts it."""

    def __call__(
        self,
        files: dict[str, str] | Path,
        handler: str = "function.handler",
        **environ: str | None,
    ) -> RuntimeUnderTest:
        """Write the files into a task root and return the runtime for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what takes root where there is none; CI runs the suite with and without."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
async def api() -> AsyncIterator[FakeRuntimeApi]:
    """A Runtime API of this test's own."""
    async with FakeRuntimeApi() as server:
        yield server


# What a test has that is not marked ``every_way``: the runtime's own choice.
DEFAULT = "auto"
# Ways in which the same handler can be reached, by the settings that choose them.
WAYS = {
    # A `deno run` for each event: tests may count processes and lines of the log.
    "fresh": {"LAMBDA_DENO_START": "exec"},
    # From the first event on; a start where that is not possible is an init error.
    "fork": {"LAMBDA_DENO_START": "fork"},
    "reuse": {"LAMBDA_DENO_MAX_INVOCATIONS": "1000"},
    "server": {"LAMBDA_DENO_STRATEGY": "server"},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked ``every_way`` in each way, or in those that the mark names."""
    if "make_runtime" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("every_way")
    if marker is not None:
        ways = [way for way in WAYS if way in (marker.args or WAYS)]
        if library_path() is None:  # `make native` builds it
            ways = [way for way in ways if way != "fork"]
        metafunc.parametrize(WAY, ways, indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """Return how the runtime of this test reaches handlers."""
    return getattr(request, "param", DEFAULT)


@pytest.fixture
def short_tmp_path() -> Iterator[Path]:
    """Return a folder whose name leaves room for that of a socket in it."""
    with tempfile.TemporaryDirectory(prefix="lds-") as path:
        yield Path(path)


@contextmanager
def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> Iterator[tuple[Path, Path | None]]:
    """Lend a folder that the first of all workers of pytest-xdist fills.

    Yields:
        The folder in which nothing may be changed, and one to fill in its place; None
        if it has been filled.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    made, unfinished = root / name, root / f"{name}.unfinished"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a worker that waits makes nothing
        if made.exists():
            yield made, None
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        yield made, unfinished
        unfinished.rename(made)


# Handlers that load each of our own modules, by the settings that go with them.
LOADERS: tuple[tuple[str, dict[str, str | None]], ...] = (
    ("export const handler = () => 1;", {}),
    ("export default { fetch: () => new Response('') };", {}),
    ("export async function* handler() { yield ''; }", {}),
    ("export const handler = () => 1;", {"LAMBDA_DENO_STRATEGY": "server"}),
)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What runtimes keep in ``DENO_DIR`` for later ones: V8's code of our modules.

    Without it, each runtime of each test would compile them again, as one does that
    starts where none has been before.
    """
    with made_once(tmp_path_factory, "learned") as (made, folder):
        if folder is not None:
            with tempfile.TemporaryDirectory(prefix="lds-") as path:
                asyncio.run(_learn(Path(path)))
                shutil.copytree(Path(path, "deno_dir", LEARNED), folder / LEARNED)
    return made / LEARNED


async def _learn(root: Path) -> None:
    (root / "tmp").mkdir()
    for source, environ in LOADERS:
        (root / "function.mjs").write_text(source, encoding="utf-8")
        async with FakeRuntimeApi() as api:
            handler = f"function.{'default' if 'fetch' in source else 'handler'}"
            environ = {**environ, "LAMBDA_DENO_MAX_INVOCATIONS": "1"}
            async with RuntimeUnderTest(root, handler, api, root / "tmp", environ):
                for _ in range(ROUNDS + 1):
                    await api.invoke({})
                await api.wait_for_next()


@pytest.fixture
def make_runtime(
    tmp_path: Path,
    short_tmp_path: Path,
    api: FakeRuntimeApi,
    way: str,
    learned: Path,
) -> MakeRuntime:
    """The real bootstrap for handlers written down in the test."""
    ways = WAYS.get(way, {})

    def make(
        files: dict[str, str] | Path,
        handler: str = "function.handler",
        **environ: str | None,
    ) -> RuntimeUnderTest:
        temp_root = (short_tmp_path if way == "server" else tmp_path) / "tmp"
        temp_root.mkdir(exist_ok=True)
        known = temp_root.parent / "deno_dir" / LEARNED
        if not known.exists():
            shutil.copytree(learned, known)
        environ = {**ways, **environ}
        if isinstance(files, Path):
            return RuntimeUnderTest(files, handler, api, temp_root, environ)
        task_root = tmp_path / "task"
        task_root.mkdir(exist_ok=True)
        for name, text in files.items():
            path = task_root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return RuntimeUnderTest(task_root, handler, api, temp_root, environ)

    return make


@pytest.fixture(scope="session")
def rie_binary() -> Path:
    """Return AWS's emulator; missing is a skip here and a failure in CI."""
    try:
        return find_rie_binary()
    except RieUnavailableError as error:
        reason = f"AWS's Runtime Interface Emulator is missing: {error}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layer that can be built here, as three ``layer build`` write them.

    They are built once for all workers of pytest-xdist: nothing may be changed there.
    """
    with made_once(tmp_path_factory, "layers") as (made, folder):
        if folder is not None:
            for options in (
                LayerOptions(folder, os.environ, (Kind.RUNTIME,), tuple(Arch)),
                LayerOptions(folder, os.environ, (Kind.DENO,)),
                LayerOptions(
                    folder,
                    os.environ,
                    (Kind.PYTHON,),
                    python_dir=layer_python().path.resolve().parents[1],
                    allows_newer_glibc=True,  # it was built for this machine
                ),
            ):
                build_layers(options)
    return made


@pytest.fixture(scope="session")
def registry_tools() -> Path:
    """Where a registry's program and a client's are."""
    found = programs()
    if found is None:
        pytest.skip("Debian's packages docker-registry and skopeo cannot be downloaded")
    return found


@pytest.fixture(scope="module")
def registry_port(
    registry_tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a registry without a login."""
    with registry(registry_tools, tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def stand_in() -> Iterator[dict[str, str]]:
    """moto's AWS, shared by the tests of a file."""
    with moto() as environ:
        yield environ


@pytest.fixture
def empty_cloud(
    stand_in: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cloud:
    """An AWS in which there is nothing yet."""
    reset(stand_in)
    return Cloud(stand_in, tmp_path, monkeypatch)

"""The layers as Lambda unpacks them: what is in them, and that it starts."""

from __future__ import annotations

import json
import marshal
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.cli.app import layer_app
from lambda_deno_spawn.dev.package.interpreter import find_interpreter
from lambda_deno_spawn.dev.package.layer import (
    UNCOMPILED_MS,
    Kind,
    LayerOptions,
    best_python,
    build_layers,
    default_pythons,
    read_layers,
)
from lambda_deno_spawn.dev.package.wheels import Requirement, Target, fetch_wheels
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError
from tests.fixtures.binaries import AARCH64, X86_64, elf
from tests.fixtures.layers import layer_python
from tests.integration.harness import deno_binary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.dev.package.interpreter import Interpreter
    from lambda_deno_spawn.dev.package.layer import BuiltLayer
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime


ROOT = Path(__file__).parents[2]
SCRIPTS = ("bootstrap", "lambda-deno-spawn")
SHELLS = [name for name in ("dash", "bash") if shutil.which(name)]
MB = 1024 * 1024
CODE = "lib/lambda-deno-spawn"
MAGIC_BYTES = 4  # of a .pyc, and of the file with all of them
UNCHECKED_HASH = 1  # PEP 552: the second word of a .pyc; 3 would be checked
ECHO = {"function.js": "export const handler = (event) => event;"}
# Stands for an interpreter: says how it was started.
FAKE_PROGRAM = '#!/bin/sh\necho "$0"\nprintf "%s\\n" "$@"\n'


@pytest.fixture(scope="session")
def python() -> Interpreter:
    """Return the CPython that layers are made for; CI has it."""
    try:
        return layer_python()
    except BuildError as error:
        reason = str(error)
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True, slots=True)
class Built:
    """Layers in a folder."""

    out: Path

    def zip(self, kind: Kind, arch: Arch) -> Path:
        return self.out / f"{kind}-layer-{arch}.zip"


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, python: Interpreter) -> Built:
    """Every layer that can be built here, where there is an interpreter for it."""
    return Built(request.getfixturevalue("layers"))


def unpack(archive: Path, folder: Path) -> None:
    """Unpack as Lambda does: contents and modes."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            Path(file.extract(info, folder)).chmod(info.external_attr >> 16 & 0o777)


def move_scripts(opt: Path) -> None:
    """Let the start scripts find in a folder what they look for in /opt."""
    for name in SCRIPTS:
        path = opt / name
        path.write_text(path.read_text().replace("/opt/", f"{opt}/"))


@pytest.fixture
def opt(built: Built, tmp_path: Path) -> Path:
    """A folder that stands for /opt, with the runtime layer in it."""
    folder = tmp_path / "opt"
    unpack(built.zip(Kind.RUNTIME, Arch.here()), folder)
    move_scripts(folder)
    return folder


def run(
    command: Sequence[str | Path], **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environ},
    )


# --- Contents --------------------------------------------------------------------


@pytest.mark.parametrize("arch", list(Arch))
def test_runtime_layer_is_small(built: Built, arch: Arch) -> None:
    assert built.zip(Kind.RUNTIME, arch).stat().st_size <= 1.5 * MB


def test_deno_layer_can_be_given_to_the_api_directly(built: Built) -> None:
    archive = built.zip(Kind.DENO, Arch.here())
    assert archive.stat().st_size <= 45 * MB
    with zipfile.ZipFile(archive) as file:
        modes = {info.filename: info.external_attr >> 16 for info in file.infolist()}
    assert modes == {
        "bin/deno": stat.S_IFREG | 0o755,
        "licenses/deno/LICENSE": stat.S_IFREG | 0o644,
    }


def test_deno_of_the_layer_is_the_one_that_is_installed(
    built: Built, tmp_path: Path
) -> None:
    with zipfile.ZipFile(built.zip(Kind.DENO, Arch.here())) as file:
        assert file.read("bin/deno") == Path(deno_binary()).read_bytes()


@pytest.mark.parametrize("arch", list(Arch))
def test_runtime_layer_holds_what_runs_and_its_licences(
    built: Built, arch: Arch
) -> None:
    with zipfile.ZipFile(built.zip(Kind.RUNTIME, arch)) as file:
        names = set(file.namelist())
        manifest = json.loads(file.read(f"{CODE}/manifest.json"))
    inside = [n.removeprefix(f"{CODE}/") for n in names if n.startswith(f"{CODE}/")]
    assert {name.partition("/")[0] for name in inside} == {
        "h11",
        "lambda_deno_spawn",
        "manifest.json",
        "python3.13",
    }
    assert {name.partition("/")[0] for name in names} == {*SCRIPTS, "lib", "licenses"}
    assert {name.split("/")[1] for name in names if name.startswith("licenses/")} == {
        "h11",
        "lambda-deno-spawn",
    }
    ours = {name for name in inside if name.startswith("lambda_deno_spawn/")}
    assert "lambda_deno_spawn/js/runtime.js" in ours
    assert not [name for name in ours if "dev" in name or "__main__" in name]
    assert not [name for name in ours if "/js/src/" in name]
    assert not [name for name in names if name.endswith((".d.ts", ".pyi", "py.typed"))]
    assert manifest["arch"] == arch
    assert list(manifest["pythons"]) == ["3.13"]


def test_every_module_has_byte_code_that_is_used_without_a_look_at_its_source(
    built: Built,
) -> None:
    with zipfile.ZipFile(built.zip(Kind.RUNTIME, Arch.here())) as file:
        codes = {n: file.read(n) for n in file.namelist() if n.endswith(".pyc")}
        sources = [n for n in file.namelist() if n.endswith(".py")]
        one_file = file.read(f"{CODE}/python3.13")
    packed = marshal.loads(one_file[MAGIC_BYTES:])
    assert len(codes) + len(packed) == len(sources) > 30
    for name in sources:
        code = packed.get(name.removeprefix(f"{CODE}/"))
        if code is None:
            folder, _, module = name.rpartition("/")
            code = codes[f"{folder}/__pycache__/{module[:-3]}.cpython-313.pyc"]
            assert code[:MAGIC_BYTES] == one_file[:MAGIC_BYTES]
            assert int.from_bytes(code[4:8], "little") == UNCHECKED_HASH
        # What a traceback shows is where the file lies on Lambda.
        assert f"/opt/{name}".encode() in code
        assert b"/lambda-deno-spawn-" not in code  # the folder it was compiled in
    assert {name for name in codes if "/h11/" not in name} == {
        f"{CODE}/lambda_deno_spawn/__pycache__/{module}.cpython-313.pyc"
        for module in ("__init__", "one_file")
    }


@pytest.mark.cases(1)
@pytest.mark.parametrize("arch", list(Arch))
def test_second_build_gives_the_same_bytes_elsewhere_and_with_another_mask(
    built: Built, arch: Arch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-longer-name-for-a-temporary-folder").mkdir()
    scratch = str(tmp_path / "a-longer-name-for-a-temporary-folder")
    monkeypatch.setattr(tempfile, "tempdir", scratch)
    environ = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    mask = os.umask(0o077)
    try:
        options = LayerOptions(tmp_path / "out", environ, (Kind.RUNTIME,), (arch,))
        [layer] = build_layers(options)
    finally:
        os.umask(mask)
    first = built.zip(Kind.RUNTIME, arch).read_bytes()
    assert (tmp_path / "out" / layer.file).read_bytes() == first


def test_list_keeps_what_other_builds_made(built: Built) -> None:
    layers = {layer.name: layer for layer in read_layers(built.out)}
    here = Arch.here()
    assert set(layers) == {
        "lambda-deno-spawn-runtime-x86_64",
        "lambda-deno-spawn-runtime-arm64",
        f"lambda-deno-spawn-deno-{here}",
        f"lambda-deno-spawn-python-{here}",
    }
    for layer in layers.values():
        assert layer.zipped_bytes == (built.out / layer.file).stat().st_size
    runtime = layers[f"lambda-deno-spawn-runtime-{here}"]
    assert runtime.compatible_runtimes == ("provided.al2023", "python3.13")
    assert runtime.licenses == "MIT"
    deno = layers[f"lambda-deno-spawn-deno-{here}"]
    assert (deno.licenses, deno.pythons) == ("MIT", ())
    assert not [path for path in built.out.iterdir() if "partial" in path.name]


def test_python_layer_holds_an_interpreter_without_what_no_function_needs(
    built: Built,
) -> None:
    with zipfile.ZipFile(built.zip(Kind.PYTHON, Arch.here())) as file:
        infos = {info.filename: info.external_attr >> 16 for info in file.infolist()}
    library = "interpreter/lib/python3.13"
    assert {n for n in infos if n.startswith("interpreter/bin/")} == {
        "interpreter/bin/python3.13"
    }
    assert infos["interpreter/bin/python3.13"] == stat.S_IFREG | 0o755
    assert f"{library}/asyncio/__pycache__/tasks.cpython-313.pyc" in infos
    assert "licenses/python/LICENSE.txt" in infos
    folders = {part for name in infos for part in Path(name).parts[:-1]}
    assert not folders & {"test", "tests", "idlelib", "site-packages", "include"}
    assert not [name for name in infos if name.endswith(".a")]


def make_installation(prefix: Path, machine: int) -> None:
    """Make what python-build-standalone would have unpacked, in small."""
    files = {
        "bin/python3.13": elf(machine, runpath="$ORIGIN/../lib"),
        "bin/python3.13-config": b"#!/bin/sh",
        "include/python3.13/Python.h": b"",
        "lib/libpython3.13.so.1.0": elf(machine),  # the program has it inside
        "lib/libx.so.1.2": elf(machine),
        "lib/python3.13/LICENSE.txt": b"PSF",
        "lib/python3.13/os.py": b"name = 'posix'",
        "lib/python3.13/asyncio/__init__.py": b"",
        "lib/python3.13/asyncio/__pycache__/__init__.cpython-313.pyc": b"old",
        "lib/python3.13/config-3.13-x86_64-linux-gnu/libpython3.13.a": b"!<arch>",
        "lib/python3.13/lib-dynload/_x.so": elf(
            machine,
            needed=("libx.so.1", "libsystem.so.7", "libm.so.6"),
            runpath="$ORIGIN/../..",
        ),
        "lib/python3.13/lib-dynload/_testcapi.so": elf(machine),
        "lib/python3.13/site-packages/pip/__init__.py": b"",
        "lib/python3.13/test/test_os.py": b"",
    }
    for name, content in files.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (prefix / "bin" / "python3").symlink_to("python3.13")
    (prefix / "lib" / "libx.so.1").symlink_to("libx.so.1.2")


@pytest.mark.parametrize(
    ("arch", "machine"), [(Arch.X86_64, X86_64), (Arch.ARM64, AARCH64)]
)
def test_installation_fetched_by_uv_becomes_a_layer_for_either_architecture(
    python: Interpreter, arch: Arch, machine: int, tmp_path: Path
) -> None:
    make_installation(tmp_path / "new", machine)
    name = {Arch.X86_64: "x86_64", Arch.ARM64: "aarch64"}[arch]
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        "#!/bin/sh\n"
        '[ "$1 $2 $3" = "python install --install-dir" ] || exit 1\n'
        f'[ "$5" = cpython-3.13-linux-{name}-gnu ] || exit 2\n'
        '[ "$UV_PYTHON_INSTALL_BIN" = 0 ] || exit 3\n'
        f'mkdir -p "$4/cpython-3.13.9-linux-{name}-gnu"\n'
        f'cp -a {tmp_path}/new "$4/cpython-3.13.10-linux-{name}-gnu"\n'
        f'ln -s cpython-3.13.10-linux-{name}-gnu "$4/cpython-3.13-linux-{name}-gnu"\n'
    )
    uv.chmod(0o755)
    environ = {
        "PATH": f"{uv.parent}:/usr/bin:/bin",
        "PYENV_ROOT": str(python.path.resolve().parents[3]),
    }
    notes: list[str] = []
    options = LayerOptions(tmp_path / "out", environ, (Kind.PYTHON,), (arch,))
    [layer] = build_layers(options, note=notes.append)
    with zipfile.ZipFile(tmp_path / "out" / layer.file) as file:
        names = set(file.namelist())
        library = file.read("interpreter/lib/libx.so.1")
    assert names == {
        "interpreter/bin/python3.13",
        "interpreter/lib/libx.so.1",
        "interpreter/lib/python3.13/__pycache__/os.cpython-313.pyc",
        "interpreter/lib/python3.13/asyncio/__init__.py",
        "interpreter/lib/python3.13/asyncio/__pycache__/__init__.cpython-313.pyc",
        "interpreter/lib/python3.13/lib-dynload/_x.so",
        "interpreter/lib/python3.13/os.py",
        "licenses/python/LICENSE.txt",
    }
    assert library == elf(machine)
    assert len(notes) == 1
    assert ": libsystem.so.7 (_x);" in notes[0]
    assert (layer.pythons, layer.compatible_runtimes) == (
        ("3.13",),
        ("provided.al2023",),
    )


# --- Starts ----------------------------------------------------------------------


async def test_managed_runtime_starts_from_byte_code_of_the_layer_alone(
    opt: Path, python: Interpreter, api: FakeRuntimeApi, make_runtime: MakeRuntime
) -> None:
    # Where a source was compiled at the start it would fail; where a module came from
    # elsewhere, `-I -S` would not have found it.
    for source in (opt / CODE).rglob("*.py"):
        source.write_text("this is no Python")
    runtime = make_runtime(ECHO)
    runtime.wrapper = f"exec {opt}/lambda-deno-spawn {python.path} /var/runtime/x.py"
    async with runtime:
        api.deliver(b'{"from": "layer"}')
        answer = await api.answer()
    assert (answer.call, answer.json()) == ("response", {"from": "layer"})


async def test_os_only_runtime_starts_with_the_interpreter_of_the_python_layer(
    opt: Path, built: Built, api: FakeRuntimeApi, make_runtime: MakeRuntime
) -> None:
    unpack(built.zip(Kind.PYTHON, Arch.here()), opt)
    for source in (opt / "interpreter" / "lib").rglob("*.py"):
        if source.name != "os.py":  # by which an interpreter finds its library
            source.write_text("this is no Python")
    runtime = make_runtime(ECHO, LD_LIBRARY_PATH=f"{opt}/lib")
    runtime.wrapper = f"exec {opt}/bootstrap"
    async with runtime:
        api.deliver(b'{"from": "layers"}')
        answer = await api.answer()
        command = Path(f"/proc/{runtime.pid}/cmdline").read_text().split("\0")
    assert (answer.call, answer.json()) == ("response", {"from": "layers"})
    assert command[0] == f"{opt}/interpreter/bin/python3.13"


# --- Start scripts ---------------------------------------------------------------


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder that stands for /opt, with no more than the scripts and a version."""
    folder = tmp_path / "opt"
    (folder / CODE).mkdir(parents=True)
    (folder / CODE / "python3.13").touch()
    for name in SCRIPTS:
        shutil.copy(ROOT / "layer" / name, folder / name)
    move_scripts(folder)
    return folder


def add_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FAKE_PROGRAM)
    path.chmod(0o755)
    return path


def start_arguments(opt: Path) -> list[str]:
    return [
        "-I",
        "-S",
        "-c",
        f'import sys; sys.path.append("{opt}/lib/lambda-deno-spawn"); '
        "from lambda_deno_spawn.one_file import use; "
        f'use("{opt}/lib/lambda-deno-spawn"); '
        "from lambda_deno_spawn.bootstrap import main; main()",
    ]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_valid_in_every_shell(shell: str, name: str) -> None:
    assert run([shell, "-n", ROOT / "layer" / name]).returncode == 0
    assert os.access(ROOT / "layer" / name, os.X_OK)


@pytest.mark.parametrize("shell", SHELLS)
def test_wrapper_starts_the_interpreter_it_is_given_and_drops_the_rest(
    scripts: Path, shell: str
) -> None:
    program = add_program(scripts.parent / "lang" / "python3.13")
    done = run([shell, scripts / "lambda-deno-spawn", program, "/var/runtime/x.py"])
    assert done.stdout.splitlines() == [str(program), *start_arguments(scripts)]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("found", ["python3.12", "python3.1", "python", ""])
def test_wrapper_names_both_versions_if_the_layer_is_for_another(
    scripts: Path, shell: str, found: str
) -> None:
    (scripts / CODE / "python3.14").touch()
    program = f"/var/lang/bin/{found}" if found else ""
    done = run([shell, scripts / "lambda-deno-spawn", program, "/var/runtime/x.py"])
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"Cannot start lambda-deno-spawn: the function's runtime is '{found}', and the "
        "runtime layer is not made for it (it is for: python3.13 python3.14)"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_bootstrap_takes_the_newest_interpreter_that_the_layer_is_made_for(
    scripts: Path, shell: str
) -> None:
    (scripts / CODE / "python3.12").touch()
    for version in ("3.11", "3.12", "3.13", "3.14"):
        add_program(scripts / "interpreter" / "bin" / f"python{version}")
    done = run([shell, scripts / "bootstrap"])
    assert done.stdout.splitlines() == [
        f"{scripts}/interpreter/bin/python3.13",
        *start_arguments(scripts),
    ]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("others", [[], ["python3.12"]], ids=["none", "another"])
def test_bootstrap_says_what_to_attach_if_there_is_no_interpreter(
    scripts: Path, shell: str, others: list[str]
) -> None:
    for name in others:
        add_program(scripts / "interpreter" / "bin" / name)
    done = run([shell, scripts / "bootstrap"])
    assert done.returncode == 1
    assert "(it is for: python3.13); attach a python layer" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_bootstrap_honours_a_wrapper_as_managed_runtimes_do(
    scripts: Path, shell: str
) -> None:
    program = add_program(scripts / "interpreter" / "bin" / "python3.13")
    wrapper = add_program(scripts / "a wrapper")
    done = run([shell, scripts / "bootstrap"], AWS_LAMBDA_EXEC_WRAPPER=str(wrapper))
    assert done.stdout.splitlines() == [
        str(wrapper),
        str(program),
        *start_arguments(scripts),
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_bootstrap_with_our_own_wrapper_starts_the_interpreter_once(
    scripts: Path, shell: str
) -> None:
    program = add_program(scripts / "interpreter" / "bin" / "python3.13")
    own = str(scripts / "lambda-deno-spawn")
    done = run([shell, scripts / "bootstrap"], AWS_LAMBDA_EXEC_WRAPPER=own)
    assert done.stdout.splitlines() == [str(program), *start_arguments(scripts)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_process_that_crashes_leaves_no_memory_in_a_file(
    scripts: Path, shell: str, name: str
) -> None:
    """A later event could read it."""
    program = scripts / "interpreter" / "bin" / "python3.13"
    add_program(program)
    program.write_text("#!/bin/sh\nulimit -S -c\nulimit -H -c\n")
    with_cores = 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"'
    start: list[str | Path] = [shell, scripts / name, program]
    own, most = run(["/bin/sh", "-c", with_cores, "start", *start]).stdout.splitlines()
    assert own == "0"
    assert most == run(["/bin/sh", "-c", "ulimit -H -c"]).stdout.strip()


@pytest.mark.parametrize("shell", SHELLS)
def test_bootstrap_refuses_a_wrapper_with_the_words_and_codes_of_managed_runtimes(
    scripts: Path, shell: str
) -> None:
    add_program(scripts / "interpreter" / "bin" / "python3.13")
    (scripts / "text").write_text("no program")
    for name, message, code in (
        ("missing", "does not exist", 127),
        ("text", "is not an executable", 126),
    ):
        wrapper = str(scripts / name)
        done = run([shell, scripts / "bootstrap"], AWS_LAMBDA_EXEC_WRAPPER=wrapper)
        assert (done.returncode, done.stderr) == (code, f"{wrapper}: {message}\n")


# --- Failures --------------------------------------------------------------------


def test_wheel_that_cannot_be_had_is_named_with_the_reason_of_pip(
    tmp_path: Path,
) -> None:
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    target = Target(Arch.X86_64, "3.13")
    with pytest.raises(BuildError) as caught:
        fetch_wheels([Requirement("deno", "2.9.77")], target, environ, tmp_path)
    assert str(caught.value).startswith(
        "Cannot fetch deno==2.9.77 for x86_64 and Python 3.13: Could not find a version"
    )
    assert not list(tmp_path.rglob("tmp*"))


def test_broken_wheel_of_the_cache_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "lambda-deno-spawn" / "wheels" / "x86_64-3.13"
    folder.mkdir(parents=True)
    (folder / "deno-2.9.8-py3-none-any.whl").write_bytes(b"PK")
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(BuildError, match=r"deno-2\.9\.8.*whl.*delete it"):
        fetch_wheels(
            [Requirement("deno", "2.9.8")],
            Target(Arch.X86_64, "3.13"),
            environ,
            tmp_path,
        )


def test_missing_python_is_said_with_a_way_to_get_it(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    with pytest.raises(BuildError, match=r"uv python install 3\.99"):
        find_interpreter("3.99", environ)


def test_program_that_only_bears_the_name_is_no_interpreter(tmp_path: Path) -> None:
    add_program(tmp_path / "python3.99")
    with pytest.raises(BuildError, match=r"Python 3\.99"):
        find_interpreter("3.99", {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)})


def test_interpreter_without_uv_asks_for_it_or_for_a_folder(
    python: Interpreter, tmp_path: Path
) -> None:
    environ = {"PATH": str(tmp_path), "PYENV_ROOT": str(python.path.parents[3])}
    options = LayerOptions(tmp_path / "out", environ, (Kind.PYTHON,))
    if (Path(sys.executable).parent / "uv").exists():
        pytest.skip("uv is installed beside Python")
    with pytest.raises(BuildError, match=r"pip install uv.*--python-dir"):
        build_layers(options)
    assert not (tmp_path / "out").exists()


def test_full_disk_is_a_sentence_and_leaves_nothing(
    python: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    options = LayerOptions(tmp_path / "out", os.environ, (Kind.RUNTIME,))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit_bytes in (20_000, 300_000):  # of a source put aside; of the zip
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
        try:
            with pytest.raises(BuildError, match=r"^Cannot .*: .*File too large"):
                build_layers(options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert list((tmp_path / "temp").iterdir()) == []


# --- Command ---------------------------------------------------------------------


def test_command_prints_the_entries_of_what_it_built(
    python: Interpreter, tmp_path: Path
) -> None:
    command = ["build", "--kind", "runtime", "--arch", "both", "--out", str(tmp_path)]
    done = CliRunner().invoke(layer_app, [*command, "-o", "json"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [
        layer.to_json() for layer in sorted(read_layers(tmp_path), key=is_for_arm)
    ]


def is_for_arm(layer: BuiltLayer) -> bool:
    return layer.arch is Arch.ARM64


def test_command_prints_a_table_and_what_is_left(
    python: Interpreter, tmp_path: Path
) -> None:
    command = ["build", "--kind", "runtime", "--arch", "arm64", "--out", str(tmp_path)]
    done = CliRunner().invoke(layer_app, command)
    assert done.exit_code == 0
    head, row, _, left = done.stdout.splitlines()
    assert head.split() == ["layer", "zipped", "unzipped", "for"]
    assert row.startswith(str(tmp_path / "runtime-layer-arm64.zip"))
    assert row.endswith(f"Python 3.13: lambda-deno-spawn {__version__}")
    assert left.startswith("arm64: ")
    assert left.endswith("MB left for the function")


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--deno", "2.8.0"], 2, "Cannot use Deno 2.8.0: the runtime needs 2.9 or"),
        (["--python", "3.11"], 2, "Cannot build for Python '3.11': expected one of"),
        (
            ["--kind", "python", "--python-dir", "/nowhere"],
            3,
            "Cannot use the interpreter in '/nowhere': it has none of them",
        ),
    ],
    ids=["deno-too-old", "python-too-old", "no-installation"],
)
def test_command_says_in_a_sentence_why_it_built_nothing(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        layer_app, ["build", "--out", str(tmp_path / "out"), *arguments]
    )
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_one_runtime_layer_fits_several_versions_of_python(
    python: Interpreter, tmp_path: Path
) -> None:
    try:
        older = find_interpreter("3.12", os.environ)
    except BuildError as error:
        pytest.skip(str(error))
    options = LayerOptions(
        tmp_path / "out", os.environ, (Kind.RUNTIME,), pythons=("3.12", "3.13")
    )
    [layer] = build_layers(options)
    opt = tmp_path / "opt"
    unpack(tmp_path / "out" / layer.file, opt)
    for source in (opt / CODE).rglob("*.py"):
        source.write_text("this is no Python")
    for interpreter in (older, python):
        code = f"import sys; sys.path.append('{opt / CODE}'); import h11; "
        code += f"from lambda_deno_spawn.one_file import use; use('{opt / CODE}'); "
        code += "import lambda_deno_spawn.bootstrap as b; print(b.__file__)"
        done = run([interpreter.path, "-I", "-S", "-c", code])
        assert done.stdout == f"{opt / CODE}/lambda_deno_spawn/bootstrap.py\n"
    assert layer.compatible_runtimes == ("provided.al2023", "python3.12", "python3.13")


# --- a machine with one Python -------------------------------------------------


@pytest.fixture
def only_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, str], Interpreter]:
    """Return the environment of a machine with CPython 3.12 and no other."""
    try:
        older = find_interpreter("3.12", os.environ)
    except BuildError as error:
        pytest.skip(str(error))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3.12").symlink_to(older.path.resolve())
    # The command runs pip, but this interpreter is not one to compile with.
    monkeypatch.setattr("lambda_deno_spawn.dev.package.interpreter.sys", _NoPython)
    environ = {**os.environ, "PATH": str(programs), "PYENV_ROOT": str(tmp_path)}
    return environ, older


class _NoPython:
    executable = "/nonexistent/python"


@pytest.mark.long
def test_layer_of_a_machine_with_an_older_python_fits_the_default_runtime_too(
    python: Interpreter,
    only_older: tuple[dict[str, str], Interpreter],
    tmp_path: Path,
) -> None:
    environ, older = only_older
    pythons = default_pythons(environ)
    assert (pythons, best_python(environ)) == (("3.13", "3.12"), "3.12")
    options = LayerOptions(tmp_path / "out", environ, (Kind.RUNTIME,), pythons=pythons)
    notes: list[str] = []
    [layer] = build_layers(options, note=notes.append)
    assert {"python3.12", "python3.13"} < {*layer.compatible_runtimes}
    [note] = [text for text in notes if "byte code" in text]
    assert "no CPython 3.13" in note
    assert "let functions use runtime python3.12" in note
    opt = tmp_path / "opt"
    unpack(tmp_path / "out" / layer.file, opt)
    move_scripts(opt)
    assert (opt / CODE / "python3.13").read_bytes() == b""
    assert json.loads((opt / CODE / "manifest.json").read_bytes())["pythons"] == {
        "3.13": None,
        "3.12": older.release,
    }
    # Both start, up to the first setting that is missing here.
    for interpreter in (older, python):
        program = tmp_path / "bin" / f"python{interpreter.version}"
        program.parent.mkdir(exist_ok=True)
        program.symlink_to(interpreter.path.resolve())
        done = run([opt / "lambda-deno-spawn", program], PYTHONDONTWRITEBYTECODE="1")
        assert "AWS_LAMBDA_RUNTIME_API" in done.stderr, done.stderr


def test_layer_without_any_byte_code_says_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_deno_spawn.dev.package.interpreter.sys", _NoPython)
    environ = {**os.environ, "PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    assert default_pythons(environ) == ("3.13",)
    options = LayerOptions(tmp_path / "out", environ, (Kind.RUNTIME,))
    notes: list[str] = []
    [layer] = build_layers(options, note=notes.append)
    [note] = [text for text in notes if "byte code" in text]
    assert f"about {UNCOMPILED_MS[Kind.RUNTIME]} ms longer" in note
    assert "uv python install 3.13" in note
    with zipfile.ZipFile(tmp_path / "out" / layer.file) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]


def test_interpreter_of_the_layer_compiles_its_own_library(
    python: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_deno_spawn.dev.package.interpreter.sys", _NoPython)
    environ = {**os.environ, "PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)}
    prefix = tmp_path / "prefix"
    source = python.path.resolve().parent.parent
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python3.13").symlink_to(python.path.resolve())
    library = prefix / "lib" / "python3.13"
    library.mkdir(parents=True)
    shutil.copy(source / "lib" / "python3.13" / "os.py", library)
    options = LayerOptions(
        tmp_path / "out",
        environ,
        (Kind.PYTHON,),
        python_dir=prefix,
        allows_newer_glibc=True,
    )
    [layer] = build_layers(options)
    with zipfile.ZipFile(tmp_path / "out" / layer.file) as archive:
        assert "interpreter/lib/python3.13/__pycache__/os.cpython-313.pyc" in (
            archive.namelist()
        )

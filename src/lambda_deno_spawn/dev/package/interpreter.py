"""CPython for a layer: finds an interpreter, compiles, and selects files to ship.

Knows where interpreters are installed, how to make byte code that does not depend on
place and time, and which parts of an installation a function never needs. Does not know
the names of the layers, or how they are written. Specification: Python
documentation, "py_compile" (unchecked hash-based .pycs) and "compileall"; PEP 552;
docs/layers.md.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.package.archive import EXECUTABLE, Member
from lambda_deno_spawn.dev.package.elf import Binary, read_binary
from lambda_deno_spawn.dev.project.home import home_folder
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ASKED_LIMIT_S = 20.0  # for a program that prints its version; a cold disk is slow
UV_ARCHS = {Arch.X86_64: "x86_64", Arch.ARM64: "aarch64"}
ROOT = "interpreter"  # below /opt
# Parts of the standard library that are never imported, or need a screen or a compiler.
SURPLUS_FOLDERS = frozenset(
    {
        "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
        "site-packages", "test", "tests", "tkinter", "turtledemo",
    }
)  # fmt: skip
SURPLUS_PATTERNS = (
    "config-*", "turtle.py", "*.a", "*.exe", "LICENSE.txt",
    # Extension modules that only tests of the standard library import, and Tk.
    "_test*.so", "_ctypes_test*.so", "_xxtestfuzz*.so", "xxlimited*.so",
    "_tkinter*.so",
)  # fmt: skip
# The libraries of glibc, which Lambda's operating system contains.
GLIBC_LIBRARIES = re.compile(
    r"(ld-linux.*|lib(c|m|dl|pthread|rt|util|resolv|gcc_s))\.so\.\d+"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An installed CPython.

    Attributes:
        version: Major and minor version, such as ``3.13``.
        release: Complete version, such as ``3.13.1``.
    """

    path: Path
    version: str
    release: str


def find_interpreter(version: str, environ: Mapping[str, str]) -> Interpreter:
    """Return a CPython of a version, to compile with; see ``search_interpreter``.

    Raises:
        BuildError: None is installed.
    """
    found = search_interpreter(version, environ)
    if found is None:
        raise BuildError(
            f"Cannot compile for Python {version}: there is no such CPython on PATH, "
            f"in pyenv or in uv; install one, for example with `uv python install "
            f"{version}` or `pyenv install {version}`"
        )
    return found


def search_interpreter(version: str, environ: Mapping[str, str]) -> Interpreter | None:
    """Return a CPython of a version, to compile with; None: there is none.

    Search in this order: the running interpreter, PATH, pyenv, uv.
    """
    for path in _candidates(version, environ):
        found = ask_interpreter(path)
        if found is not None and found.version == version:
            return found
    return None


def _candidates(version: str, environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path(sys.executable)
    name = f"python{version}"
    roots = []
    if own := environ.get("PYENV_ROOT"):
        roots.append(Path(own))
    elif home := home_folder(environ):
        roots.append(home / ".pyenv")
    for folder in filter(None, environ.get("PATH", "").split(":")):
        yield Path(folder) / name
        if Path(folder).name == "shims":  # pyenv, wherever it is installed
            roots.append(Path(folder).parent)
    for root in dict.fromkeys(roots):
        with contextlib.suppress(OSError):  # a home that this user may not enter
            found = list(root.glob(f"versions/{version}.*/bin/{name}"))
            yield from sorted(found, key=_release_of, reverse=True)
    if uv := find_uv(environ):
        answer = _run([uv, "python", "find", "--no-project", version])
        if answer is not None:
            yield Path(answer.strip())


def _release_of(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]


def find_uv(environ: Mapping[str, str]) -> str | None:
    """Return the path of uv: on PATH, or beside the running interpreter."""
    beside = Path(sys.executable).parent
    return shutil.which("uv", path=f"{environ.get('PATH', '')}:{beside}")


def ask_interpreter(path: Path) -> Interpreter | None:
    """Return a program's version; None if it does not run, or is not CPython."""
    try:
        if not path.exists():
            return None
    except OSError:  # PATH has folders that this user may not enter
        return None
    code = "import sys; print(sys.implementation.name, *sys.version_info[:3])"
    answer = (_run([str(path), "-I", "-S", "-c", code]) or "").split()
    if len(answer) != 4 or answer[0] != "cpython":
        return None
    return Interpreter(path, ".".join(answer[1:3]), ".".join(answer[1:]))


def _run(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASKED_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def compile_sources(
    interpreter: Interpreter,
    sources: Mapping[str, bytes],
    target: str,
    scratch: Path,
    environ: Mapping[str, str],
) -> dict[str, bytes]:
    """Return byte code, by path, that Python loads without checking the source.

    Args:
        interpreter: The compiler; other versions of Python cannot load its byte code.
        sources: Files by path; only Python files are compiled.
        target: The folder of the sources on Lambda, as tracebacks name it.
        scratch: An empty folder on this machine.
        environ: The caller's environment; Python's own variables are removed.

    Raises:
        BuildError: A source does not compile.
    """
    for name, content in sources.items():
        if name.endswith(".py"):
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    command = [str(interpreter.path), "-S", "-s", "-P", "-m", "compileall", "-q"]
    command += ["--invalidation-mode", "unchecked-hash", "-o", "0"]
    command += ["-s", str(scratch), "-p", target, str(scratch)]
    kept = {name: v for name, v in environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        # A fixed seed: the byte code could depend on the order of a set.
        env={**kept, "PYTHONHASHSEED": "0"},
    )
    if done.returncode != 0:
        reason = (done.stdout + done.stderr).strip()
        raise BuildError(f"Cannot compile with {str(interpreter.path)!r}: {reason}")
    return {
        str(path.relative_to(scratch).as_posix()): path.read_bytes()
        for path in scratch.rglob("__pycache__/*.pyc")
    }


def install_prefix(
    version: str, arch: Arch, environ: Mapping[str, str], folder: Path
) -> Path:
    """Return an installation of python-build-standalone, fetched by uv.

    Raises:
        BuildError: uv is not installed, or cannot fetch it.
    """
    uv = find_uv(environ)
    request = f"cpython-{version}-linux-{UV_ARCHS[arch]}-gnu"
    advice = "give the folder of an installation for that platform in --python-dir"
    if uv is None:
        raise BuildError(
            f"Cannot fetch {request}: uv is not installed; install it with "
            f"`pip install uv`, or {advice}"
        )
    # No time limit here: timeouts are in uv's settings. Keep uv from changing PATH.
    done = subprocess.run(
        [uv, "python", "install", "--install-dir", str(folder), request],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**environ, "UV_PYTHON_INSTALL_BIN": "0", "UV_NO_PROGRESS": "1"},
    )
    found = [
        path
        for path in folder.glob(f"cpython-{version}.*-linux-{UV_ARCHS[arch]}-gnu")
        if not path.is_symlink()
    ]
    if done.returncode != 0 or not found:
        reason = " ".join(done.stderr.split()) or "it is not in uv's folder"
        raise BuildError(f"Cannot fetch {request} with uv: {reason}; {advice}")
    return max(found, key=lambda path: _numbers(path.name))


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def prefix_version(prefix: Path, supported: Iterable[str]) -> str:
    """Return the version of Python in an installation.

    Raises:
        BuildError: It contains none of the supported versions, or several.
    """
    versions = [
        version
        for version in supported
        if (prefix / "bin" / f"python{version}").is_file()
        and (prefix / "lib" / f"python{version}" / "os.py").is_file()
    ]
    if len(versions) != 1:
        wanted = ", ".join(f"bin/python{v} and lib/python{v}" for v in supported)
        found = f"those of {', '.join(versions)}" if versions else "none of them"
        raise BuildError(
            f"Cannot use the interpreter in {str(prefix)!r}: it has {found}; expected "
            f"exactly one pair of {wanted}"
        )
    return versions[0]


def plan_interpreter(
    prefix: Path,
    version: str,
    compiler: Interpreter | None,
    scratch: Path,
    environ: Mapping[str, str],
    note: Callable[[str], None],
) -> list[Member]:
    """Return the files of a python layer: the parts of an installation to ship.

    Args:
        prefix: The installation; nothing in it is run or changed.
        version: Version of the installation.
        compiler: An interpreter of the same version that runs on this machine; None:
            the layer has no byte code.
        scratch: An empty folder.
        environ: The caller's environment.
        note: Called with a text about anything that may break the interpreter.

    Raises:
        BuildError: A file cannot be read.
    """
    program = f"{ROOT}/bin/python{version}"
    library = f"{ROOT}/lib/python{version}"
    # Symbolic links are replaced by their targets: the layer contains no links.
    files = {program: prefix / "bin" / f"python{version}"}
    for path in _standard_library(prefix / "lib" / f"python{version}"):
        name = path.relative_to(prefix / "lib").as_posix()
        files[f"{ROOT}/lib/{name}"] = path
    try:
        files |= _own_libraries(prefix, program, files, note)
        sources = {
            name.removeprefix(f"{library}/"): path.read_bytes()
            for name, path in files.items()
            if name.endswith(".py")
        }
        licence = _licence(prefix, version)
    except OSError as error:
        raise BuildError(
            f"Cannot use the interpreter in {str(prefix)!r}: {error}"
        ) from error
    compiled = (
        compile_sources(compiler, sources, f"/opt/{library}", scratch, environ)
        if compiler is not None
        else {}
    )
    members = [
        Member(name, path, EXECUTABLE) if name == program else Member(name, path)
        for name, path in files.items()
    ]
    members += [Member(f"{library}/{name}", code) for name, code in compiled.items()]
    if licence is None:
        note(f"{str(prefix)!r} has no LICENSE.txt, so the layer has no licence text")
    else:
        members.append(Member(f"licenses/python/{licence.name}", licence))
    return members


def _standard_library(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any(path.match(pattern) for pattern in SURPLUS_PATTERNS):
            continue
        if not path.is_dir():
            yield path
        elif path.name not in SURPLUS_FOLDERS:
            yield from _standard_library(path)


def _licence(prefix: Path, version: str) -> Path | None:
    places = (prefix / "lib" / f"python{version}", prefix, prefix / "share")
    for place in places:
        for name in ("LICENSE.txt", "LICENSE"):
            if (place / name).is_file():
                return place / name
    return None


def _own_libraries(
    prefix: Path, program: str, files: Mapping[str, Path], note: Callable[[str], None]
) -> dict[str, Path]:
    """Return the shared libraries of the installation that its files need.

    Each goes to a folder where the loader searches for it: beside the standard library
    if the file's search path contains that folder, else /opt/lib, which is in Lambda's
    LD_LIBRARY_PATH.
    """
    added: dict[str, Path] = {}
    outside: dict[str, str] = {}
    pending = dict(files)
    while pending:
        name, path = pending.popitem()
        binary = _binary(path)
        if binary is None:
            continue
        for library in binary.libraries:
            own = prefix / "lib" / library
            if not own.is_file():
                if not GLIBC_LIBRARIES.fullmatch(library):
                    outside.setdefault(library, PurePosixPath(name).name.split(".")[0])
                continue
            folder = f"{ROOT}/lib" if finds_beside(binary, name) else "lib"
            place = f"{folder}/{library}"
            if place not in added:
                added[place] = own
                pending[place] = own
                if folder == "lib":
                    note(
                        f"{name} does not search for {library} in $ORIGIN/../lib: it "
                        "is found in /opt/lib unless LD_LIBRARY_PATH is changed"
                    )
    if outside:
        found = ", ".join(f"{file} ({name})" for file, name in sorted(outside.items()))
        note(
            f"modules of the interpreter need libraries of the system: {found}; if a "
            "library is missing, importing its module fails"
        )
    return added


def finds_beside(binary: Binary, name: str) -> bool:
    """Return whether a file's search path contains the interpreter's lib folder."""
    origin = PurePosixPath("/opt", name).parent
    for text in binary.search_paths:
        path = text.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", str(origin))
        parts: list[str] = []
        for part in PurePosixPath(path).parts:
            if part == "..":
                del parts[-1:]
            else:
                parts.append(part)
        if PurePosixPath(*parts) == PurePosixPath("/opt", ROOT, "lib"):
            return True
    return False


def _binary(path: Path) -> Binary | None:
    with path.open("rb") as file:
        try:
            return read_binary(file)
        except BuildError as error:
            raise BuildError(f"Cannot ship {str(path)!r}: {error}") from error

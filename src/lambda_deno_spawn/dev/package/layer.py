"""The Lambda layers: their content, checks for Lambda's platform, and their zips.

Knows the three layers (Deno, the runtime, an interpreter), the paths of their files in
``/opt``, and what Amazon Linux 2023 can load. A layer is planned, checked, written and
then listed: a layer that fails a check is not written, and each listed layer exists.
Does not know AWS: publishing reads ``layers.json``. Specification: docs/layers.md;
AWS Lambda Developer Guide, "Packaging your layer content" and "Lambda quotas".
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lambda_deno_spawn
from lambda_deno_spawn.dev.package.archive import (
    EXECUTABLE,
    Member,
    write_archive,
    write_text,
)
from lambda_deno_spawn.dev.package.elf import read_binary
from lambda_deno_spawn.dev.package.interpreter import (
    ask_interpreter,
    compile_sources,
    install_prefix,
    plan_interpreter,
    prefix_version,
    search_interpreter,
)
from lambda_deno_spawn.dev.package.native import built_library
from lambda_deno_spawn.dev.package.scratch import scratch_folder
from lambda_deno_spawn.dev.package.wheels import (
    Requirement,
    Target,
    fetch_wheels,
    installed,
)
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.quotas import MB, OS_ONLY, UNZIPPED_LIMIT_BYTES
from lambda_deno_spawn.dev.project.requirements import (
    DENO_MINIMUM,
    DISTRIBUTION,
    RUNTIME_PACKAGES,
)
from lambda_deno_spawn.errors import BuildError, UsageError
from lambda_deno_spawn.native.control import LIBRARY
from lambda_deno_spawn.one_file import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from lambda_deno_spawn.dev.package.interpreter import Interpreter
    from lambda_deno_spawn.dev.package.wheels import Wheel

LAYER_FOLDER = "lib/lambda-deno-spawn"
LAYER_CODE = f"/opt/{LAYER_FOLDER}"
LAYER_RUNTIME_JS = f"{LAYER_CODE}/lambda_deno_spawn/js/runtime.js"
# These are imported before the one file is there.
BEFORE_ONE_FILE = ("lambda_deno_spawn/__init__.py", "lambda_deno_spawn/one_file.py")
START_SCRIPTS = ("bootstrap", "lambda-deno-spawn")
INDEX = "layers.json"
MANIFEST = "manifest.json"
# Python runtimes on Amazon Linux 2023; AWS Lambda Developer Guide, "Lambda runtimes".
PYTHONS = ("3.12", "3.13", "3.14")
DEFAULT_PYTHON = "3.13"
GLIBC_OF_LAMBDA = (2, 34)  # version in Amazon Linux 2023
MACHINES = {Arch.X86_64: "EM_X86_64", Arch.ARM64: "EM_AARCH64"}
FORK_MACHINES = {Arch.X86_64: "x86_64", Arch.ARM64: "aarch64"}  # names in uname
PYTHON_LICENSE = "Python-2.0"  # SPDX name of CPython's licence

T = TypeVar("T")


class Kind(StrEnum):
    """Kind of a layer."""

    DENO = "deno"
    RUNTIME = "runtime"
    PYTHON = "python"


# How much longer a cold start takes without byte code; docs/layers.md, "Byte code".
UNCOMPILED_MS = {Kind.RUNTIME: 120, Kind.PYTHON: 400}


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """The layers to build.

    Attributes:
        environ: The caller's environment, with PATH and the settings of pip and uv.
        deno: Version of Deno; None: the installed one.
        pythons: Versions of Python that the runtime layer supports.
        python_dir: Installation for the python layer; None: fetched by uv.
        allows_newer_glibc: Build layers that Lambda cannot load, with a note.
    """

    out: Path
    environ: Mapping[str, str]
    kinds: tuple[Kind, ...] = (Kind.DENO, Kind.RUNTIME)
    archs: tuple[Arch, ...] = (Arch.here(),)
    deno: str | None = None
    pythons: tuple[str, ...] = (DEFAULT_PYTHON,)
    python_dir: Path | None = None
    allows_newer_glibc: bool = False


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A built layer, as described in ``layers.json``.

    Attributes:
        name: Name of the layer in AWS.
        file: Name of its zip, beside ``layers.json``.
        sha256: Digest of the zip, in hexadecimal.
        pythons: Versions of Python that it supports or contains.
        deno: Version of Deno that it contains.
        version: Version of lambda-deno-spawn that built it.
        licenses: SPDX expression.
    """

    kind: Kind
    name: str
    arch: Arch
    file: str
    sha256: str
    zipped_bytes: int
    unzipped_bytes: int
    pythons: tuple[str, ...]
    deno: str | None
    version: str
    compatible_runtimes: tuple[str, ...]
    licenses: str

    def to_json(self) -> dict[str, object]:
        """Return its entry in ``layers.json``."""
        return {
            "kind": self.kind.value,
            "name": self.name,
            "arch": self.arch.value,
            "file": self.file,
            "sha256": self.sha256,
            "zippedBytes": self.zipped_bytes,
            "unzippedBytes": self.unzipped_bytes,
            "pythons": list(self.pythons),
            "deno": self.deno,
            "version": self.version,
            "compatibleRuntimes": list(self.compatible_runtimes),
            "licenses": self.licenses,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The content of a layer, before it is written."""

    kind: Kind
    arch: Arch
    members: tuple[Member, ...]
    licenses: str
    pythons: tuple[str, ...] = ()
    deno: str | None = None


def default_pythons(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the versions of Python that a runtime layer supports by default.

    That is the default of functions. If this machine has no such CPython to compile
    with, the newest one that it has is added: functions can choose it.
    """
    if search_interpreter(DEFAULT_PYTHON, environ) is not None:
        return (DEFAULT_PYTHON,)
    return (DEFAULT_PYTHON, *_compilable(environ)[:1])


def best_python(environ: Mapping[str, str]) -> str:
    """Return the version of Python for a new function: one that can be compiled for."""
    return default_pythons(environ)[-1]


def _compilable(environ: Mapping[str, str]) -> list[str]:
    """Return the versions of Python that this machine has, newest first."""
    found = (version for version in reversed(PYTHONS) if version != DEFAULT_PYTHON)
    return [version for version in found if search_interpreter(version, environ)]


def ignore(_: str) -> None:
    """Discard a note."""


def build_layers(
    options: LayerOptions, *, note: Callable[[str], None] = ignore
) -> list[BuiltLayer]:
    """Build layers and list them in ``layers.json``.

    The entries of other layers stay in the list.

    Args:
        options: The layers to build.
        note: Called with a sentence about a built layer that the user should know.

    Raises:
        BuildError: A layer cannot be built; those before it are built and listed.
        UsageError: An option has an invalid value.
    """
    check_options(options)
    built: list[BuiltLayer] = []
    wanted = [(arch, kind) for arch in options.archs for kind in options.kinds]
    for arch, kind in wanted:
        try:
            with scratch_folder() as scratch:
                plan = PLANNERS[kind](options, arch, Path(scratch), note)
                check_binaries(plan, options, note)
                check_size(plan)
                layer = _write(plan, options.out)
        except OSError as error:  # of a temporary file; most likely a full disk
            raise BuildError(
                f"Cannot build the {kind} layer for {arch}: {error}"
            ) from error
        _list(layer, options.out)
        built.append(layer)
    return built


def read_layers(out: Path) -> list[BuiltLayer]:
    """Return the layers listed in a folder; none if there is no list.

    Raises:
        BuildError: ``layers.json`` cannot be read.
    """
    path = out / INDEX
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [_from_json(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise BuildError(
            f"Cannot read {str(path)!r}: {detail}; delete it and build the layers again"
        ) from error


def _from_json(entry: Mapping[str, object]) -> BuiltLayer:
    def text(name: str) -> str:
        return _typed(entry[name], str)

    def texts(name: str) -> tuple[str, ...]:
        return tuple(_typed(item, str) for item in _typed(entry[name], list))

    return BuiltLayer(
        kind=Kind(text("kind")),
        name=text("name"),
        arch=Arch(text("arch")),
        file=text("file"),
        sha256=text("sha256"),
        zipped_bytes=_typed(entry["zippedBytes"], int),
        unzipped_bytes=_typed(entry["unzippedBytes"], int),
        pythons=texts("pythons"),
        deno=None if entry["deno"] is None else text("deno"),
        version=text("version"),
        compatible_runtimes=texts("compatibleRuntimes"),
        licenses=text("licenses"),
    )


def _typed(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


# --- Contents --------------------------------------------------------------------


def _plan_deno(
    options: LayerOptions, arch: Arch, scratch: Path, _note: Callable[[str], None]
) -> Plan:
    named = options.deno
    requirement = Requirement("deno", named) if named else installed("deno")
    # The wheel serves all versions of Python; naming one version caches it once.
    [wheel] = _wheels([requirement], arch, DEFAULT_PYTHON, options, scratch)
    if "deno" not in wheel.scripts:
        raise BuildError(f"Cannot build the deno layer: {requirement} has no binary")
    members = [
        Member("bin/deno", wheel.scripts["deno"], EXECUTABLE),
        *_license_members(wheel),
    ]
    return Plan(
        Kind.DENO,
        arch,
        tuple(members),
        wheel.license_expression,
        deno=requirement.version,
    )


def _plan_runtime(
    options: LayerOptions, arch: Arch, scratch: Path, note: Callable[[str], None]
) -> Plan:
    compilers = {v: search_interpreter(v, options.environ) for v in options.pythons}
    requirements = [installed(name) for name in RUNTIME_PACKAGES]
    first = options.pythons[0]
    wheels = _wheels(requirements, arch, first, options, scratch)
    code = _runtime_sources()
    for wheel in wheels:
        code |= _shipped(wheel.modules)
    for version in options.pythons[1:]:
        # The names of extension modules contain the version, so they can share a
        # folder. All other files have to be equal.
        for wheel in _wheels(requirements, arch, version, options, scratch):
            for name, content in _shipped(wheel.modules).items():
                if code.setdefault(name, content) != content:
                    raise BuildError(
                        f"Cannot build one runtime layer for Python {first} and "
                        f"{version}: {name} in {wheel.requirement} differs; build one "
                        "layer for each"
                    )
    extra: dict[str, bytes] = {}
    for version, compiler in compilers.items():
        if compiler is None:
            # The start scripts test for this file; Python imports the sources.
            extra[f"python{version}"] = b""
            note(_uncompiled(Kind.RUNTIME, version, compilers))
            continue
        compiled = compile_sources(
            compiler, code, LAYER_CODE, scratch / version, options.environ
        )
        packed = {path: name for name in compiled if (path := _packed(name))}
        extra |= {name: compiled[name] for name in compiled.keys() - packed.values()}
        # The start scripts test for this file, too.
        extra[f"python{version}"] = pack(
            {path: compiled[name] for path, name in packed.items()}
        )
    manifest = {
        "version": lambda_deno_spawn.__version__,
        "arch": arch.value,
        "pythons": {
            version: None if found is None else found.release
            for version, found in compilers.items()
        },
        "packages": {
            wheel.requirement.name: wheel.requirement.version for wheel in wheels
        },
    }
    extra[MANIFEST] = json.dumps(manifest, indent=2).encode() + b"\n"
    members = [
        *(
            Member(f"{LAYER_FOLDER}/{name}", text)
            for name, text in (code | extra).items()
        ),
        *_fork_library(arch, note),
        *(Member(name, _start_script(name), EXECUTABLE) for name in START_SCRIPTS),
        Member(f"licenses/{DISTRIBUTION}/LICENSE", _own_license()),
    ]
    for wheel in wheels:
        members += _license_members(wheel)
    licenses = _conjunction(["MIT", *(wheel.license_expression for wheel in wheels)])
    return Plan(Kind.RUNTIME, arch, tuple(members), licenses, options.pythons)


def _plan_python(
    options: LayerOptions, arch: Arch, scratch: Path, note: Callable[[str], None]
) -> Plan:
    prefix = options.python_dir
    if prefix is None:
        newest = max(options.pythons, key=PYTHONS.index)
        prefix = install_prefix(newest, arch, options.environ, scratch / "uv")
    version = prefix_version(prefix, PYTHONS)
    if version not in options.pythons:
        raise BuildError(
            f"Cannot use the interpreter in {str(prefix)!r}: it is Python {version}, "
            f"and the runtime layer is for {', '.join(options.pythons)}; add --python "
            f"{version}"
        )
    # The installation itself can compile if it is for this machine.
    own = prefix / "bin" / f"python{version}"
    compiler = search_interpreter(version, options.environ) or ask_interpreter(own)
    if compiler is None:
        note(_uncompiled(Kind.PYTHON, version, {}))
    members = plan_interpreter(
        prefix, version, compiler, scratch / "code", options.environ, note
    )
    return Plan(Kind.PYTHON, arch, tuple(members), PYTHON_LICENSE, (version,))


def _uncompiled(
    kind: Kind, version: str, compilers: Mapping[str, Interpreter | None]
) -> str:
    """Return what a layer without byte code for a version costs, and what to do."""
    others = [name for name, found in compilers.items() if found is not None]
    choice = f", or let functions use runtime python{others[0]}" if others else ""
    return (
        f"the {kind} layer has no byte code for Python {version}, as this machine has "
        f"no CPython {version}: each cold start with it takes about "
        f"{UNCOMPILED_MS[kind]} ms longer; install one, for example with `uv python "
        f"install {version}`, and build the layer again{choice}"
    )


PLANNERS = {
    Kind.DENO: _plan_deno,
    Kind.RUNTIME: _plan_runtime,
    Kind.PYTHON: _plan_python,
}


def _wheels(
    requirements: Sequence[Requirement],
    arch: Arch,
    python: str,
    options: LayerOptions,
    scratch: Path,
) -> list[Wheel]:
    return fetch_wheels(requirements, Target(arch, python), options.environ, scratch)


def _shipped(modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of a package without those that are only for type checkers."""
    surplus = (".pyi", "/py.typed")
    return {name: text for name, text in modules.items() if not name.endswith(surplus)}


def _runtime_sources() -> dict[str, bytes]:
    """Return the files of the runtime itself, by path."""
    package = Path(lambda_deno_spawn.__file__).parent
    sources = [*package.rglob("*.py"), *(package / "js").glob("*.js")]
    left_out = {
        package / "__main__.py",
        *(package / "dev").rglob("*"),
        *(package / "js" / "src").rglob("*"),  # the sources of runtime.js
    }
    files = [path for path in sources if path not in left_out]
    return {
        path.relative_to(package.parent).as_posix(): path.read_bytes() for path in files
    }


def _packed(name: str) -> str | None:
    """Return the path of a module's source if its byte code is in the one file.

    Args:
        name: Path of the byte code.
    """
    folder, _, file = name.partition("/__pycache__/")
    path = f"{folder}/{file.partition('.')[0]}.py"
    is_ours = path.startswith(f"{lambda_deno_spawn.__name__}/")
    return path if is_ours and path not in BEFORE_ONE_FILE else None


def _fork_library(arch: Arch, note: Callable[[str], None]) -> list[Member]:
    """Return the library that forks Deno, if it exists or can be compiled."""
    machine = FORK_MACHINES[arch]
    try:
        content = built_library(machine)
    except BuildError as error:
        note(
            f"the runtime layer for {arch.value} cannot fork processes "
            f"(LAMBDA_DENO_START): {error}"
        )
        return []
    package = lambda_deno_spawn.__name__
    return [Member(f"{LAYER_FOLDER}/{package}/native/lib/{machine}/{LIBRARY}", content)]


def _start_script(name: str) -> bytes:
    package = Path(lambda_deno_spawn.__file__).parent
    # In a wheel the folder is in the package, in a checkout at the top.
    for folder in (package / "layer", package.parents[1] / "layer"):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    raise BuildError(
        f"Cannot build the runtime layer: {name!r} is missing from the installation of "
        f"{DISTRIBUTION}; reinstall it"
    )


def _own_license() -> bytes:
    text = importlib.metadata.distribution(DISTRIBUTION).read_text("licenses/LICENSE")
    if text is None:
        raise BuildError(
            f"Cannot build the runtime layer: the licence of {DISTRIBUTION} is missing "
            "from its installation; reinstall it"
        )
    return text.encode()


def _license_members(wheel: Wheel) -> list[Member]:
    requirement = wheel.requirement
    if not wheel.licenses:
        raise BuildError(f"Cannot ship {requirement}: its wheel has no licence text")
    return [
        Member(f"licenses/{requirement.name}/{name}", text)
        for name, text in wheel.licenses.items()
    ]


def _conjunction(expressions: Iterable[str]) -> str:
    """Return the licence expression for files that are shipped together."""
    parts = dict.fromkeys(expressions)
    return " AND ".join(f"({part})" if " " in part else part for part in parts)


# --- Checks ----------------------------------------------------------------------


def check_options(options: LayerOptions) -> None:
    """Reject invalid values.

    Raises:
        UsageError: There is one.
    """
    for version in options.pythons:
        if version not in PYTHONS:
            raise UsageError(
                f"Cannot build for Python {version!r}: expected one of "
                f"{', '.join(PYTHONS)}, Lambda's runtimes on Amazon Linux 2023"
            )
    if not (options.kinds and options.archs and options.pythons):
        raise UsageError(
            "Cannot build layers: there is no kind, architecture or Python; "
            "give one of each"
        )
    if options.deno is None:
        return
    wanted = ".".join(map(str, DENO_MINIMUM))
    if not re.fullmatch(r"\d+\.\d+\.\d+", options.deno):
        raise UsageError(
            f"Cannot use Deno {options.deno!r}: expected a version such as {wanted}.0"
        )
    if tuple(map(int, options.deno.split("."))) < DENO_MINIMUM:
        raise UsageError(
            f"Cannot use Deno {options.deno}: the runtime needs {wanted} or newer"
        )


def check_binaries(
    plan: Plan, options: LayerOptions, note: Callable[[str], None]
) -> None:
    """Reject files that Lambda's processor or C library cannot load.

    Args:
        plan: The layer.
        options: Says whether a newer C library is allowed.
        note: Called if a file needs a newer C library, and that is allowed.

    Raises:
        BuildError: There is such a file.
    """
    limit = ".".join(map(str, GLIBC_OF_LAMBDA))
    foreign: list[str] = []
    newer: list[str] = []
    for member in sorted(plan.members, key=lambda member: member.name):
        try:
            with _opened(member) as file:
                binary = read_binary(file)
        except (BuildError, OSError) as error:
            raise BuildError(f"Cannot ship {member.name!r}: {error}") from error
        if binary is None:
            continue
        if binary.machine != MACHINES[plan.arch]:
            foreign.append(f"{member.name} is for {_processor(binary.machine)}")
        elif any(name.startswith("libc.musl") for name in binary.libraries):
            foreign.append(f"{member.name} is for musl, and Lambda has glibc")
        elif binary.glibc is not None and binary.glibc > GLIBC_OF_LAMBDA:
            needed = ".".join(map(str, binary.glibc))
            newer.append(f"{member.name} needs GLIBC_{needed}")
    if foreign:
        raise BuildError(
            f"Cannot build the {plan.kind} layer for {plan.arch}: {foreign[0]}"
            + (f", and so are {len(foreign) - 1} other files" if foreign[1:] else "")
        )
    if newer and not options.allows_newer_glibc:
        raise BuildError(
            f"Cannot build the {plan.kind} layer for {plan.arch}: {'; '.join(newer)}; "
            f"Lambda has glibc {limit}; use a release built for that, or add "
            "--allow-newer-glibc for a test on this machine"
        )
    if newer:
        note(
            f"the {plan.kind} layer for {plan.arch} does not work on Lambda, which has "
            f"glibc {limit}: {'; '.join(newer)}"
        )


def check_size(plan: Plan) -> None:
    """Reject a layer that is too large for Lambda.

    Raises:
        BuildError: The layer alone exceeds the limit for all layers.
    """
    size_bytes = sum(
        len(content) if isinstance(content, bytes) else content.stat().st_size
        for content in (member.content for member in plan.members)
    )
    if size_bytes > UNZIPPED_LIMIT_BYTES:
        raise BuildError(
            f"Cannot use the {plan.kind} layer for {plan.arch}: it has "
            f"{size_bytes / MB:.1f} MB unzipped, Lambda accepts "
            f"{UNZIPPED_LIMIT_BYTES // MB} MB for a function and all its layers"
        )


def _processor(machine: str) -> str:
    names = {value: arch.value for arch, value in MACHINES.items()}
    return names.get(machine, machine)


def _opened(member: Member) -> BinaryIO:
    if isinstance(member.content, bytes):
        return io.BytesIO(member.content)
    return member.content.open("rb")


# --- Writing ---------------------------------------------------------------------


def _write(plan: Plan, out: Path) -> BuiltLayer:
    path = out / f"{plan.kind}-layer-{plan.arch}.zip"
    written = write_archive(path, plan.members)
    return BuiltLayer(
        kind=plan.kind,
        name=f"{DISTRIBUTION}-{plan.kind}-{plan.arch}",
        arch=plan.arch,
        file=path.name,
        sha256=written.sha256,
        zipped_bytes=written.zipped_bytes,
        unzipped_bytes=written.unzipped_bytes,
        pythons=plan.pythons,
        deno=plan.deno,
        version=lambda_deno_spawn.__version__,
        compatible_runtimes=tuple(_compatible_runtimes(plan)),
        licenses=plan.licenses,
    )


def _list(layer: BuiltLayer, out: Path) -> None:
    """Add a layer to the list, replacing an entry with the same name."""
    known = {**{other.name: other for other in read_layers(out)}, layer.name: layer}
    entries = [known[name].to_json() for name in sorted(known)]
    write_text(out / INDEX, json.dumps(entries, indent=2) + "\n")


def _compatible_runtimes(plan: Plan) -> Iterator[str]:
    yield OS_ONLY
    if plan.kind is not Kind.PYTHON:  # managed runtimes have an interpreter
        for version in plan.pythons or PYTHONS:
            yield f"python{version}"

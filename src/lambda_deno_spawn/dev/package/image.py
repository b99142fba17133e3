"""A function as a container image: a base, Deno, the runtime and the package.

Knows the layers of such an image, the interpreter that the base has to have, and how
the runtime is started in it. Does not know how an image is written, how layers and
packages are built, nor registries. Specification: docs/container.md, decision 0044;
AWS Lambda Developer Guide, "Create a Lambda function using a container image".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.package.layer import (
    DEFAULT_PYTHON,
    LAYER_CODE,
    Kind,
    LayerOptions,
    build_layers,
    read_layers,
)
from lambda_deno_spawn.dev.package.oci import (
    ARCHITECTURES,
    CREATED,
    LAYER,
    Blob,
    Image,
    Layer,
    check_layers,
    compressed,
    names_in,
    read_layout,
    write_layer,
    write_layout,
)
from lambda_deno_spawn.dev.package.scratch import partial_file, scratch_folder
from lambda_deno_spawn.dev.package.wheels import cache_folder
from lambda_deno_spawn.dev.project.quotas import OS_ONLY
from lambda_deno_spawn.dev.project.selection import IMAGE_SUFFIX
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.dev.package.build import Package
    from lambda_deno_spawn.dev.package.layer import BuiltLayer
    from lambda_deno_spawn.dev.project.project import Arch, Project

TASK_ROOT = "var/task"
OPT = "opt"
FORMAT = 1  # of cached layers; another number makes all of them anew
# Paths of the interpreter in images, AWS's own first.
PYTHON_FOLDERS = ("var/lang/bin", "usr/local/bin", "usr/bin", "opt/interpreter/bin")
EMULATOR = "/usr/local/bin/aws-lambda-rie"  # in AWS's base images
PATH = "/usr/local/bin:/usr/bin:/bin:/opt/bin"
# One process: the interpreter that reads this becomes the supervisor. Where no Runtime
# API is, as under `docker run`, AWS's emulator provides one if the base has it.
ENTRY = (
    "import os, sys; "
    "os.environ.update(dict(_HANDLER=sys.argv[1]) if sys.argv[1:] else {}); "
    f'"AWS_LAMBDA_RUNTIME_API" in os.environ or not os.path.exists("{EMULATOR}") or '
    f'os.execv("{EMULATOR}", ["{EMULATOR}", *sys.orig_argv]); '
    f'sys.path.append("{LAYER_CODE}"); '
    "from lambda_deno_spawn.one_file import use; "
    f'use("{LAYER_CODE}"); '
    "from lambda_deno_spawn.bootstrap import main; main()"
)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The image to build.

    Attributes:
        package: The function's package.
        out: Folder for the image; also that of the layers.
        environ: The caller's environment.
        base: The image to build on.
        base_name: How the user named it.
        base_digest: Digest of its manifest, if it comes from a registry.
        python_dir: Interpreter for ``provided.al2023``; None: fetched by uv.
    """

    project: Project
    package: Package
    arch: Arch
    out: Path
    environ: Mapping[str, str]
    base: Image
    base_name: str
    base_digest: str | None = None
    python_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that was written.

    Attributes:
        path: Its layout.
        digest: Digest of its manifest, by which registries know it.
        size_bytes: Of its compressed layers, base included.
        python: Path of the interpreter in it.
    """

    path: Path
    image: Image
    digest: str
    size_bytes: int
    python: str


def default_base(runtime: str) -> str:
    """Return the image of AWS that a function is built on if none is named."""
    if runtime == OS_ONLY:
        return "public.ecr.aws/lambda/provided:al2023"
    return f"public.ecr.aws/lambda/python:{runtime.removeprefix('python')}"


def build_image(options: ImageOptions, note: Callable[[str], None]) -> BuiltImage:
    """Build an image from a package; write it as a layout.

    Args:
        options: The image to build.
        note: Called with a sentence that the user should know.

    Raises:
        BuildError: The base has no interpreter, or something cannot be written.
    """
    check_layers(options.base, options.base_name)
    runtime = options.project.runtime
    is_own = runtime == OS_ONLY
    version = DEFAULT_PYTHON if is_own else runtime.removeprefix("python")
    python = (
        f"{OPT}/interpreter/bin/python{version}"
        if is_own
        else _python_in(options.base, version, options.base_name)
    )
    kinds = [Kind.DENO, Kind.RUNTIME, *([Kind.PYTHON] if is_own else [])]
    built = _layers(options, kinds, version, note)
    with scratch_folder() as scratch:
        cache = cache_folder(options.environ).with_name("image-layers")
        layers = [_cached(options.out, layer, cache, Path(scratch)) for layer in built]
        layers.append(_layer(options.package.path, TASK_ROOT, Path(scratch) / "task"))
        configured = _configured(options, f"/{python}", _gzipped(options.base, scratch))
        image = configured.with_layers(layers, "lambda-deno-spawn build --image")
        path = options.out / f"{options.project.name}{IMAGE_SUFFIX}"
        write_layout(path, image, options.project.name)
    # The folder with its layers is gone: from here on they are those of the layout.
    stored = read_layout(path, options.arch)
    image = Image(stored.config, stored.layers, image.annotations)
    size_bytes = sum(layer.blob.size_bytes for layer in image.layers)
    return BuiltImage(path, image, image.manifest.digest, size_bytes, f"/{python}")


def _annotations(options: ImageOptions) -> dict[str, str]:
    """Return where the base comes from; a path of this machine is not kept."""
    if options.base_digest is None:
        return {}
    return {
        "org.opencontainers.image.base.name": options.base_name,
        "org.opencontainers.image.base.digest": options.base_digest,
    }


def _python_in(base: Image, version: str, shown: str) -> str:
    """Return the path of the interpreter in a base, without a slash at the beginning.

    Raises:
        BuildError: The base has none of this version.
    """
    wanted = [f"{folder}/python{version}" for folder in PYTHON_FOLDERS]
    found: set[str] = set()
    others: set[str] = set()
    for layer in reversed(base.layers):
        for name in names_in(layer):
            if name in wanted:
                found.add(name)
            elif name.rpartition("/")[0] in PYTHON_FOLDERS and _is_python(name):
                others.add(name.rpartition("/")[2])
        if found:  # AWS has it in its top layers, above an operating system
            return min(found, key=wanted.index)
    there = f"it has {', '.join(sorted(others))}" if others else "it has none at all"
    raise BuildError(
        f"Cannot build on {shown!r}: the function's runtime is python{version}, and "
        f"the base has no python{version} in /{', /'.join(PYTHON_FOLDERS)}; {there}; "
        f'choose another base, or `runtime = "{OS_ONLY}"`, for which the image '
        "includes an interpreter"
    )


def _is_python(name: str) -> bool:
    word = name.rpartition("/")[2].removeprefix("python3.")
    return word.isdigit()


def _layers(
    options: ImageOptions,
    kinds: Sequence[Kind],
    version: str,
    note: Callable[[str], None],
) -> list[BuiltLayer]:
    """Return the layers in the output folder; build those that are missing."""

    def usable() -> dict[Kind, BuiltLayer]:
        return {
            layer.kind: layer
            for layer in read_layers(options.out)
            if layer.arch is options.arch
            and (layer.kind is Kind.DENO or version in layer.pythons)
            and (options.out / layer.file).is_file()
        }

    missing = [kind for kind in kinds if kind not in usable()]
    if missing:
        note(f"builds the missing layers: {', '.join(kind.value for kind in missing)}")
        build_layers(
            LayerOptions(
                options.out,
                options.environ,
                tuple(missing),
                (options.arch,),
                pythons=(version,),
                python_dir=options.python_dir,
            ),
            note=note,
        )
    found = usable()
    return [found[kind] for kind in kinds]


def _cached(out: Path, built: BuiltLayer, cache: Path, scratch: Path) -> Layer:
    """Return a layer of the runtime, compressed now or by an earlier build.

    To compress Deno takes seconds, and it is the same for all functions.
    """
    key = f"{built.sha256}-{zlib.ZLIB_RUNTIME_VERSION}-{FORMAT}"
    path, facts = cache / f"{key}.tar.gz", cache / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        known = json.loads(facts.read_bytes())
        with path.open("rb") as file:
            digits = hashlib.file_digest(file, "sha256").hexdigest()
        if known["digest"] == f"sha256:{digits}":
            size_bytes = path.stat().st_size
            blob = Blob(known["mediaType"], known["digest"], size_bytes, path)
            return Layer(blob, known["diffId"])
    made = _layer(out / built.file, OPT, scratch / built.kind.value)
    # The image is complete even if the cache cannot be written.
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        assert isinstance(made.blob.content, Path)
        with partial_file(path) as partial:
            shutil.copyfile(made.blob.content, partial)
        with partial_file(facts) as partial:
            known = {**made.blob.descriptor, "diffId": made.diff_id}
            partial.write_text(json.dumps(known))
    return made


def _layer(archive: Path, root: str, path: Path) -> Layer:
    """Write the content of a zip as a layer."""
    try:
        with zipfile.ZipFile(archive) as content:
            members = []
            for info in content.infolist():
                mode = info.external_attr >> 16
                if info.is_dir():
                    mode = stat.S_IFDIR | 0o755
                name = info.filename.rstrip("/")
                members.append(Member(name, content.read(info), mode))
    except (OSError, zipfile.BadZipFile) as error:
        raise BuildError(f"Cannot read {str(archive)!r}: {error}") from error
    return write_layer(path, root, members)


def _gzipped(base: Image, scratch: str) -> tuple[Layer, ...]:
    """Return the layers of a base, all of them compressed: Lambda takes no others."""
    return tuple(
        compressed(layer, Path(scratch) / f"base-{number}")
        if layer.blob.media_type == LAYER
        else layer
        for number, layer in enumerate(base.layers)
    )


def _configured(options: ImageOptions, python: str, layers: tuple[Layer, ...]) -> Image:
    """Return the base with the configuration of the function."""
    base = options.base
    config: dict[str, Any] = dict(base.config.get("config") or {})
    environ = dict(
        entry.partition("=")[::2] for entry in config.get("Env") or () if "=" in entry
    )
    path = environ.get("PATH") or PATH
    if "/opt/bin" not in path.split(":"):
        path = f"{path}:/opt/bin"
    environ |= {
        **options.project.variables,
        "PATH": path,
        "LAMBDA_TASK_ROOT": f"/{TASK_ROOT}",
    }
    config |= {
        "Cmd": [options.package.handler],
        "Entrypoint": [python, "-I", "-S", "-c", ENTRY],
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "WorkingDir": f"/{TASK_ROOT}",
    }
    kept = {
        name: base.config[name] for name in ("rootfs", "variant", "history")
        if name in base.config
    }  # fmt: skip
    whole = {
        **kept,
        "architecture": ARCHITECTURES[options.arch],
        "os": "linux",
        "created": CREATED,
        "config": config,
    }
    return Image(whole, layers, _annotations(options))

"""Container images on the command line: the base, the build, the push, the output.

Knows how an image's base is named, where passwords of registries come from, and what is
printed: the result on stdout, all else on stderr. Does not know what is in an image.
Specification: docs/container.md.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output
from lambda_deno_spawn.dev.project.home import home_folder
from lambda_deno_spawn.dev.project.quotas import MB

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.package.build import BuildOptions, Package
    from lambda_deno_spawn.dev.package.image import BuiltImage
    from lambda_deno_spawn.dev.package.oci import Blob, Image
    from lambda_deno_spawn.dev.package.registry import Login

BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="IMAGE|FOLDER",
        help="With --image: the base image, in a registry (HOST/NAME:TAG) or a local "
        "OCI layout.  [default: lambda.toml's, else AWS's for the runtime]",
    ),
]
PythonDirOption = Annotated[
    Path | None,
    typer.Option(
        "--python-dir",
        metavar="FOLDER",
        help="With --image and provided.al2023: installation of Python to include."
        "  [default: python-build-standalone, fetched by uv]",
    ),
]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """The image that a user asks for.

    Attributes:
        options: The package in it.
        base: Name or folder of the image to build on; None: that of the project file,
            else that of AWS.
        push: Name to push it to; None: it stays here.
        tar: File to write the layout to, too; None: the folder only.
        python_dir: Interpreter to put into it.
        region: Region for AWS's registry; None: the one in its name.
        profile: Profile in the AWS configuration files.
    """

    options: BuildOptions
    base: str | None = None
    push: str | None = None
    tar: Path | None = None
    python_dir: Path | None = None
    region: str | None = None
    profile: str | None = None

    @property
    def base_name(self) -> str:
        """Name or folder of the image to build on."""
        from lambda_deno_spawn.dev.package.image import default_base

        project = self.options.project
        given = project.aws.get("image.base")
        if self.base is None and given is not None:
            folder = project.function.task_root / given
            return str(folder) if folder.is_dir() else str(given)
        return self.base or default_base(project.runtime)


def make_image(request: ImageRequest, output: Output) -> None:
    """Build an image, push it if asked for, and print what it is.

    Raises:
        BuildError: The base cannot be used, or the image cannot be written.
        DeployError: The registry refused it, or cannot be reached.
        UsageError: A name cannot be used.
    """
    from lambda_deno_spawn.dev.package.oci import write_tar
    from lambda_deno_spawn.dev.package.registry import Reference

    target = None if request.push is None else Reference.parse(request.push)
    _, built = built_image(request)
    if request.tar is not None:
        write_tar(request.tar, built.path, built.image, request.options.project.name)
    pushed = None if target is None else _push(request, target.host, built)
    _show(built, request, pushed, output)


def built_image(request: ImageRequest) -> tuple[Package, BuiltImage]:
    """Build a package and an image of it.

    Raises:
        BuildError: The base cannot be used, or the image cannot be written.
        DeployError: The registry refused it, or cannot be reached.
        UsageError: A name cannot be used.
    """
    from lambda_deno_spawn.dev.package.build import build
    from lambda_deno_spawn.dev.package.image import ImageOptions, build_image

    options = request.options
    base, digest = _base(request, request.base_name)
    package = build(options, os.environ)
    for text in package.notes:
        _note(text)
    built = build_image(
        ImageOptions(
            project=options.project,
            package=package,
            arch=options.arch,
            out=options.out,
            environ=os.environ,
            base=base,
            base_name=request.base_name,
            base_digest=digest,
            python_dir=request.python_dir,
        ),
        _note,
    )
    return package, built


def _note(text: str) -> None:
    print(f"Note: {text}", file=sys.stderr, flush=True)


def _base(request: ImageRequest, name: str) -> tuple[Image, str | None]:
    """Return the image to build on, and its digest if it comes from a registry."""
    from lambda_deno_spawn.dev.package.oci import read_layout
    from lambda_deno_spawn.dev.package.registry import Reference, Registry
    from lambda_deno_spawn.dev.package.wheels import cache_folder

    arch = request.options.arch
    if Path(name).exists():
        return read_layout(Path(name), arch), None
    reference = Reference.parse(name)
    print(f"Base: {reference}", file=sys.stderr, flush=True)
    cache = cache_folder(os.environ).with_name("blobs")
    with Registry(reference, _login(request, reference.host)) as registry:
        return registry.fetch(arch, cache)


def _login(request: ImageRequest, host: str) -> Login | None:
    """Return name and password of a registry, None without any."""
    from lambda_deno_spawn.dev.aws.registry import ecr_login, ecr_region
    from lambda_deno_spawn.dev.package.registry import docker_login

    home = home_folder(os.environ)
    found = None if home is None else docker_login(host, home)
    region = ecr_region(host)
    if found is not None or region is None:
        return found
    from lambda_deno_spawn.dev.aws.session import Aws

    return ecr_login(Aws(request.region or region, request.profile), host)


def _push(request: ImageRequest, host: str, built: BuiltImage) -> str:
    from lambda_deno_spawn.dev.package.registry import Reference, Registry

    assert request.push is not None  # its reference was parsed
    reference = Reference.parse(request.push)
    with Registry(reference, _login(request, host)) as registry:
        return registry.push(built.image, _show_blob)


def _show_blob(blob: Blob, is_sent: bool) -> None:
    state = "pushed" if is_sent else "is there"
    print(
        f"  {blob.digest[:19]} {blob.size_bytes / MB:.2f} MB {state}",
        file=sys.stderr,
        flush=True,
    )


def _show(
    built: BuiltImage, request: ImageRequest, pushed: str | None, output: Output
) -> None:
    architecture = built.image.config["architecture"]
    if output is Output.JSON:
        fields = {
            "path": str(built.path),
            "digest": built.digest,
            "bytes": built.size_bytes,
            "architecture": architecture,
            "base": request.base_name,
            "tar": None if request.tar is None else str(request.tar),
            "python": built.python,
            "pushed": pushed,
        }
        print(json.dumps(fields))
    else:
        print(
            f"{built.path}: {built.size_bytes / MB:.1f} MB, {len(built.image.layers)} "
            f"layers, linux/{architecture}"
        )
        if request.tar is not None:
            print(request.tar)
        print(built.digest)
        if pushed is not None:
            print(pushed)
    sys.stdout.flush()

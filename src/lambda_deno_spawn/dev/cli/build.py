"""The command ``build``: parses its options, and prints the package it built.

Knows the options and the output. Does not know how a package is built. Specification:
docs/build.md and the help texts below.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.image import (
    BaseOption,
    ImageRequest,
    PythonDirOption,
    make_image,
)
from lambda_deno_spawn.dev.cli.options import (
    EnvFileOption,
    HandlerOption,
    ProfileOption,
    ProjectArgument,
    RegionOption,
    StageOption,
    VerboseOption,
)
from lambda_deno_spawn.dev.cli.tables import write_table
from lambda_deno_spawn.dev.project.dotenv import ADVICE, unpackaged_env_file
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.function import shadowing_note
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.quotas import MB
from lambda_deno_spawn.dev.project.target import find_project, find_target
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.package.build import Package

SHOWN_FILES = 20


def build(
    function: ProjectArgument = ".",
    *,
    stage: StageOption = None,
    handler: HandlerOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the package.  [default: that of the function]",
        ),
    ] = None,
    arch: Annotated[
        Arch | None,
        typer.Option(help="Instruction set.  [default: lambda.toml's, else x86_64]"),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the package.")
    ] = Path("dist"),
    bundle: Annotated[
        bool | None,
        typer.Option(
            "--bundle/--no-bundle",
            help="Bundle all modules into one, or package the files and their npm "
            "packages unchanged.  [default: lambda.toml's, else what can be bundled]",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Type-check first.")] = False,
    minify: Annotated[
        bool, typer.Option("--minify", help="Minify the bundle.")
    ] = False,
    source_map: Annotated[
        bool,
        typer.Option(
            "--source-map/--no-source-map",
            help="Include the source map, so that stack traces name your source files.",
        ),
    ] = True,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Include a cache, filled by loading the module once during the build.",
        ),
    ] = True,
    image: Annotated[
        bool,
        typer.Option(
            "--image",
            help="Build a container image, too; without Docker.  [default: if "
            "lambda.toml has an image table]",
            show_default=False,
        ),
    ] = False,
    base: BaseOption = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="With --image: push it to a registry, as HOST/NAME:TAG.",
        ),
    ] = None,
    tar: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --image: write it as one file, too, for `docker load`.",
        ),
    ] = None,
    python_dir: PythonDirOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Environment variable for loading the module during the build; may be "
            "repeated.",
        ),
    ] = None,
    env_file: EnvFileOption = None,
    target_deno: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Deno binary for the other instruction set; this machine has to be "
            "able to run it.",
        ),
    ] = None,
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option("-o", "--output", help="text: a table; json: one object."),
    ] = Output.TEXT,
) -> None:
    """Build a function's package, the zip to upload to Lambda."""
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.package.build import BuildOptions
        from lambda_deno_spawn.dev.package.build import build as build_package

        target = find_target(function, handler, stage)
        target.refuse_qualifier("build")
        project = find_project(target, handler, name)
        if note := shadowing_note(project.function, function):
            print(note, file=sys.stderr)
        if target_deno is not None and not target_deno.is_file():
            raise UsageError(
                f"Cannot use --target-deno {str(target_deno)!r}: there is no such "
                "file; give the path of a Deno binary"
            )
        given = given_variables(env_file, env)
        if missed := unpackaged_env_file(project, project.variables_with(given)):
            print(f"Note: {missed}: {ADVICE}", file=sys.stderr)
        options = BuildOptions(
            project=project,
            arch=arch or project.arch,
            out=out,
            is_bundled=bundle,
            is_checked=check,
            is_minified=minify,
            has_map=source_map,
            is_seeded=cache,
            target_deno=target_deno,
            variables=given,
        )
        if not image and not project.aws.get("image.enabled"):
            _refuse_without_image(
                {
                    "--base": base,
                    "--push": push,
                    "--tar": tar,
                    "--python-dir": python_dir,
                    "--region": region,
                    "--profile": profile,
                }
            )
            show_package(build_package(options, os.environ), output)
            return
        request = ImageRequest(
            options=options,
            base=base,
            push=push,
            tar=tar,
            python_dir=python_dir,
            region=region,
            profile=profile,
        )
        make_image(request, output)


def _refuse_without_image(given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UsageError(
            f"Cannot use {' and '.join(names)} without --image: "
            f"{'it applies' if len(names) == 1 else 'they apply'} only to container "
            "images; add --image"
        )


def show_package(package: Package, output: Output) -> None:
    """Print the files and the size of a package; its notes go to stderr."""
    for note in package.notes:
        print(f"Note: {note}", file=sys.stderr)
    if output is Output.JSON:
        print(json.dumps(package_fields(package)))
        return
    largest = sorted(package.members.items(), key=lambda item: (-item[1], item[0]))
    largest = [(name, size) for name, size in largest if size]
    rows = [[name, f"{size / 1024:,.1f} KB"] for name, size in largest[:SHOWN_FILES]]
    write_table(["file", "size"], rows, sys.stdout)
    if len(largest) > SHOWN_FILES:
        print(f"and {len(largest) - SHOWN_FILES} smaller ones")
    print(
        f"\n{package.path}: {len(package.members)} files, "
        f"{package.zipped_bytes / MB:.2f} MB zipped (of 50), "
        f"{package.unzipped_bytes / MB:.2f} MB unzipped (of 250 with layers)"
    )
    print(f"handler {package.handler}, {package.arch.value}")


def package_fields(package: Package) -> dict[str, object]:
    """Return the fields of the JSON output."""
    return {
        "path": str(package.path),
        "sha256": package.sha256,
        "zippedBytes": package.zipped_bytes,
        "unzippedBytes": package.unzipped_bytes,
        "handler": package.handler,
        "arch": package.arch.value,
        "form": package.form,
        "deno": package.deno,
        "files": dict(sorted(package.members.items())),
        "notes": list(package.notes),
    }

"""The command ``layer build``: parses its options, and prints the layers it built.

Knows the options and the output: the layers on stdout, notes on stderr. Does not know
the content of a layer. Specification: docs/layers.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

import typer

from lambda_deno_spawn.dev.cli.console import Output, exit_codes
from lambda_deno_spawn.dev.cli.options import VerboseOption, layer_zips
from lambda_deno_spawn.dev.cli.tables import write_table
from lambda_deno_spawn.dev.package.layer import (
    DEFAULT_PYTHON,
    PYTHONS,
    Kind,
    LayerOptions,
    build_layers,
    default_pythons,
)
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.quotas import MB, UNZIPPED_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.dev.aws.wanted import Current, Wanted
    from lambda_deno_spawn.dev.package.layer import BuiltLayer

T = TypeVar("T")


class ArchChoice(StrEnum):
    """Values of ``--arch``."""

    X86_64 = Arch.X86_64.value
    ARM64 = Arch.ARM64.value
    BOTH = "both"


def build(
    *,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(help="Layer to build; may be repeated.  [default: deno, runtime]"),
    ] = None,
    arch: Annotated[
        list[ArchChoice] | None,
        typer.Option(
            help="Instruction set of the function; may be repeated.  "
            "[default: that of this machine]"
        ),
    ] = None,
    deno: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION", help="Version of Deno.  [default: the installed one]"
        ),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(PYTHONS),
            help="Version of Python to compile the runtime for; may be repeated.  "
            f"[default: {DEFAULT_PYTHON}, and if this machine does not have it, also "
            "the newest one that it has]",
        ),
    ] = None,
    python_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Installation of Python for the python layer.  "
            "[default: python-build-standalone, fetched by uv]",
        ),
    ] = None,
    allow_newer_glibc: Annotated[
        bool,
        typer.Option(
            "--allow-newer-glibc",
            help="Allow layers that Lambda cannot load, for tests on this machine.",
        ),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder for the zips and layers.json."),
    ] = Path("dist"),
    verbose: VerboseOption = False,
    output: Annotated[
        Output,
        typer.Option("-o", "--output", help="text: a table; json: a list."),
    ] = Output.TEXT,
) -> None:
    """Build layers: Deno, the runtime, or an interpreter for provided.al2023.

    Two builds of the same versions give the same bytes.
    """
    with exit_codes(is_verbose=verbose):
        options = LayerOptions(
            out=out,
            environ=os.environ,
            kinds=_unique(kind or [Kind.DENO, Kind.RUNTIME]),
            archs=_archs(arch),
            deno=deno,
            pythons=_unique(python or default_pythons(os.environ)),
            python_dir=python_dir,
            allows_newer_glibc=allow_newer_glibc,
        )
        built = build_layers(options, note=_note)
        if output is Output.JSON:
            print(json.dumps([layer.to_json() for layer in built]))
        else:
            write_layers(built, out, sys.stdout)
        sys.stdout.flush()


def build_missing(wanted: Wanted, current: Current, out: Path) -> Current:
    """Build the runtime's layers that a function needs and that exist nowhere.

    Args:
        wanted: The function.
        current: The state in AWS, and the local layers.
        out: Folder for the layers.

    Returns:
        The state with the layers that were built.

    Raises:
        BuildError: A layer cannot be built.
    """
    from lambda_deno_spawn.dev.aws.deploy_layers import layer_kind, missing_layers

    missing = missing_layers(wanted, current)
    if not missing:
        return current
    print(
        f"Building the layers {', '.join(missing)} in {out}, as they are neither "
        f"published in {current.place.region} nor built",
        file=sys.stderr,
        flush=True,
    )
    options = LayerOptions(
        out=out,
        environ=os.environ,
        kinds=tuple(Kind(layer_kind(name)) for name in missing),
        archs=(Arch(wanted.arch),),
        pythons=_pythons_of(wanted, current),
    )
    build_layers(options, note=_note)
    built = {layer.name: layer for layer in layer_zips(out)}
    return dataclasses.replace(current, built={**current.built, **built})


def _pythons_of(wanted: Wanted, current: Current) -> tuple[str, ...]:
    """Return the versions of Python that the layers of a function have to support."""
    from lambda_deno_spawn.dev.aws.deploy_layers import layer_kind

    if wanted.runtime.startswith("python"):
        return (wanted.runtime.removeprefix("python"),)
    # On provided.al2023 the interpreter has to be one that the runtime layer supports.
    for name in wanted.layer_names:
        known = current.layers.get(name) or current.built.get(name)
        if known is None or layer_kind(name) == Kind.DENO:
            continue
        runtimes = (item for item in known.runtimes if item.startswith("python"))
        if pythons := tuple(item.removeprefix("python") for item in runtimes):
            return pythons
    return default_pythons(os.environ)


def _note(text: str) -> None:
    print(f"Note: {text}", file=sys.stderr)


def write_layers(layers: Sequence[BuiltLayer], out: Path, stream: TextIO) -> None:
    """Write the layers, and the space they leave for the function."""
    rows = [
        [
            str(out / layer.file),
            f"{layer.zipped_bytes / MB:.1f} MB",
            f"{layer.unzipped_bytes / MB:.1f} MB",
            _content(layer),
        ]
        for layer in layers
    ]
    write_table(["layer", "zipped", "unzipped", "for"], rows, stream)
    limit = UNZIPPED_LIMIT_BYTES // MB
    for arch in dict.fromkeys(layer.arch for layer in layers):
        used_bytes = sum(item.unzipped_bytes for item in layers if item.arch is arch)
        left_bytes = UNZIPPED_LIMIT_BYTES - used_bytes
        stream.write(
            f"\n{arch}: {used_bytes / MB:.1f} of {limit} MB unzipped, "
            f"{left_bytes / MB:.1f} MB left for the function"
        )
    stream.write("\n")


def _content(layer: BuiltLayer) -> str:
    if layer.kind is Kind.DENO:
        return f"any runtime: Deno {layer.deno}"
    pythons = ", ".join(layer.pythons)
    if layer.kind is Kind.PYTHON:
        return f"provided.al2023: Python {pythons}"
    return f"Python {pythons}: lambda-deno-spawn {layer.version}"


def _archs(choices: Sequence[ArchChoice] | None) -> tuple[Arch, ...]:
    if not choices:
        return (Arch.here(),)
    if ArchChoice.BOTH in choices:
        return tuple(Arch)
    return _unique([Arch(choice.value) for choice in choices])


def _unique(values: Sequence[T]) -> tuple[T, ...]:
    """Return each value once, in the order given."""
    return tuple(dict.fromkeys(values))

"""Checks of a layer's content, and the list of built layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.package.elf import Binary
from lambda_deno_spawn.dev.package.interpreter import finds_beside, prefix_version
from lambda_deno_spawn.dev.package.layer import (
    LAYER_CODE,
    LAYER_RUNTIME_JS,
    BuiltLayer,
    Kind,
    LayerOptions,
    Plan,
    check_binaries,
    check_options,
    check_size,
    read_layers,
)
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError, UsageError
from tests.fixtures.binaries import AARCH64, X86_64, elf

OPTIONS = LayerOptions(Path("dist"), {})
LAYER = BuiltLayer(
    kind=Kind.RUNTIME,
    name="lambda-deno-spawn-runtime-arm64",
    arch=Arch.ARM64,
    file="runtime-layer-arm64.zip",
    sha256="ab" * 32,
    zipped_bytes=1,
    unzipped_bytes=2,
    pythons=("3.12", "3.13"),
    deno=None,
    version="0.1.0",
    compatible_runtimes=("provided.al2023", "python3.12", "python3.13"),
    licenses="MIT AND BSD-3-Clause",
)


def plan(arch: Arch = Arch.X86_64, **files: bytes) -> Plan:
    members = tuple(Member(name, content) for name, content in files.items())
    return Plan(Kind.RUNTIME, arch, members, "MIT")


def test_places_are_those_that_the_start_scripts_and_functions_rely_on() -> None:
    assert LAYER_CODE == "/opt/lib/lambda-deno-spawn"
    assert LAYER_RUNTIME_JS == (
        "/opt/lib/lambda-deno-spawn/lambda_deno_spawn/js/runtime.js"
    )


@pytest.mark.parametrize("version", ["2.8.9", "1.46.3", "0.0.0"])
def test_deno_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=r"Deno .*: the runtime needs 2\.9 or newer"):
        check_options(replace(OPTIONS, deno=version))


@pytest.mark.parametrize("version", ["2", "2.9", "v2.9.8", "latest", "", ">=2.9.8"])
def test_deno_that_is_not_a_version_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=r"expected a version such as 2\.9\.0"):
        check_options(replace(OPTIONS, deno=version))


@pytest.mark.parametrize("version", ["2.9.0", "2.10.1", "3.0.0"])
def test_deno_that_is_new_enough_may_be_named(version: str) -> None:
    check_options(replace(OPTIONS, deno=version))


@pytest.mark.parametrize("version", ["3.11", "3.15", "3", "3.13.1", "python3.13"])
def test_python_that_lambda_does_not_have_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of 3\.12, 3\.13, 3\.14"):
        check_options(replace(OPTIONS, pythons=("3.13", version)))


def test_every_file_that_needs_a_newer_glibc_is_named_with_the_version() -> None:
    newer = plan(
        text=b"#!/bin/sh",
        old=elf(glibc=("GLIBC_2.34",)),
        one=elf(glibc=("GLIBC_2.36", "GLIBC_2.4")),
        two=elf(glibc=("GLIBC_2.35",)),
    )
    with pytest.raises(BuildError) as caught:
        check_binaries(newer, OPTIONS, pytest.fail)
    assert "one needs GLIBC_2.36; two needs GLIBC_2.35; Lambda has glibc 2.34" in str(
        caught.value
    )
    assert "old" not in str(caught.value)


def test_newer_glibc_can_be_allowed_and_is_noted() -> None:
    notes: list[str] = []
    options = replace(OPTIONS, allows_newer_glibc=True)
    check_binaries(plan(one=elf(glibc=("GLIBC_2.36",))), options, notes.append)
    assert len(notes) == 1
    assert "does not work on Lambda" in notes[0]
    assert "one needs GLIBC_2.36" in notes[0]


@pytest.mark.parametrize(
    ("arch", "machine", "found"),
    [(Arch.ARM64, X86_64, "x86_64"), (Arch.X86_64, AARCH64, "arm64")],
)
def test_file_for_another_processor_is_refused_even_for_tests(
    arch: Arch, machine: int, found: str
) -> None:
    options = replace(OPTIONS, allows_newer_glibc=True)
    foreign = plan(arch, one=elf(machine), two=elf(machine))
    with pytest.raises(BuildError, match=f"for {arch}: one is for {found}, and so are"):
        check_binaries(foreign, options, pytest.fail)


def test_file_for_musl_is_refused() -> None:
    musl = plan(one=elf(glibc=("MUSL_1",), needed=("libc.musl-x86_64.so.1",)))
    with pytest.raises(BuildError, match="one is for musl"):
        check_binaries(musl, OPTIONS, pytest.fail)


def test_broken_binary_is_named() -> None:
    with pytest.raises(BuildError, match="Cannot ship 'one': the ELF file is broken"):
        check_binaries(plan(one=elf()[:100]), OPTIONS, pytest.fail)


@pytest.mark.parametrize(
    ("name", "paths", "is_found"),
    [
        ("interpreter/bin/python3.13", ("$ORIGIN/../lib",), True),
        ("interpreter/bin/python3.13", ("${ORIGIN}/../lib/",), True),
        ("interpreter/bin/python3.13", ("/x", "/opt/interpreter/lib"), True),
        ("interpreter/lib/python3.13/lib-dynload/_x.so", ("$ORIGIN/../..",), True),
        ("interpreter/bin/python3.13", (), False),
        ("interpreter/bin/python3.13", ("/usr/local/lib", "$ORIGIN"), False),
        ("interpreter/bin/python3.13", ("../../../../lib",), False),
    ],
)
def test_search_path_leads_to_the_interpreter_s_own_libraries_or_not(
    name: str, paths: tuple[str, ...], is_found: bool
) -> None:
    assert finds_beside(Binary("EM_X86_64", None, (), paths), name) is is_found


def test_installation_says_its_version_by_its_folders(tmp_path: Path) -> None:
    make_prefix(tmp_path, "3.13")
    (tmp_path / "bin" / "python3.12").touch()  # an installation needs a library
    assert prefix_version(tmp_path, ("3.12", "3.13")) == "3.13"


@pytest.mark.parametrize("versions", [[], ["3.12", "3.13"], ["3.11"]], ids=repr)
def test_installation_without_one_version_is_refused(
    tmp_path: Path, versions: list[str]
) -> None:
    for version in versions:
        make_prefix(tmp_path, version)
    with pytest.raises(BuildError, match=r"expected exactly one .*lib/python3\.13"):
        prefix_version(tmp_path, ("3.12", "3.13"))


def make_prefix(folder: Path, version: str) -> None:
    library = folder / "lib" / f"python{version}"
    library.mkdir(parents=True)
    (library / "os.py").touch()
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / f"python{version}").touch()


def test_list_of_layers_is_read_as_it_was_written(tmp_path: Path) -> None:
    deno = replace(LAYER, kind=Kind.DENO, deno="2.9.8", pythons=())
    entries = [layer.to_json() for layer in (LAYER, deno)]
    (tmp_path / "layers.json").write_text(json.dumps(entries))
    assert read_layers(tmp_path) == [LAYER, deno]


def test_entry_has_the_names_of_the_documentation() -> None:
    assert LAYER.to_json() == {
        "kind": "runtime",
        "name": "lambda-deno-spawn-runtime-arm64",
        "arch": "arm64",
        "file": "runtime-layer-arm64.zip",
        "sha256": "ab" * 32,
        "zippedBytes": 1,
        "unzippedBytes": 2,
        "pythons": ["3.12", "3.13"],
        "deno": None,
        "version": "0.1.0",
        "compatibleRuntimes": ["provided.al2023", "python3.12", "python3.13"],
        "licenses": "MIT AND BSD-3-Clause",
    }


def test_folder_without_a_list_has_no_layers(tmp_path: Path) -> None:
    assert read_layers(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{}x",
        "3",
        "[3]",
        "[{}]",
        json.dumps([{**LAYER.to_json(), "kind": "x"}]),
        json.dumps([{**LAYER.to_json(), "zippedBytes": "1"}]),
    ],
)
def test_list_that_cannot_be_used_is_refused_with_its_name(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "layers.json").write_text(text)
    with pytest.raises(BuildError, match=r"layers\.json.*delete it"):
        read_layers(tmp_path)


def test_layer_that_fills_the_limit_may_be_built_and_a_larger_one_not() -> None:
    half = bytes(125 * 1024 * 1024)
    check_size(plan(one=half, two=half))
    with pytest.raises(BuildError, match=r"250\.0 MB unzipped, Lambda accepts 250 MB"):
        check_size(plan(one=half, two=half, three=b"1"))

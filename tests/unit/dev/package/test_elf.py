"""Requirements read from compiled files."""

from __future__ import annotations

import io

import pytest

from lambda_deno_spawn.dev.package.elf import Binary, read_binary
from lambda_deno_spawn.errors import BuildError
from tests.fixtures.binaries import AARCH64, elf


def read(content: bytes) -> Binary | None:
    return read_binary(io.BytesIO(content))


def test_newest_symbol_counts_as_a_number_and_not_as_text() -> None:
    content = elf(glibc=("GLIBC_2.4", "GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_PRIVATE"))
    binary = read(content)
    assert binary is not None
    assert binary.glibc == (2, 34)


def test_versions_of_other_libraries_are_not_versions_of_glibc() -> None:
    binary = read(elf(glibc=("GCC_3.0", "OPENSSL_3.0.0", "GLIBC_ABI_DT_RELR")))
    assert binary is not None
    assert binary.glibc is None


def test_machine_libraries_and_search_paths_are_read() -> None:
    binary = read(
        elf(
            AARCH64,
            needed=("libpython3.13.so.1.0", "libc.so.6"),
            rpath="/a:$ORIGIN/../lib",
            runpath="/b",
        )
    )
    assert binary is not None
    assert binary.machine == "EM_AARCH64"
    assert binary.libraries == ("libpython3.13.so.1.0", "libc.so.6")
    assert binary.search_paths == ("/a", "$ORIGIN/../lib", "/b")


@pytest.mark.parametrize(
    "content", [b"", b"\x7f", b"#!/bin/sh\n", b"PK\x03\x04"], ids=repr
)
def test_other_files_have_no_requirements(content: bytes) -> None:
    assert read(content) is None


@pytest.mark.parametrize("length", [4, 16, 63, 80, 200, 400])
def test_elf_file_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(BuildError, match="the ELF file is broken"):
        read(elf()[:length])


def test_elf_file_without_sections_is_refused_as_it_cannot_be_judged() -> None:
    content = bytearray(elf())
    content[0x28:0x30] = bytes(8)  # offset of the section headers
    content[0x3C:0x3E] = bytes(2)  # their number
    with pytest.raises(BuildError, match="no section headers"):
        read(bytes(content))

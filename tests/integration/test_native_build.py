"""The library that forks Deno: how it is built, and what of it can be tried alone."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambda_deno_spawn.dev.package import native
from lambda_deno_spawn.dev.package.elf import read_binary
from lambda_deno_spawn.dev.package.native import (
    GLIBC,
    MACHINES,
    SOURCES,
    compile_library,
    sources,
)
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable


NAMES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
CHECK = Path(__file__).parents[1] / "native" / "text_check.c"
DOCUMENT = Path(__file__).parents[2] / "docs" / "native.md"
SIZE_LIMIT_BYTES = 60_000  # the layer may become 100 KB larger
INTERPOSED = re.compile(r"^EXPORT [\w *]*?(\w+)\(", re.M)


@pytest.fixture(scope="module")
def libraries() -> dict[str, bytes]:
    """Return the library for each architecture."""
    return {machine: compile_library(machine) for machine in MACHINES}


@pytest.mark.long
@pytest.mark.parametrize("machine", MACHINES)
def test_it_runs_wherever_deno_does(libraries: dict[str, bytes], machine: str) -> None:
    binary = read_binary(io.BytesIO(libraries[machine]))
    assert binary is not None
    assert binary.machine == NAMES[machine]
    assert binary.glibc is not None
    assert binary.glibc <= GLIBC
    assert set(binary.libraries) == {"libc.so.6", "libdl.so.2"}
    assert binary.search_paths == ()
    assert len(libraries[machine]) < SIZE_LIMIT_BYTES


@pytest.mark.long
def test_the_same_bytes_are_made_again(
    libraries: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is compiled already
    assert compile_library("x86_64") == libraries["x86_64"]


def test_it_exports_what_it_interposes_and_the_page_says_why(
    libraries: dict[str, bytes],
) -> None:
    text = (SOURCES / "interpose.c").read_text(encoding="utf-8")
    interposed = set(INTERPOSED.findall(text))
    assert len(interposed) == 16
    page = DOCUMENT.read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert interposed <= explained
    for content in libraries.values():
        assert exported(content) == interposed


def exported(content: bytes) -> set[str]:
    symbols = ELFFile(io.BytesIO(content)).get_section_by_name(".dynsym")
    assert isinstance(symbols, SymbolTableSection)
    return {
        symbol.name
        for symbol in symbols.iter_symbols()
        if symbol.entry.st_shndx != "SHN_UNDEF" and symbol.name
    }


def test_a_compiler_that_refuses_is_quoted() -> None:
    with pytest.raises(BuildError, match=r"Cannot compile for x86_64: missing\.c"):
        # Without -c it first makes what it links programs with: half a minute.
        native.compile_c(["-c", "missing.c"], "x86_64")


def test_all_sources_are_compiled() -> None:
    assert "interpose.c" in sources()
    assert len(sources()) == len(list(SOURCES.glob("*.c")))


# ---- What it reads of the kernel's texts ----


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], list[str]]:
    """Return what gives lines to the parsers, built with sanitizers."""
    program = tmp_path_factory.mktemp("text") / "check"
    arguments = [
        "-std=c11", "-D_GNU_SOURCE", *native.WARNINGS, "-g", "-O1",
        "-fno-sanitize-recover=all", f"-I{SOURCES}", "-o", str(program),
        str(CHECK), str(SOURCES / "text.c"),
    ]  # fmt: skip
    compiler = shutil.which("cc")
    if compiler is not None:
        command = [compiler, "-fsanitize=address,undefined", *arguments]
        subprocess.run(command, check=True)
    else:
        native.compile_c(["-fsanitize=undefined", *arguments], os.uname().machine)

    def run(lines: list[str]) -> list[str]:
        done = subprocess.run(
            [program],
            input="".join(f"{line}\n" for line in lines).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace").splitlines()

    return run


LINES = {
    # Deno's databases
    "C/x/v8_code_cache_v2": "1",
    "C/x/v8_code_cache_v2-wal": "1",
    "C/x/dep_analysis_cache_v2-shm (deleted)": "1",
    "Cnode_analysis_cache_v3": "1",
    "C/x/v8_code_cache_v": "0",
    "C/x/v8_code_cache_v2-other": "0",
    "C/x/v8_code_cache_v2/file": "0",
    "C": "0",
    # system calls
    "S202 0x7f01 0x189 0x0 0x10 0x0 0x0 0x7ffc 0x7ffa": "202 32513 393 0 16",
    "Srunning": "no",
    "S-1 0x0 0x0": "no",
    "S0 0x0 0x1": "no",
    "S": "no",
    # mappings
    "M7f00-7f10 rw-s 00000000 fe:00 21878    /tmp/a b": (
        "32512 32528 rw-s 21878 [/tmp/a b]"
    ),
    "M7f00-7f10 r-xp 00000000 00:00 0 ": "32512 32528 r-xp 0 []",
    "M7f10-7f00 r-xp 00000000 00:00 0 ": "no",
    "M7f00-7f10 r-x": "no",
    "M": "no",
    # registrations
    "Epos:\t0|tfd:        8 events: 80002019 data: 1  pos:0 ino:184dbf sdev:9|": (
        "8 2147491865 1 1592767; end"
    ),
    "Etfd: 8 events: 19": "broken",
    "Eflags:\t02": "end",
    # numbers
    "Nflags:\t02|eventfd-count:                5|eventfd-id: 1": "5",
    "Neventfd-count: -1": "no",
    "Nother: 5": "no",
    "D7": "7",
    "D2": "-1",
    "D07x": "-1",
    "D99999999999999999999999": "-1",
    "D -7": "-1",
}  # fmt: skip


def test_the_kernels_texts_are_read(parse: Callable[[list[str]], list[str]]) -> None:
    assert dict(zip(LINES, parse(list(LINES)), strict=True)) == LINES


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("CSMEND"),
            st.one_of(
                st.text(st.characters(codec="ascii", exclude_characters="\n\0")),
                st.sampled_from([line[1:] for line in LINES]).flatmap(
                    lambda line: st.integers(0, len(line)).map(lambda n: line[:n])
                ),
            ),
        ),
        max_size=200,
    )
)
def test_no_text_makes_them_read_beyond_it(
    parse: Callable[[list[str]], list[str]], lines: list[tuple[str, str]]
) -> None:
    parse([kind + text for kind, text in lines])

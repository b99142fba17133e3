"""The requirements of a compiled file on the machine that loads it.

Knows the parts of an ELF file that name the processor, the libraries and the versions
of glibc's symbols. Does not know the target machine. Specification: elf(5); ld.so(8);
Linux Standard Base Core, "Symbol Versioning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from lambda_deno_spawn.errors import BuildError

MAGIC = b"\x7fELF"
GLIBC = "GLIBC_"
# Entries of the dynamic section with a text, and the attribute of pyelftools for it.
TEXTS = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Binary:
    """One ELF file.

    Attributes:
        machine: Processor, by its name in elf.h, such as ``EM_X86_64``.
        glibc: Newest version of glibc among its symbols; None: it does not use glibc.
        libraries: Names of the libraries it needs.
        search_paths: Folders to search for these before those of the system.
    """

    machine: str
    glibc: tuple[int, ...] | None
    libraries: tuple[str, ...]
    search_paths: tuple[str, ...]


def read_binary(file: BinaryIO) -> Binary | None:
    """Return the requirements of an ELF file, from its headers; None for other files.

    Raises:
        BuildError: It is an ELF file that cannot be read.
    """
    if file.read(len(MAGIC)) != MAGIC:
        return None
    from elftools.common.exceptions import ELFError

    file.seek(0)
    try:
        return _read(file)
    # pyelftools raises all of these for truncated or malicious files.
    except (ELFError, *BROKEN) as error:
        raise BuildError(f"the ELF file is broken ({error})") from error


def _read(file: BinaryIO) -> Binary:
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    elf = ELFFile(file)
    if elf.num_sections() == 0:
        raise ELFError("it has no section headers")
    symbols: set[str] = set()
    texts: dict[str, list[str]] = {attribute: [] for attribute in TEXTS.values()}
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                symbols.update(version.name for version in versions)
        elif isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if attribute := TEXTS.get(tag.entry.d_tag):
                    texts[attribute].append(getattr(tag, attribute))
    paths = [
        path for text in texts["rpath"] + texts["runpath"] for path in text.split(":")
    ]
    glibc = max((v for v in map(_glibc_version, symbols) if v), default=None)
    return Binary(
        elf["e_machine"], glibc, tuple(texts["needed"]), tuple(filter(None, paths))
    )


def _glibc_version(symbol: str) -> tuple[int, ...] | None:
    """Return the version of glibc in the version of a symbol; None: it has none."""
    text = symbol.removeprefix(GLIBC)
    parts = text.split(".")
    # GLIBC_PRIVATE and symbols of other libraries do not name a version of glibc.
    if text == symbol or not all(part.isdigit() for part in parts):
        return None
    return tuple(map(int, parts))

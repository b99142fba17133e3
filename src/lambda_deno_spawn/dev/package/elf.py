"""What a compiled file asks of the machine that loads it.

Knows the parts of an ELF file that name a processor, libraries and the versions of
glibc's symbols. Refuses to know where the file lies and which machine is meant.
Specification: elf(5); ld.so(8); Linux Standard Base Core, "Symbol Versioning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from lambda_deno_spawn.errors import BuildError

MAGIC = b"\x7fELF"
GLIBC = "GLIBC_"
# Entries of the dynamic section that hold texts, and what pyelftools calls those.
TEXTS = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Binary:
    """One ELF file.

    Attributes:
        machine: Processor, as elf.h names it, such as ``EM_X86_64``.
        glibc: Newest version of glibc that one of its symbols has; None: it uses none.
        libraries: What it names as needed.
        search_paths: Where it has them looked for, before the system's folders.
    """

    machine: str
    glibc: tuple[int, ...] | None
    libraries: tuple[str, ...]
    search_paths: tuple[str, ...]


def read_binary(file: BinaryIO) -> Binary | None:
    """Return what an ELF file asks for; None if it is none. Only headers are read.

    Raises:
        BuildError: It is one, but it cannot be read.
    """
    if file.read(len(MAGIC)) != MAGIC:
        return None
    from elftools.common.exceptions import ELFError

    file.seek(0)
    try:
        return _read(file)
    # What pyelftools' readers raise for a file that is cut off or made up.
    except (ELFError, *BROKEN) as error:
        raise BuildError(f"it is no complete ELF file ({error})") from error


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
    """Return the version of glibc that a version of a symbol stands for, if any."""
    text = symbol.removeprefix(GLIBC)
    parts = text.split(".")
    # GLIBC_PRIVATE and the names of other libraries are no versions of glibc.
    if text == symbol or not all(part.isdigit() for part in parts):
        return None
    return tuple(map(int, parts))

"""``locks/``: they meet pyproject.toml, are complete, and have digests."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.release.lock import GROUPS, LOCKS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PIN = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+?))? \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)


class Pin(NamedTuple):
    """One version of a package."""

    name: str
    version: str
    marker: str | None
    hashes: frozenset[str]


def pins(lock: str) -> list[Pin]:
    text = (LOCKS / f"{lock}.txt").read_text("utf-8")
    matches = list(PIN.finditer(text))
    # Nothing else is in the file, so no package without a digest.
    rest = PIN.sub("", text)
    assert all(line.startswith("#") for line in rest.splitlines()), rest
    return [
        Pin(
            match["name"],
            match["version"],
            match["marker"],
            frozenset(re.findall(r"[0-9a-f]{64}", match["hashes"])),
        )
        for match in matches
    ]


def required(lock: str) -> Iterator[Requirement]:
    """Return what pyproject.toml asks for in a lock."""
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    waiting = list(GROUPS[lock])
    for group in waiting:
        for item in PROJECT["dependency-groups"][group]:
            if isinstance(item, dict):
                waiting.append(item["include-group"])
            else:
                yield Requirement(item)


@pytest.mark.parametrize("lock", GROUPS)
def test_a_lock_meets_what_the_project_asks_for(lock: str) -> None:
    found: dict[str, list[str]] = {}
    for pin in pins(lock):
        found.setdefault(pin.name, []).append(pin.version)
    unmet = [
        str(requirement)
        for requirement in required(lock)
        if not (versions := found.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(Version(one)) for one in versions)
    ]
    assert not unmet, "run `make lock`"


@pytest.mark.parametrize("lock", GROUPS)
def test_a_lock_has_what_its_packages_need_here(lock: str) -> None:
    names = {
        pin.name
        for pin in pins(lock)
        if pin.marker is None or Marker(pin.marker).evaluate()
    }
    missing = set()
    for name in names:
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of a release only
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                needed = canonicalize_name(requirement.name)
                missing |= {f"{needed} of {name}"} if needed not in names else set()
    assert not missing, "run `make lock`"


@pytest.mark.parametrize(("small", "large"), [("cli", "dev"), ("dev", "release")])
def test_a_smaller_lock_has_the_versions_of_the_larger_one(
    small: str, large: str
) -> None:
    everything = {(pin.name, pin.version, pin.hashes) for pin in pins(large)}
    assert {(pin.name, pin.version, pin.hashes) for pin in pins(small)} < everything


def test_the_build_system_is_locked_too() -> None:
    group = {*PROJECT["dependency-groups"]["build"]}
    assert {*PROJECT["build-system"]["requires"]} < group


def test_deno_has_a_digest_for_each_system() -> None:
    (deno,) = [pin for pin in pins("cli") if pin.name == "deno"]
    assert len(deno.hashes) >= 5  # Linux and macOS on two processors, Windows, sources

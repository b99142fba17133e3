"""The documentation against the code: settings, the wire protocol, names and links.

The recipes of CONTRIBUTING.md rely on these tests: they tell the author of a setting,
of a member of HELLO or of a page which other place has to name it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from lambda_deno_spawn.config import KNOWN_VARIABLES, Settings
from lambda_deno_spawn.invocation import Invocation
from lambda_deno_spawn.launch.command import deno_command
from lambda_deno_spawn.protocol.frames import FrameKind, State, WorkerConnection
from lambda_deno_spawn.protocol.hello import hello
from tests.fixtures.pages import DECISIONS, DOCS, READMES, ROOT
from tests.fixtures.pages import PAGES as DOCUMENTATION

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGE = ROOT / "src" / "lambda_deno_spawn"
MARKER = "0123456789abcdef" * 2
DENO_S_OWN = {"DENO_DIR"}  # a setting of the runtime, but not a variable of its own
SOURCES = [
    path
    for folder in (PACKAGE, ROOT / "layer")
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix not in {".pyc", ".so"}
]
CURRENT = [*DOCUMENTATION, *READMES]
# Records may name what was weighed and not built, and modules that have moved since.
PAGES = [*CURRENT, *DECISIONS]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def section(page: Path, start: str) -> str:
    """Return a page from a line on, up to the next heading or bold term."""
    text = "\n" + read(page)
    assert f"\n{start}" in text, f"{shown(page)} has no line that begins with {start!r}"
    rest = text.partition(f"\n{start}")[2]
    return re.split(r"\n(?:#|\*\*)", rest, maxsplit=1)[0]


def rows(table: str) -> dict[str, str]:
    """Return the rows of a table by the names, in backticks, in their first column."""
    found = {}
    for names, rest in re.findall(r"^\| (`[^|]*`) \|(.*)$", table, re.MULTILINE):
        found.update(dict.fromkeys(re.findall(r"`([^`]+)`", names), rest))
    return found


# Settings.


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_every_setting_that_the_source_names_is_known(path: Path) -> None:
    named = set(re.findall(rb"LAMBDA_DENO_[A-Z0-9]+(?:_[A-Z0-9]+)*", path.read_bytes()))
    unknown = {name.decode() for name in named} - KNOWN_VARIABLES
    assert not unknown, "add to config.KNOWN_VARIABLES and run make reference"


def test_every_setting_is_documented_and_no_other() -> None:
    described = set(rows(section(DOCS / "configuration.md", "# Settings")))
    assert described - DENO_S_OWN == KNOWN_VARIABLES


@pytest.mark.parametrize("page", CURRENT, ids=shown)
def test_every_setting_that_a_page_names_is_known(page: Path) -> None:
    named = set(re.findall(r"LAMBDA_DENO_[A-Z0-9]+(?:_[A-Z0-9]+)*", read(page)))
    assert not named - KNOWN_VARIABLES


# The wire protocol.


@pytest.fixture
def hello_members(tmp_path: Path) -> dict[str, object]:
    """What a worker reads in its first line, from the real command."""
    binary = tmp_path / "deno"
    binary.touch(mode=0o755)
    (tmp_path / "function.ts").touch()
    environ = {
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "_HANDLER": "function.handler",
        "LAMBDA_TASK_ROOT": str(tmp_path),
        "LAMBDA_DENO_BIN": str(binary),
    }
    settings = Settings.from_environ(environ, "/")
    members = orjson.loads(hello(MARKER, deno_command(settings, {}, "/state").facts))
    assert isinstance(members, dict)
    return members


def typedefs(name: str) -> list[tuple[str, set[str]]]:
    """Return each file that declares an object type, and the names of its members."""
    found = []
    for path in sorted(PACKAGE.rglob("js/**/*.js")):
        declared = re.search(
            rf"@typedef \{{object\}} {name}\b(.*?)(?:@typedef|\*/)",
            read(path),
            re.DOTALL,
        )
        if declared is not None:
            # A type may hold braces of its own, but no name follows them.
            lines = re.split(r"@property ", declared[1])[1:]
            names = (
                re.match(r"\{.*?\} \[?([\w.]+)", line, re.DOTALL) for line in lines
            )
            found.append((shown(path), {name[1] for name in names if name}))
    assert found, f"no script declares {name}"
    return found


def differing(expected: set[str], places: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return for each place the names that it lacks, or has and should not."""
    found = {place: names ^ expected for place, names in places.items()}
    return {place: names for place, names in found.items() if names}


def test_hello_is_what_the_protocol_and_the_typedef_say(
    hello_members: dict[str, object],
) -> None:
    places = {"docs/protocol.md": set(rows(section(DOCS / "protocol.md", "**HELLO**")))}
    for file, declared in typedefs("Hello"):
        places[file] = {name for name in declared if "." not in name}
    assert not differing(set(hello_members), places)


def test_hints_about_permissions_are_what_the_protocol_and_the_typedef_say(
    hello_members: dict[str, object],
) -> None:
    hints = hello_members["permissions"]
    assert isinstance(hints, dict)
    row = rows(section(DOCS / "protocol.md", "**HELLO**"))["permissions"]
    places = {"docs/protocol.md": {*re.findall(r"`(\w+)`", row)}}
    for file, declared in typedefs("Hello"):
        places[file] = {name.partition(".")[2] for name in declared if "." in name}
    assert not differing({*hints}, places)


def test_invoke_is_what_the_protocol_and_the_typedef_say() -> None:
    connection = WorkerConnection(MARKER, State.IDLE)
    line, _ = connection.invoke(Invocation("id", 0, "arn", b"{}"), 0)
    places = {
        "docs/protocol.md": set(rows(section(DOCS / "protocol.md", "**INVOKE**"))),
        **dict(typedefs("Head")),
    }
    assert not differing(set(orjson.loads(line)), places)


def test_every_kind_of_frame_is_documented_and_no_other() -> None:
    documented = rows(section(DOCS / "protocol.md", "## Worker to supervisor: stdout"))
    assert set(documented) == set(FrameKind)


# Names and links.


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, spelled as GitHub does."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def broken(page: Path, links: Iterable[str]) -> list[str]:
    wrong = []
    for link in links:
        target, _, anchor = link.partition("#")
        path = (page.parent / target) if target else page
        if not path.exists() or (
            anchor and path.suffix == ".md" and anchor not in anchors(path)
        ):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", read(page))
    assert not broken(page, (link for link in links if "://" not in link))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_anchor_is_the_same_on_the_site(page: Path) -> None:
    """GitHub keeps each hyphen of a heading, the site makes one of several."""
    anchors = re.findall(r"\]\([^)\s]*#([^)\s]+)\)", read(page))
    assert [anchor for anchor in anchors if "--" in anchor] == []


def test_the_site_is_built_strictly() -> None:
    recipe = read(ROOT / "Makefile").partition("\ndocs: ")[2].partition("\n\n")[0]
    [command] = [line for line in recipe.splitlines() if "mkdocs build" in line]
    assert "--strict" in command
    assert "--quiet" not in command, "MkDocs does not count warnings that it hides"


def test_no_page_has_a_merge_that_was_not_finished() -> None:
    marker = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    found = [shown(page) for page in PAGES if marker.search(read(page))]
    assert found == []


def test_the_readme_leads_to_every_page_of_the_documentation() -> None:
    linked = set(re.findall(r"\]\((docs/[\w/-]+\.md)", read(ROOT / "README.md")))
    pages = {shown(page) for page in DOCS.rglob("*.md")}
    assert linked == {page for page in pages if not page.startswith("docs/decisions/")}


def test_every_test_that_a_page_names_exists() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    names = {path.name for path in tests}
    for path in tests:
        names.update(re.findall(r"def (test_\w+)", read(path)))
    for page in PAGES:
        named = re.findall(r"\b(test_\w+(?:\.py)?)\b", read(page))
        missing = {name for name in named if name not in names}
        assert not missing, f"{shown(page)} names tests that are gone"

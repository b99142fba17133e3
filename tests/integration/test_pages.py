"""The pages for newcomers: each example and each command does what the page says.

A section is a folder. A line such as "`main.ts`:" names the file that the block below
it holds; a block of the language ``console`` has commands, and what they print on
stdout. An ellipsis there stands for any text.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.command import as_text, run_command
from tests.fixtures.packages import DENO_DIR, install
from tests.fixtures.pages import MIGRATION, ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deno

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"`([\w./-]+)`[^`\n]*:\n*\Z")


def sections() -> list[tuple[str, str]]:
    """Return the sections with commands: page and title, and text."""
    found = []
    for page in MIGRATION:
        text = page.read_text(encoding="utf-8")
        for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            title, _, body = section.partition("\n")
            if "```" in body:
                found.append((f"{page.stem}: {title}", body))
    return found


def steps(console: str) -> list[tuple[str, str]]:
    """Return commands, each with what it prints."""
    parts = re.split(r"^\$ ", console, flags=re.MULTILINE)
    assert parts[0] == "", "a block begins with a command"
    return [(part.split("\n", 1)[0], part.partition("\n")[2]) for part in parts[1:]]


def is_shown(printed: str, shown: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.mark.parametrize(
    "body", [pytest.param(body, id=title) for title, body in sections()]
)
def test_the_examples_do_what_the_page_says(tmp_path: Path, body: str) -> None:
    names = {f"AWS_{name}" for name in ("PROFILE", "REGION", "DEFAULT_REGION")}
    environ = {key: value for key, value in os.environ.items() if key not in names}
    environ["DENO_DIR"] = str(DENO_DIR)
    commands = 0
    for block in BLOCK.finditer(body):
        language, text = block.groups()
        if language != "console":
            name = NAME.search(body[: block.start()])
            assert name, f"a line above names the file of the block {text!r}"
            path = tmp_path / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            continue
        for command, shown in steps(text):
            commands += 1
            if command == "npm install":
                packages = install(ROOT / "tests" / "fixtures" / "node-project")
                (tmp_path / "node_modules").symlink_to(packages / "node_modules")
                continue
            program, *arguments = shlex.split(command)
            assert program == "lambda-deno-spawn"
            done = as_text(run_command(*arguments, cwd=tmp_path, environ=environ))
            assert done.returncode == 0, done.stderr
            assert is_shown(done.stdout, shown), f"{done.stdout!r} is not {shown!r}"
            assert "WARN" not in done.stderr
    assert commands > 0, "the section has an example that nothing runs"


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.stem)
def test_commands_that_are_not_run_name_commands_and_options_that_exist(
    page: Path,
) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for line in re.findall(r"^ {4}lambda-deno-spawn (.*)$", text, re.MULTILINE):
        words = shlex.split(line)
        options = [word for word in words if word.startswith("--")]
        names = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        for end in (len(names), 1):
            done = as_text(run_command(*names[:end], "--help"))
            if done.returncode == 0:
                break
        assert done.returncode == 0, line
        for option in options:
            assert option in done.stdout, line

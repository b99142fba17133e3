"""The guides of the documentation, followed to the letter against moto's AWS.

In a guide, a block of code with a title is a file to write, a block marked ``sh`` is
run, and a block marked ``text`` behind it is what it has to print; ``…`` stands for
anything. Lines that install something are left out, as they need an index of packages.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.fixtures.packages import fetch_bundler
from tests.fixtures.pages import GUIDES, ROOT
from tests.fixtures.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.deno

BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INSTALLS = re.compile(r"^(pip|pipx|uvx|uv) .*\n?", re.MULTILINE)
END = "-- end of block "
BLOCK_LIMIT_S = 400.0


class Shell:
    """One bash for all blocks of a page, so that `cd` lasts."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What a block has left in the background ends with the page.
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a block that failed ends the shell
            self._process.stdin.write(b"kill $(jobs -p) 2>/dev/null; wait; exit\n")
            self._process.stdin.close()
        self._process.wait(BLOCK_LIMIT_S)
        self._process.stdout.close()

    def run(self, block: str) -> str:
        """Run the lines of a block up to the first that fails; return the output."""
        assert self._process.stdin is not None
        lines = f'{{ {block.strip()}\n}} </dev/null; echo "\n{END}$?"\n'
        self._process.stdin.write(f"set -e\n{lines}".encode())
        self._process.stdin.flush()
        output = self._read_to_end()
        text, _, code = output.rpartition(END)
        assert code.strip() == "0", f"{block}\nfailed:\n{output}"
        return text

    def _read_to_end(self) -> str:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        until_s = time.monotonic() + BLOCK_LIMIT_S
        output = b""
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while not re.search(rb"-- end of block \d+\n", output):
                left_s = until_s - time.monotonic()
                assert selector.select(left_s), f"no end after:\n{output.decode()}"
                if not (piece := os.read(fd, 65536)):
                    return output.decode() + f"{END}failed"
                output += piece
        return output.decode()


@pytest.fixture
def environ(stand_in: dict[str, str], tmp_path: Path, layers: Path) -> dict[str, str]:
    """What a reader has who has followed the installation."""
    dist = tmp_path / "dist"
    dist.mkdir()
    for entry in layers.iterdir():
        (dist / entry.name).symlink_to(entry)
    nowhere = str(tmp_path / "nowhere")
    return {
        **{name: os.environ[name] for name in os.environ if name[:4] != "AWS_"},
        "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        **stand_in,
        "AWS_DEFAULT_REGION": stand_in["AWS_REGION"],
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "DENO_DIR": fetch_bundler(),
        "NO_COLOR": "1",
    }


def blocks(page: Path) -> Iterator[re.Match[str]]:
    """Return the blocks of code of a page."""
    return BLOCK.finditer(page.read_text(encoding="utf-8"))


def missing_line(expected: str, output: str) -> str | None:
    """Return the first line of ``expected`` that does not follow in the output."""
    position = 0
    for line in filter(None, map(str.strip, expected.splitlines())):
        pattern = ".*?".join(map(re.escape, line.split("…")))
        found = re.compile(pattern).search(output, position)
        if found is None:
            return line
        position = found.end()
    return None


def follow(page: Path, folder: Path, environ: dict[str, str]) -> None:
    """Do what the page says, in an empty folder."""
    output = ""
    port = free_port()
    with Shell(folder, environ) as shell:
        for block in blocks(page):
            text, title = block["text"], block["title"]
            if title is not None:
                path = folder / title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            elif block["language"] == "sh":
                commands = INSTALLS.sub("", text)
                # The default port may be taken on this machine.
                commands = commands.replace(" dev . &", f" dev . --port {port} &")
                commands = commands.replace("localhost:3000", f"localhost:{port}")
                output = shell.run(commands) if commands.strip() else ""
            elif block["language"] == "text":
                missing = missing_line(text, output)
                assert missing is None, f"{missing!r} is not in:\n{output}"


@pytest.mark.long
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_works_as_it_is_written(
    page: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    follow(page, tmp_path, environ)


def test_a_wrong_line_of_output_is_found() -> None:
    assert missing_line("a … c\nd", "a b c\nx d") is None
    assert missing_line("d\na … c", "a b c\nx d") == "a … c"

"""Checks the wheel and the sdist of a release as people will install them.

``python -m tests.release.packages FOLDER`` looks at what is in the packages; installs
each on every Python of the classifiers that is here, and the wheel with uv and pipx;
creates, invokes and builds a function with each installation; and writes what was
checked into FOLDER/NOTES.md, the notes of the release. Homes are empty, and the caches
are shared by the steps only. With CI=true it fails if a Python is missing.
"""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.package.interpreter import search_interpreter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
COMMAND = "lambda-deno-spawn"
# Where the description's relative links have to lead.
ADDRESS = re.compile(
    r"https://(?:github\.com/{0}/blob|raw\.githubusercontent\.com/{0})/v{1}/".format(
        "lambda-deno-spawn/lambda-deno-spawn", re.escape(__version__)
    )
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
LIBRARIES = ("aarch64", "x86_64")


class CheckError(Exception):
    """A package is not as it should be."""


def main(folder: Path) -> int:
    """Check the packages in a folder; write the notes."""
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    check_contents(wheel, sdist)
    done = [
        "the wheel and the sdist have the same modules and the library for forks, and "
        "every link of the description leads to a file"
    ]
    pythons = classified_pythons()
    found = {python: search_interpreter(python, os.environ) for python in pythons}
    missing = [python for python, interpreter in found.items() if interpreter is None]
    if missing and os.environ.get("CI"):
        raise CheckError(f"Cannot check on Python {', '.join(missing)}: install it")
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch))
        for interpreter in filter(None, found.values()):
            for package in (wheel, sdist):
                kind = "wheel" if package is wheel else "sdist"
                step = f"{kind}, pip, Python {interpreter.release}"
                with timed(step):
                    place.install_with_pip(interpreter.path, package)
                done.append(f"{step}: version, new, invoke, build, doctor")
        for step, check in (
            ("uvx --from WHEEL", place.run_with_uv),
            ("pipx run --spec WHEEL", place.run_with_pipx),
            ("pipx install WHEEL", place.install_with_pipx),
        ):
            with timed(step):
                check(wheel)
            done.append(f"`{step}`: version, new, invoke, build, doctor")
    if missing:
        done.append(f"not checked, as it is not here: Python {', '.join(missing)}")
    (folder / "NOTES.md").write_text(notes(done), "utf-8")
    return 0


class timed:  # noqa: N801 - used as a statement
    """Prints a step and how long it took."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        self._started_s = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        state = "ok" if kind is None else "FAILED"
        passed_s = time.monotonic() - self._started_s
        print(f"{state:6} {passed_s:6.1f} s  {self._step}", flush=True)


# --- what is in them ------------------------------------------------------------------


def check_contents(wheel: Path, sdist: Path) -> None:
    """Compare the modules in both packages, and follow the links of the description."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith("lambda_deno_spawn/")
        }
        (metadata,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
        description = str(
            email.message_from_bytes(archive.read(metadata)).get_payload()
        )
    for machine in LIBRARIES:
        folder = f"lambda_deno_spawn/native/lib/{machine}/"
        if not any(name.startswith(folder) for name in in_wheel):
            raise CheckError(f"{wheel.name} has no {folder}: run `make native`")
    in_sdist = sdist_modules(sdist)
    # The sdist has the layer's scripts elsewhere, and sources of generated files.
    differing = {
        name
        for name, content in in_wheel.items()
        if "/layer/" not in name and in_sdist.get(name) != content
    }
    if differing:
        raise CheckError(f"{sdist.name} differs from {wheel.name} in {differing}")
    if strays := strays_in(sdist_files(sdist), tracked_files()):
        raise CheckError(f"{sdist.name} has files that Git does not know: {strays}")
    wrong = list(broken_links(description))
    if wrong:
        raise CheckError(f"links in the description of {wheel.name}: {wrong}")


def strays_in(packaged: Iterable[str], tracked: Collection[str]) -> list[str]:
    """Return the packaged files that are neither in Git nor made by the build.

    Args:
        packaged: Paths in an sdist.
        tracked: Paths that Git knows; none: there is no repository to compare with.
    """
    made = ("PKG-INFO", "src/lambda_deno_spawn/native/lib/")
    if not tracked:
        return []
    return [
        path for path in packaged if path not in tracked and not path.startswith(made)
    ]


def tracked_files() -> frozenset[str]:
    """Return the files that Git knows; none where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return frozenset(filter(None, listed.stdout.split("\0")))


def sdist_files(sdist: Path) -> list[str]:
    """Return the paths in an sdist, without its folder."""
    with tarfile.open(sdist) as archive:
        return [m.name.partition("/")[2] for m in archive if m.isfile()]


def sdist_modules(sdist: Path) -> dict[str, bytes]:
    """Return the files of the package in an sdist."""
    with tarfile.open(sdist) as archive:
        found = {}
        for member in archive.getmembers():
            path = member.name.partition("/")[2]
            if path.startswith("src/lambda_deno_spawn/") and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                found[path.removeprefix("src/")] = content.read()
        return found


def broken_links(description: str) -> Iterator[str]:
    """Yield the links of a description that are relative, or lead to no file."""
    for link in LINK.findall(description):
        if re.match(r"https?://|#", link) is None:
            yield link
        elif (match := ADDRESS.match(link)) is not None:
            path = link[match.end() :].partition("#")[0]
            if not (ROOT / path).exists():
                yield link
        elif "/blob/" in link or "raw.githubusercontent" in link:
            yield link  # another version, or another repository


def classified_pythons() -> list[str]:
    """Return the versions of Python that the classifiers name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    matches = (
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier)
        for classifier in project["classifiers"]
    )
    return [match[1] for match in matches if match is not None]


# --- how they are installed -----------------------------------------------------------


class Place:
    """A folder with homes and caches of its own, for one run of the checks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._bin = Path(sys.executable).parent

    def environ(self, home: Path) -> dict[str, str]:
        """Return an environment that has nothing of this machine's user."""
        home.mkdir(exist_ok=True)
        left_out = ("PYTHON", "VIRTUAL_ENV", "XDG_", "UV_", "PIPX_", "DENO_", "PYENV")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        uv = {k: v for k, v in os.environ.items() if re.match(r"UV_(.*INDEX|FIND)", k)}
        return {
            **kept,
            **uv,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            # Packages are downloaded once for all steps.
            "PIP_CACHE_DIR": str(self._folder / "pip"),
            "UV_CACHE_DIR": str(self._folder / "uv"),
            "PIPX_HOME": str(home / "pipx"),
            "PIPX_BIN_DIR": str(home / "bin"),
        }

    def install_with_pip(self, python: Path, package: Path) -> None:
        """Install into an empty environment, and use it."""
        home = self._home()
        environ = self.environ(home)
        run(python, "-m", "venv", home / "venv", environ=environ)
        programs = home / "venv" / "bin"
        # Byte code of all packages would take most of the time.
        pip = (programs / "python", "-m", "pip", "install", "--quiet", "--no-compile")
        locked = ("--require-hashes", "--no-deps", "-r", ROOT / "locks/cli.txt")
        run(*pip, *locked, environ=environ)
        run(*pip, package, environ=environ)
        run(programs / "python", "-m", "pip", "check", environ=environ)
        use((programs / COMMAND,), home, environ)

    def run_with_uv(self, wheel: Path) -> None:
        """Use the command of the wheel in an environment that uv makes for it."""
        home = self._home()
        uvx = (self._bin / "uv", "tool", "run", "--from", wheel, COMMAND)
        use(uvx, home, self.environ(home))

    def run_with_pipx(self, wheel: Path) -> None:
        """Use the command of the wheel in an environment that pipx makes for it."""
        home = self._home()
        pipx = (self._bin / "pipx", "run", "--spec", wheel, COMMAND)
        use(pipx, home, self.environ(home))

    def install_with_pipx(self, wheel: Path) -> None:
        """Install the command for a user, and use it."""
        home = self._home()
        environ = self.environ(home)
        run(self._bin / "pipx", "install", wheel, environ=environ)
        use((home / "bin" / COMMAND,), home, environ)

    def _home(self) -> Path:
        self._count += 1
        home = self._folder / f"home-{self._count}"
        home.mkdir()
        return home


def use(
    command: tuple[str | Path, ...], folder: Path, environ: Mapping[str, str]
) -> None:
    """Create a function with a command, invoke and build it.

    Args:
        command: Our command line, behind the program that runs it, if there is one.
        folder: Where the project is created.
        environ: The whole environment.
    """
    expect_version(run(*command, "--version", environ=environ))
    run(*command, "new", "orders", environ=environ, cwd=folder)
    project = folder / "orders"
    invoke = (*command, "invoke", ".", "--event", "@events/greeting.json")
    result = json.loads(run(*invoke, environ=environ, cwd=project))
    if result.get("message") != "Hello Ada":
        raise CheckError(f"`invoke` gives {result}")
    run(*command, "build", ".", "--out", "dist", environ=environ, cwd=project)
    if not (project / "dist" / "orders.zip").is_file():
        raise CheckError("`build` has not written a package")
    report = run(*command, "doctor", ".", "-o", "json", environ=environ, cwd=project)
    (start,) = [c for c in json.loads(report)["checks"] if c["id"] == "start"]
    if not start["found"].startswith("fork"):
        raise CheckError(f"events are not served by forks: {start['found']}")


def expect_version(output: str) -> None:
    """Check what ``--version`` prints."""
    if output.strip() != f"{COMMAND} {__version__}":
        raise CheckError(f"`--version` prints {output!r}, not {__version__}")


def run(
    *command: str | Path, environ: Mapping[str, str], cwd: Path | None = None
) -> str:
    """Run a program and return its output; its messages are shown if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd or environ["HOME"],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CheckError(
            f"{shown(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def shown(command: tuple[str | Path, ...]) -> str:
    """Return a command for people."""
    return f"`{' '.join(map(str, command))}` failed"


# --- notes ----------------------------------------------------------------------------


def notes(checked: list[str]) -> str:
    """Return the notes of the release: its changes, and what was checked."""
    template = (ROOT / ".github" / "RELEASE_NOTES.md").read_text("utf-8")
    changes = changes_of(__version__, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    if os.environ.get("GITHUB_REF_TYPE") == "tag" and "not released" in changes[0]:
        raise CheckError("CHANGELOG.md says that this version is not released yet")
    # A note has no page beside it.
    text = LINK.sub(_absolute, changes[1])
    return (
        re.sub(r"<!--.*?-->\n", "", template, flags=re.DOTALL)
        .replace("CHANGES", text.strip())
        .replace("CHECKED", "\n".join(f"- {line}" for line in checked))
        .replace("VERSION", __version__)
    )


def changes_of(version: str, changelog: str) -> tuple[str, str]:
    """Return the heading of a version in the changelog, and the text below it."""
    match = re.search(
        rf"^## {re.escape(version)}(?P<rest>[^\n]*)\n(?P<text>.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if match is None:
        raise CheckError(f"CHANGELOG.md has no section '## {version}'")
    return match["rest"], match["text"]


def _absolute(match: re.Match[str]) -> str:
    link = match[1]
    if re.match(r"https?://|#", link):
        return match[0]
    project = "https://github.com/lambda-deno-spawn/lambda-deno-spawn"
    return f"]({project}/blob/v{__version__}/{link})"


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]).resolve()))
    except CheckError as error:
        sys.exit(f"Cannot release: {error}")

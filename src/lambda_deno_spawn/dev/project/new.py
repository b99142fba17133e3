"""A new project: a folder with a function that runs, is tested and can be deployed.

Knows the templates, what is filled into them, and how to write a folder so that it is
there as a whole or not at all. Refuses to know how a function is run or deployed, and
the network: everything comes with this package. Specification: docs/project.md, "A new
project".
"""

from __future__ import annotations

import contextlib
import difflib
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from lambda_deno_spawn.dev.project.project import FUNCTION_NAME, Arch
from lambda_deno_spawn.errors import UsageError

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
# Files that every project has, unless its template has one of its own.
COMMON = "common"
TYPES = Path(__file__).parents[2] / "js" / "lambda.d.ts"
# What the templates hold where something is filled in: they are valid as they are.
TEMPLATE_NAME = "my-function"
TEMPLATE_ARCH = 'arch = "x86_64"'
FILLED_IN = ("lambda.toml", "README.md")


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of function to begin with.

    Attributes:
        name: Also that of its folder.
        summary: What the function does.
        event: The file of its folder to invoke it with first.
    """

    name: str
    summary: str
    event: str


TEMPLATES = {
    template.name: template
    for template in (
        Template("event", "a plain handler", "events/greeting.json"),
        Template("http", "a Hono app", "events/hello.json"),
        Template("sqs", "a batch of messages from a queue", "events/batch.json"),
        Template("stream", "an answer in pieces", "events/prompt.json"),
    )
}


@dataclass(frozen=True, slots=True)
class NewProject:
    """A project that was written.

    Attributes:
        path: Its folder.
        files: Paths inside, with ``/``, sorted.
    """

    path: Path
    files: tuple[str, ...]


def find_template(name: str) -> Template:
    """Return the template of a name.

    Raises:
        UsageError: There is none.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    near = difflib.get_close_matches(name, TEMPLATES, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"Cannot use template {name!r}: there is none of this name; {hint}"
        f"templates are {', '.join(TEMPLATES)}"
    )


def write_project(
    name: str, template: Template, arch: Arch, parent: Path
) -> NewProject:
    """Write a project into a folder of its name; nothing that is there is overwritten.

    The folder is complete when it appears. Two calls for one folder at the same time
    leave one project: the other call fails.

    Args:
        name: Of the function and of its folder.
        template: What to begin with.
        arch: Instruction set that the project file names.
        parent: An existing folder, in which the project's is made.

    Raises:
        UsageError: Lambda would not accept the name, or the folder cannot be written.
    """
    if not FUNCTION_NAME.fullmatch(name):
        raise UsageError(
            f"Cannot use the name {name!r}: Lambda accepts 1 to 64 letters, digits, - "
            "and _; --path says in which folder the project is made"
        )
    path = parent / name
    contents = _contents(name, template, arch)
    try:
        _refuse_what_is_there(path, parent)
        # In the same folder, as a rename is atomic only within one file system.
        partial = parent / f".{name}.{secrets.token_hex(4)}.partial"
        try:
            _write(partial, contents)
            # An empty folder gives way to ours, anything else does not.
            partial.rename(path)
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(partial)
    except OSError as error:
        raise UsageError(
            f"Cannot write project {str(path)!r}: {error.strerror or error}"
        ) from error
    return NewProject(path, tuple(sorted(contents)))


def _refuse_what_is_there(path: Path, parent: Path) -> None:
    if not parent.is_dir():
        raise UsageError(
            f"Cannot write project {str(path)!r}: there is no folder {str(parent)!r}; "
            "make it first"
        )
    advice = "choose another name, or another place with --path"
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise UsageError(
                f"Cannot write project {str(path)!r}: the folder is there and is not "
                f"empty; {advice}"
            )
    elif path.exists() or path.is_symlink():
        raise UsageError(
            f"Cannot write project {str(path)!r}: a file of this name is there; "
            f"{advice}"
        )


def _contents(name: str, template: Template, arch: Arch) -> dict[str, bytes]:
    """Return what goes into each file of a project."""
    found = {TYPES.name: TYPES.read_bytes()}
    for folder in (TEMPLATES_FOLDER / COMMON, TEMPLATES_FOLDER / template.name):
        for file in folder.rglob("*"):
            if file.is_file():
                found[file.relative_to(folder).as_posix()] = file.read_bytes()
    for file_name in FILLED_IN:
        text = found[file_name].decode()
        text = text.replace(TEMPLATE_NAME, name)
        text = text.replace(TEMPLATE_ARCH, f'arch = "{arch}"')
        found[file_name] = text.encode()
    return found


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in sorted(contents.items()):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

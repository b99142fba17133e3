"""A new project: a folder with a function that runs, is tested and can be deployed.

Knows the templates, the values that are filled in, and how to write a folder so that it
appears complete or not at all. Does not know how a function is run or deployed, and
never uses the network: this package contains everything. Specification:
docs/project.md, "A new project".
"""

from __future__ import annotations

import contextlib
import difflib
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from lambda_deno_spawn.dev.project.project import FUNCTION_NAME, Arch
from lambda_deno_spawn.errors import UsageError

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
# Folder of files that every project gets, unless its template has its own version.
COMMON = "common"
TYPES = Path(__file__).parents[2] / "js" / "lambda.d.ts"
# Placeholders in the templates, which are valid projects themselves.
TEMPLATE_NAME = "my-function"
TEMPLATE_ARCH = 'arch = "x86_64"'
TEMPLATE_EVENT = "events/greeting.json"
TEMPLATE_RUNTIME = '# runtime = "python3.13"'
TEMPLATE_HANDLER = 'handler = "function.handler"'
FILLED_IN = (
    "lambda.toml", "README.md", ".vscode/launch.json", "function.ts", "cdk/app.ts",
)  # fmt: skip
# A file of a template whose text follows that of a file which all have.
PART = ".part"


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of function to start from.

    Attributes:
        name: Name of the template and of its folder.
        summary: A few words about the function, for the help text.
        event: File in its folder with the event of the first invocation.
    """

    name: str
    summary: str
    event: str


TEMPLATES = {
    template.name: template
    for template in (
        Template("event", "a plain handler", "events/greeting.json"),
        Template("http", "a Hono app", "events/hello.json"),
        Template("serve", "a web server that calls Deno.serve", "events/hello.json"),
        Template("sqs", "a batch of messages from a queue", "events/batch.json"),
        Template("schedule", "a job on a schedule", "events/nightly.json"),
        Template("stream", "a streamed response", "events/prompt.json"),
        Template("kinesis", "records of a Kinesis stream", "events/readings.json"),
        Template("dynamodb", "changes of a DynamoDB table", "events/changes.json"),
        Template("mcp", "an MCP server over HTTP", "events/call.json"),
        Template("cdk", "a handler that CDK deploys", "events/greeting.json"),
    )
}


@dataclass(frozen=True, slots=True)
class NewProject:
    """A project that was written.

    Attributes:
        path: Its folder.
        files: Sorted paths below the folder, with ``/``.
    """

    path: Path
    files: tuple[str, ...]


def find_template(name: str) -> Template:
    """Return the template with a name.

    Raises:
        UsageError: There is no such template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    near = difflib.get_close_matches(name, TEMPLATES, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"Cannot use template {name!r}: it does not exist; {hint}"
        f"templates are {', '.join(TEMPLATES)}"
    )


def write_project(
    name: str,
    template: Template,
    arch: Arch,
    parent: Path,
    runtime: str | None = None,
) -> NewProject:
    """Write a project into a new folder; no existing file is overwritten.

    The folder is complete when it appears. If two calls create the same folder at the
    same time, one of them fails.

    Args:
        name: Name of the function and of its folder.
        template: The template to start from.
        arch: Instruction set for the project file.
        parent: An existing folder, in which the project's folder is created.
        runtime: Lambda's runtime for the project file; None: the default.

    Raises:
        UsageError: Lambda does not accept the name, or the folder cannot be written.
    """
    if not FUNCTION_NAME.fullmatch(name):
        raise UsageError(
            f"Cannot use the name {name!r}: Lambda accepts 1 to 64 letters, digits, - "
            "and _; give such a name, and the parent folder in --path"
        )
    path = parent / name
    contents = _contents(name, template, arch, runtime)
    try:
        _refuse_existing(path, parent)
        # In the same parent folder: a rename is atomic only within one file system.
        partial = parent / f".{name}.{secrets.token_hex(4)}.partial"
        try:
            _write(partial, contents)
            # This replaces an empty folder, and fails if anything else is there.
            partial.rename(path)
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(partial)
    except OSError as error:
        raise UsageError(
            f"Cannot write project {str(path)!r}: {error.strerror or error}"
        ) from error
    return NewProject(path, tuple(sorted(contents)))


def _refuse_existing(path: Path, parent: Path) -> None:
    if not parent.is_dir():
        raise UsageError(
            f"Cannot write project {str(path)!r}: there is no folder {str(parent)!r}; "
            "create it first"
        )
    advice = "choose another name, or another parent folder with --path"
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise UsageError(
                f"Cannot write project {str(path)!r}: the folder exists and is not "
                f"empty; {advice}"
            )
    elif path.exists() or path.is_symlink():
        raise UsageError(
            f"Cannot write project {str(path)!r}: a file with this name exists; "
            f"{advice}"
        )


def fill_in(
    text: str,
    name: str,
    arch: Arch | None,
    event: str,
    runtime: str | None = None,
    handler: str | None = None,
) -> str:
    """Return the text of a template's file with the values of a project.

    Args:
        text: With the values of the templates.
        name: Name of the function.
        arch: Instruction set; None: the text has none.
        event: Path of the event to invoke the function with.
        runtime: Lambda's runtime; None: the default.
        handler: ``file.export``; None: that of the templates.
    """
    text = text.replace(TEMPLATE_NAME, name).replace(TEMPLATE_EVENT, event)
    if arch is not None:
        text = text.replace(TEMPLATE_ARCH, f'arch = "{arch}"')
    if runtime is not None:
        text = text.replace(TEMPLATE_RUNTIME, f'runtime = "{runtime}"')
    if handler is not None:
        text = text.replace(
            TEMPLATE_HANDLER, f"handler = {json.dumps(handler, ensure_ascii=False)}"
        )
    return text


def _contents(
    name: str, template: Template, arch: Arch, runtime: str | None
) -> dict[str, bytes]:
    """Return the content of each file of a project, by its path."""
    found = {TYPES.name: TYPES.read_bytes()}
    for folder in (TEMPLATES_FOLDER / COMMON, TEMPLATES_FOLDER / template.name):
        for file in folder.rglob("*"):
            if file.is_file():
                file_name = file.relative_to(folder).as_posix()
                is_part = file.suffix == PART
                before = found[file_name.removesuffix(PART)] if is_part else b""
                found[file_name.removesuffix(PART)] = before + file.read_bytes()
    for file_name in FILLED_IN:
        if file_name in found:
            text = found[file_name].decode()
            found[file_name] = fill_in(
                text, name, arch, template.event, runtime
            ).encode()
    return found


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in sorted(contents.items()):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

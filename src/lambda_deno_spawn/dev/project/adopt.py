"""A folder that exists becomes a project: files are added to it, and nothing is lost.

Knows the files that a project has beside its code, and how each of them is added to
what is there. Everything is planned before anything is written, and what cannot be
finished is undone. Does not know how a function is run or deployed, and never uses the
network. Specification: docs/project.md, "A folder that exists".
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.project import jsonc
from lambda_deno_spawn.dev.project.existing_app import (
    App,
    find_app,
    named_app,
    names_types,
    read_json,
    read_text,
)
from lambda_deno_spawn.dev.project.function import Function, function_name
from lambda_deno_spawn.dev.project.new import (
    COMMON,
    TEMPLATES_FOLDER,
    TYPES,
    fill_in,
)
from lambda_deno_spawn.dev.project.patterns import Patterns
from lambda_deno_spawn.dev.project.project import (
    FUNCTION_NAME,
    HANDLER,
    NAME_RULE,
    PROJECT_FILE,
    load_project,
)
from lambda_deno_spawn.dev.project.samples import find_sample
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.launch.deno_json import CONFIG_NAMES, PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lambda_deno_spawn.dev.project.project import Arch

LAUNCH_FILE = ".vscode/launch.json"
IGNORE_FILE = ".gitignore"
AGENTS_FILE = "AGENTS.md"
EVENTS_FOLDER = "events"
TYPES_PACKAGE = "@lambda-deno-spawn/types"
PROGRAM = "lambda-deno-spawn"
OUTPUT = "dist/"  # of `build`
PACKAGES = "node_modules/"
OF_A_PAGE = (
    "queryStringParameters",
    "multiValueQueryStringParameters",
    "pathParameters",
)
# Prefixed, as most projects have a task `dev` of their own.
TASKS = {
    "lambda:dev": f"{PROGRAM} dev .",
    "lambda:invoke": f"{PROGRAM} invoke . --event @{{event}}",
    "lambda:deploy": f"{PROGRAM} deploy .",
}


class State(StrEnum):
    """The change to a file."""

    WRITTEN = "written"
    CHANGED = "changed"
    KEPT = "kept"
    NEEDED = "needed"


@dataclass(frozen=True, slots=True)
class Step:
    """A file of the project.

    Attributes:
        file: Path below the folder, with slashes.
        detail: What was added, why it stays as it is, or what is left to do.
        content: What is written; None: nothing is.
        before: What the file has; None: there is no file.
    """

    file: str
    state: State
    detail: str = ""
    content: bytes | None = None
    before: bytes | None = None


@dataclass(frozen=True, slots=True)
class Adoption:
    """The changes that make a project of a folder.

    Attributes:
        folder: The folder, as it was given.
        app: The handler in it.
        event: Path of the event to invoke it with, below the folder.
    """

    folder: Path
    app: App
    event: str
    steps: tuple[Step, ...]

    @property
    def writes(self) -> tuple[Step, ...]:
        """Return the steps that write a file."""
        return tuple(step for step in self.steps if step.content is not None)


def plan_adoption(
    folder: Path,
    arch: Arch,
    *,
    name: str | None = None,
    handler: str | None = None,
    runtime: str | None = None,
) -> Adoption:
    """Return what makes a project of a folder; nothing is written.

    Args:
        folder: An existing folder.
        arch: Instruction set for a new project file.
        name: Name of the function; None: derived from the folder's name.
        handler: ``file.export``; None: it is searched for.
        runtime: Lambda's runtime for a new project file; None: the default.

    Raises:
        UsageError: There is no app in the folder, or one of the files that it has
            cannot be used.
    """
    if not folder.is_dir():
        is_there = os.path.lexists(folder)
        raise UsageError(
            f"Cannot use {str(folder)!r}: "
            + (
                "it is not a folder; give the folder of the app"
                if is_there
                else f"there is no such folder; `{PROGRAM} new` creates one"
            )
        )
    if name is not None and not FUNCTION_NAME.fullmatch(name):
        raise UsageError(f"Cannot use the name {name!r}; expected {NAME_RULE}")
    try:
        project_file, app = _project_file(folder, arch, name, handler, runtime)
        event = _event(folder, app)
        steps = (
            project_file,
            event,
            _types(folder),
            _tasks(folder, event.file),
            _launch(folder, event.file),
            _ignored(folder),
            _agents(folder),
        )
    except OSError as error:
        raise UsageError(
            f"Cannot read {str(error.filename or folder)!r}: {error.strerror}"
        ) from error
    adoption = Adoption(folder, app, event.file, steps)
    _check_access(adoption)
    return adoption


def _check_access(adoption: Adoption) -> None:
    """Refuse what could not be written, so that ``--dry-run`` says it too."""
    for step in adoption.writes:
        place = adoption.folder / step.file
        if not os.access(place if place.exists() else place.parent, os.W_OK) and (
            place.parent.exists() or not os.access(adoption.folder, os.W_OK)
        ):
            raise UsageError(
                f"Cannot write {str(place)!r}: you have no permission; nothing was "
                "changed"
            )


def carry_out(adoption: Adoption) -> None:
    """Write the files of a plan: all of them, or none if one cannot be written.

    Raises:
        UsageError: A file cannot be written, or has changed since it was read.
    """
    stack = contextlib.ExitStack
    # A failure is undone from the last to the first: files, scratch files, folders.
    with stack() as folders, stack() as scratch, stack() as files:
        # Steps that take space on the disk come first: the rest can hardly fail.
        staged = [
            _Staged(adoption.folder, step, scratch, folders) for step in adoption.writes
        ]
        for file in staged:
            file.place(files)
        files.pop_all()
        folders.pop_all()


class _Staged:
    """The content of a file, written beside its place under another name."""

    def __init__(
        self,
        folder: Path,
        step: Step,
        scratch: contextlib.ExitStack,
        folders: contextlib.ExitStack,
    ) -> None:
        """Write the content.

        Args:
            folder: Folder of the project.
            step: What to write.
            scratch: Is told how to remove what is not needed in the end.
            folders: Is told how to remove folders that are created.
        """
        assert step.content is not None
        self._shown = str(folder / step.file)
        self._before = step.before
        path = folder / step.file
        # A link stays a link: what it points to is replaced.
        self._path = path.resolve() if path.is_symlink() else path
        with self._reported():
            for parent in reversed(path.relative_to(folder).parents):
                if not (place := folder / parent).is_dir():
                    place.mkdir()
                    folders.callback(_remove_folder, place)
            self._new = self._write(step.content, scratch)
            if step.before is not None:
                self._old = self._write(step.before, scratch)

    def place(self, undo: contextlib.ExitStack) -> None:
        """Move the content to its place."""
        with self._reported():
            if self._before is None:
                _move_new(self._new, self._path)
                undo.callback(self._path.unlink, missing_ok=True)
                return
            if self._path.read_bytes() != self._before:
                raise UsageError(
                    f"Cannot change {self._shown!r}: another program has changed it "
                    "in the meantime; nothing was changed, run the command again"
                )
            undo.callback(self._old.replace, self._path)
            self._new.replace(self._path)

    def _write(self, content: bytes, scratch: contextlib.ExitStack) -> Path:
        name = f".{self._path.name}.{secrets.token_hex(4)}.partial"
        partial = self._path.with_name(name)
        scratch.callback(partial.unlink, missing_ok=True)
        partial.write_bytes(content)
        if self._before is not None:
            there = self._path.stat()
            partial.chmod(stat.S_IMODE(there.st_mode))
            with contextlib.suppress(PermissionError):
                os.chown(partial, there.st_uid, there.st_gid)
        return partial

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"Cannot write {self._shown!r}: {error.strerror or error}; "
                "nothing was changed"
            ) from error


def _move_new(partial: Path, path: Path) -> None:
    """Give a file its name, unless something has that name."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:  # the file system knows no links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        partial.rename(path)


def _remove_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # something was put there meanwhile
        path.rmdir()


# --- the files ---------------------------------------------------------------


def _project_file(
    folder: Path,
    arch: Arch,
    name: str | None,
    handler: str | None,
    runtime: str | None,
) -> tuple[Step, App]:
    if read_text(folder / PROJECT_FILE) is not None:
        for option, value in (("--name", name), ("--handler", handler)):
            if value is not None:
                raise UsageError(
                    f"Cannot use {option}: {str(folder / PROJECT_FILE)!r} exists and "
                    "is left as it is; change it there"
                )
        project = load_project(folder)
        app = named_app(folder, project.function.handler, PROJECT_FILE)
        return Step(PROJECT_FILE, State.KEPT, f"function {project.name}"), app
    if handler is None:
        app = find_app(folder)
    elif HANDLER.fullmatch(handler):
        app = named_app(folder, handler, "--handler")
    else:
        raise UsageError(f"Cannot use --handler {handler!r}; expected file.export")
    function = Function(folder.resolve(), app.handler)
    chosen = name or function_name(function)
    text = fill_in(_common(PROJECT_FILE), chosen, arch, "", runtime, app.handler)
    return _new(PROJECT_FILE, text, f"function {chosen}"), app


def _event(folder: Path, app: App) -> Step:
    place = folder / EVENTS_FOLDER
    if os.path.lexists(place) and not place.is_dir():
        raise UsageError(
            f"Cannot use {str(place)!r}: it is not a folder, but events belong there; "
            "rename it"
        )
    found = sorted(path.name for path in place.glob("*.json")) if place.is_dir() else []
    if found:
        return Step(f"{EVENTS_FOLDER}/{found[0]}", State.KEPT)
    if app.event is None:
        return _new(
            f"{EVENTS_FOLDER}/event.json", "{}\n", "write an event of yours into it"
        )
    sample = find_sample(app.event)
    assert sample is not None  # tested for each
    text = sample.decode()
    if app.has_routes:
        text = _for_root(text)
    return _new(f"{EVENTS_FOLDER}/{app.event}.json", text, "a sample, to be adapted")


def _for_root(text: str) -> str:
    """Return an event with the path of an app's first page, which most apps have."""
    event = json.loads(text)
    if "rawPath" in event:  # payload format 2.0
        event["rawPath"] = event["requestContext"]["http"]["path"] = "/"
        event["rawQueryString"] = ""
        event.pop("queryStringParameters", None)
    elif "httpMethod" in event:  # payload format 1.0, or a load balancer
        event["path"] = "/"
        context = event["requestContext"]
        if "resource" in event:
            event["resource"] = context["resourcePath"] = "/"
            context["path"] = f"/{context['stage']}/"
        for key in OF_A_PAGE:
            if key in event:
                event[key] = {} if "elb" in context else None
    return json.dumps(event, indent=2) + "\n"


def _types(folder: Path) -> Step:
    for name in (*CONFIG_NAMES, PACKAGE):
        content = read_json(folder / name)
        if content is not None and names_types(content, TYPES_PACKAGE):
            return Step(name, State.KEPT, f"types come from {TYPES_PACKAGE}")
    types = TYPES.read_bytes().decode()
    found = read_text(folder / TYPES.name)
    if found is None:
        return _new(TYPES.name, types, "types for handlers")
    if found == types:
        return Step(TYPES.name, State.KEPT)
    return Step(
        TYPES.name,
        State.KEPT,
        "not that of this version; remove it and run this again to have that",
    )


def _tasks(folder: Path, event: str) -> Step:
    """Add tasks to ``deno.json``, or scripts to a ``package.json`` without one."""
    wanted = {name: task.format(event=event) for name, task in TASKS.items()}
    for name, key in (
        *((name, "tasks") for name in CONFIG_NAMES),
        (PACKAGE, "scripts"),
    ):
        content = read_json(folder / name)
        if content is not None:
            return _added_tasks(folder, name, key, content, wanted)
    # A file of its own would hide the one that applies to this folder.
    for parent in folder.resolve().parents:
        for name, key in (
            (CONFIG_NAMES[0], "tasks"),
            (CONFIG_NAMES[1], "tasks"),
            (PACKAGE, "scripts"),
        ):
            if (parent / name).is_file():
                shown = os.path.relpath(parent / name, folder.resolve())
                return Step(
                    shown, State.NEEDED, f"{key}, if you want some: {_listed(wanted)}"
                )
    text = json.dumps({"tasks": wanted}, indent=2) + "\n"
    return _new(CONFIG_NAMES[0], text, f"tasks {', '.join(wanted)}")


def _added_tasks(
    folder: Path, name: str, key: str, content: dict[str, Any], wanted: dict[str, str]
) -> Step:
    there = content.get(key, {})
    if not isinstance(there, dict):
        raise UsageError(
            f"Cannot read {str(folder / name)!r}: {key} is not an object; correct it, "
            "and run this again"
        )
    missing = {task: wanted[task] for task in wanted if task not in there}
    if not missing:
        return Step(name, State.KEPT)
    expected = {**content, key: {**there, **missing}}

    def add(text: str) -> str:
        return jsonc.add_members(text, [key], missing)

    return _changed(folder, name, add, expected, f"{key} {', '.join(missing)}", missing)


def _launch(folder: Path, event: str) -> Step:
    text = fill_in(_common(LAUNCH_FILE), "", None, event, None)
    path = folder / LAUNCH_FILE
    if os.path.lexists(path.parent) and not path.parent.is_dir():
        raise UsageError(
            f"Cannot use {str(path.parent)!r}: it is not a folder, but the settings of "
            "VS Code belong there; rename it"
        )
    content = read_json(path)
    if content is None:
        return _new(LAUNCH_FILE, text, "debugging in VS Code")
    key = "configurations"
    there = content.get(key, [])
    if not isinstance(there, list):
        raise UsageError(
            f"Cannot read {str(path)!r}: {key} is not a list; correct it, and run this "
            "again"
        )
    names = [item.get("name") for item in there if isinstance(item, dict)]
    wanted = json.loads(text)[key]
    missing = [item for item in wanted if item["name"] not in names]
    if not missing:
        return Step(LAUNCH_FILE, State.KEPT)
    expected = {**content, key: [*there, *missing]}

    def add(text: str) -> str:
        return jsonc.add_elements(text, [key], missing)

    detail = ", ".join(repr(item["name"]) for item in missing)
    return _changed(folder, LAUNCH_FILE, add, expected, detail, missing)


def _ignored(folder: Path) -> Step:
    text = read_text(folder / IGNORE_FILE)
    has_packages = any(os.path.lexists(folder / name) for name in (PACKAGE, PACKAGES))
    wanted = (OUTPUT, PACKAGES) if has_packages else (OUTPUT,)
    covered = {rule: _ignoring(folder, text, rule) for rule in wanted}
    missing = [rule for rule, shown in covered.items() if shown is None]
    detail = ", ".join(missing)
    if not missing:
        [shown, *_] = covered.values()
        assert shown is not None  # nothing is missing
        return Step(shown, State.KEPT, f"it has {OUTPUT}")
    if text is None:
        return _new(IGNORE_FILE, "".join(f"{rule}\n" for rule in missing), detail)
    newline = "\r\n" if "\r\n" in text else "\n"
    lead = newline if text and not text.endswith("\n") else ""
    added = "".join(f"{rule}{newline}" for rule in missing)
    return Step(
        IGNORE_FILE,
        State.CHANGED,
        detail,
        f"{text}{lead}{added}".encode(),
        text.encode(),
    )


def _ignoring(folder: Path, text: str | None, rule: str) -> str | None:
    """Return the file that has git ignore a folder; None: there is none.

    Args:
        folder: The project's folder.
        text: The project's own file.
        rule: The folder, with a slash at its end.
    """
    root = folder.resolve()
    for place in (root, *root.parents):
        found = text if place == root else _readable(place / IGNORE_FILE)
        below = (root / rule / "function.zip").relative_to(place).as_posix()
        if found is not None and _ignores(found, below):
            return os.path.relpath(place / IGNORE_FILE, root)
        if (place / ".git").exists():
            break
    return None


def _readable(path: Path) -> str | None:
    with contextlib.suppress(UsageError):
        return read_text(path)
    return None


def _ignores(text: str, file: str) -> bool:
    with contextlib.suppress(UsageError):  # a line that is not a pattern
        return Patterns(text.splitlines()).matches(file)
    return False


def _agents(folder: Path) -> Step:
    text = read_text(folder / AGENTS_FILE)
    if text is None:
        # The tasks are those of a new project.
        lines = _common(AGENTS_FILE).splitlines(keepends=True)
        kept = "".join(line for line in lines if " deno task " not in line)
        return _new(AGENTS_FILE, kept, "for coding agents")
    if PROGRAM in text:
        return Step(AGENTS_FILE, State.KEPT)
    return Step(AGENTS_FILE, State.NEEDED, f"say there that the app runs on {PROGRAM}")


def _common(name: str) -> str:
    return (TEMPLATES_FOLDER / COMMON / name).read_bytes().decode()


def _new(name: str, text: str, detail: str) -> Step:
    return Step(name, State.WRITTEN, detail, text.encode())


def _changed(
    folder: Path,
    name: str,
    add: Callable[[str], str],
    expected: object,
    detail: str,
    missing: object,
) -> Step:
    """Change the text of a file, or say what to add if that cannot be done safely."""
    text = read_text(folder / name)
    assert text is not None  # it was read before
    with contextlib.suppress(jsonc.JsoncError):
        changed = add(text)
        if jsonc.parse(changed) == expected:
            return Step(name, State.CHANGED, detail, changed.encode(), text.encode())
    return Step(name, State.NEEDED, f"add {_listed(missing)}")


def _listed(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

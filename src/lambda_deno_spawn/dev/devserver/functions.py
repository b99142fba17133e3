"""The functions that ``dev`` serves: where they are, and with which settings they run.

Knows which folders below a path hold functions, and what the options of the command
change. Does not know how a function is run. Specification: docs/dev.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.local.inspector import TIMEOUT_S as SUSPENDED_TIMEOUT_S
from lambda_deno_spawn.dev.local.inspector import VARIABLES as INSPECTED
from lambda_deno_spawn.dev.project.function import SOURCE_NAMES
from lambda_deno_spawn.dev.project.project import PROJECT_FILE, load_project
from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    DEFAULT_TIMEOUT_S,
)
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.launch.handler import HANDLER_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_deno_spawn.dev.project.function import Inspect
    from lambda_deno_spawn.dev.project.project import Project

DEPTH_LIMIT = 5  # folders below the given one
# Folders in which programs put copies of functions, and of the functions of others.
NOT_SEARCHED = frozenset({"node_modules", "dist", "cdk.out", "coverage", "tests"})
HANDLER_NAMES = frozenset(n + s for n in SOURCE_NAMES for s in HANDLER_SUFFIXES)
DEFAULT_ENVIRONMENTS = 10


class EventForm(StrEnum):
    """The event that an HTTP request becomes."""

    URL = "url"  # function URL
    HTTP_API = "v2"  # API Gateway, HTTP API, payload format 2.0
    REST_API = "v1"  # API Gateway, REST API; HTTP API with payload format 1.0
    ALB = "alb"
    ALB_MULTI = "alb-multi"  # with multi-value headers


class InvokeMode(StrEnum):
    """How a function URL sends the response; named as in Lambda."""

    AUTO = "auto"  # as the function responds
    BUFFERED = "buffered"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Settings of the command, which apply to every function; None: not given.

    Attributes:
        timeout_s: Function timeout.
        memory_mb: Memory size.
        variables: Environment variables of the functions.
        warm: Value of ``LAMBDA_DENO_WARM``.
        stage: Stage of every function; None: without one.
        concurrency: Events that one environment takes at once, as a Managed Instance.
        environments: Most environments of a function at once.
        is_frozen: Environments are stopped between events, as on Lambda.
        is_verbose: Log the commands that start the functions' processes.
        inspect: Have a debugger attach to the process of each event. Each function has
            a port of its own, from this one on.
    """

    timeout_s: float | None = None
    memory_mb: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    warm: str | None = None
    stage: str | None = None
    concurrency: int | None = None
    environments: int = DEFAULT_ENVIRONMENTS
    is_frozen: bool = False
    is_verbose: bool = False
    inspect: Inspect | None = None

    def for_function(self, index: int) -> Overrides:
        """Return the settings of one of several functions, counted from 0."""
        inspect = self.inspect
        if inspect is None:
            return self
        return replace(self, inspect=replace(inspect, port=inspect.port + index))


@dataclass(frozen=True, slots=True)
class ServedFunction:
    """A function, and how it is run.

    Attributes:
        path: The folder or the file that was found.
    """

    path: Path
    project: Project
    overrides: Overrides

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.project.name

    @property
    def folder(self) -> Path:
        """The function's folder."""
        return self.project.function.task_root

    @property
    def timeout_s(self) -> float:
        """Function timeout."""
        if self.overrides.inspect is not None:
            return SUSPENDED_TIMEOUT_S
        return self.overrides.timeout_s or self.project.timeout_s or DEFAULT_TIMEOUT_S

    @property
    def memory_mb(self) -> int:
        """Memory size."""
        return self.overrides.memory_mb or self.project.memory_mb or DEFAULT_MEMORY_MB

    @property
    def variables(self) -> dict[str, str]:
        """The function's environment variables."""
        given = self.project.variables_with(self.overrides.variables)
        return given if self.overrides.inspect is None else {**given, **INSPECTED}

    @property
    def problem(self) -> str | None:
        """Why it cannot be run at the moment; None if no reason is known."""
        if self.folder.is_dir():
            return None
        return (
            f"Cannot run {self.name!r}: its folder {str(self.folder)!r} is gone; once "
            "it is back, requests are served again"
        )

    def reloaded(self) -> ServedFunction:
        """Return the function with its project file read again.

        Raises:
            UsageError: As for ``load_project``.
        """
        project = load_project(self.path, stage=self.overrides.stage)
        return ServedFunction(self.path, project, self.overrides)


def find_functions(
    paths: Sequence[Path], overrides: Overrides
) -> dict[str, ServedFunction]:
    """Return the functions at or below some paths, by name.

    Raises:
        UsageError: A path holds no function, a function cannot be used, or two have
            one name.
    """
    found: dict[str, ServedFunction] = {}
    for path in paths:
        for place in _places(path):
            own = overrides.for_function(len(found))
            project = load_project(place, stage=overrides.stage)
            function = ServedFunction(place, project, own)
            other = found.setdefault(function.name, function)
            if other.project.function != function.project.function:
                raise UsageError(
                    f"Cannot serve two functions called {function.name!r}: they are in "
                    f"{str(other.path)!r} and {str(place)!r}; set name in the "
                    f"{PROJECT_FILE} of one of them"
                )
    return found


def _places(path: Path) -> list[Path]:
    """Return the files and folders of the functions that a path stands for."""
    if not path.is_dir():
        return [path]  # a handler's file, or an error
    if (path / PROJECT_FILE).is_file():
        return [path]
    folders = list(_folders(path, 0))
    # A file called main.ts may be anything; a project file leaves no doubt.
    with_file = [folder for folder in folders if (folder / PROJECT_FILE).is_file()]
    if with_file:
        return with_file
    if _has_handler(path):
        return [path]
    with_handler: list[Path] = []
    for folder in filter(_has_handler, folders):
        if not any(above in folder.parents for above in with_handler):
            with_handler.append(folder)  # what is below one is a part of it
    if with_handler:
        return with_handler
    try:
        load_project(path)  # the only source file
    except UsageError as error:
        raise UsageError(
            f"Cannot find a function in {str(path)!r} or below: no folder has a "
            f"{PROJECT_FILE}, or a source file called {', '.join(SOURCE_NAMES[:-1])} "
            f"or {SOURCE_NAMES[-1]}; give the path of a function, or create one with "
            "`lambda-deno-spawn new`"
        ) from error
    return [path]


def _folders(path: Path, depth: int) -> Iterator[Path]:
    """Yield the folders below a path; of a function's folder nothing below it."""
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        return  # a folder that cannot be read holds no function that can be run
    for entry in entries:
        is_searched = not entry.name.startswith(".") and entry.name not in NOT_SEARCHED
        if is_searched and entry.is_dir(follow_symlinks=False):
            folder = path / entry.name
            yield folder
            if depth < DEPTH_LIMIT and not (folder / PROJECT_FILE).is_file():
                yield from _folders(folder, depth + 1)


def _has_handler(folder: Path) -> bool:
    return any((folder / name).is_file() for name in HANDLER_NAMES)

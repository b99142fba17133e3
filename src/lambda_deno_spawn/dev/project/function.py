"""A function on the developer's machine: a file or a folder, and how to invoke it.

Knows which handler a path stands for and which environment variables Lambda accepts.
Does not know how a function is run. Specification: AWS Lambda Developer Guide, "Working
with Lambda environment variables".
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    DEFAULT_TIMEOUT_S,
)
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.launch.handler import HANDLER_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SOURCE_NAMES = ("function", "index", "main", "mod", "handler")
DEFAULT_EXPORT = "handler"
INIT_LIMIT_S = 10.0  # on-demand init; AWS "execution environment lifecycle"
INSPECT_PORT = 9229  # Node's, which Chrome and VS Code look at by themselves

# AWS "Working with Lambda environment variables", reserved variables.
RESERVED_VARIABLES = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_METADATA_API",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
NAME_LIMIT = 64
FALLBACK_NAME = "function"
VARIABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Function:
    """A function's code.

    Attributes:
        task_root: Absolute path of its folder.
        handler: ``file.export``.
        shadowed_by: The file that Lambda would load instead of the requested one,
            because both have the handler's name; None if they are the same.
    """

    task_root: Path
    handler: str
    shadowed_by: Path | None = None


@dataclass(frozen=True, slots=True)
class Inspect:
    """A debugger is to attach to the function's process.

    Attributes:
        port: TCP port on the loopback address.
        breaks: Pause at the first line of the handler's file that runs.
    """

    port: int = INSPECT_PORT
    breaks: bool = False

    @property
    def address(self) -> str:
        """``host:port`` of the inspector."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Again:
    """The facts of an earlier invocation, for a handler that runs again.

    Attributes:
        request_id: Handlers use it to recognize what they have done.
        cognito_identity: JSON text.
    """

    request_id: str
    trace_id: str | None = None
    cognito_identity: str | None = None
    function_arn: str | None = None


@dataclass(frozen=True, slots=True)
class InvokeOptions:
    """The function to invoke, and how to invoke it.

    Attributes:
        event: Passed on byte for byte.
        timeout_s: Time limit of the invocation, counted from its delivery.
        init_limit_s: Time limit of the init phase; as on Lambda, ``timeout_s`` is
            added.
        memory_mb: Reported to the runtime and in the report; nothing enforces it here.
        warm: Value of ``LAMBDA_DENO_WARM``, None to leave the variable unset.
        variables: The function's own environment variables.
        client_context: JSON text.
        is_verbose: Log the commands that start the function's processes.
        inspect: Have a debugger attach; None: there is none.
        again: What an invocation that is run again had; None: it is a new one.
    """

    function: Function
    event: bytes = b"{}"
    timeout_s: float = DEFAULT_TIMEOUT_S
    memory_mb: int = DEFAULT_MEMORY_MB
    warm: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    client_context: str | None = None
    tenant_id: str | None = None
    init_limit_s: float = INIT_LIMIT_S
    is_verbose: bool = False
    inspect: Inspect | None = None
    again: Again | None = None


def find_function(path: Path, handler: str | None = None) -> Function:
    """Find the folder and the handler that a path stands for.

    Args:
        path: The handler's file, or the folder that holds it.
        handler: ``file.export``; None: choose it by the names of the files.

    Raises:
        UsageError: The path does not exist, or no handler can be found there.
    """
    if path.is_dir():
        task_root = path.resolve()
        return Function(task_root, handler or _guess_handler(task_root, path))
    if not path.is_file():
        raise UsageError(
            f"Cannot find function {str(path)!r}: there is no such file or folder; "
            "give the handler's file or the folder that contains it"
        )
    # Resolve the folder only: the handler may be a symbolic link to a file elsewhere.
    task_root = path.parent.resolve()
    if handler is not None:
        return Function(task_root, handler)
    stem = _stem(path.name)
    if stem is None:
        raise UsageError(
            f"Cannot use function {str(path)!r}: its suffix is not one of "
            f"{', '.join(HANDLER_SUFFIXES)}"
        )
    winner = next(
        name for s in HANDLER_SUFFIXES if (task_root / (name := stem + s)).is_file()
    )
    shadowed_by = None if winner == path.name else path.with_name(winner)
    return Function(task_root, f"{stem}.{DEFAULT_EXPORT}", shadowed_by)


def _guess_handler(task_root: Path, shown: Path) -> str:
    for name in SOURCE_NAMES:
        if any((task_root / (name + suffix)).is_file() for suffix in HANDLER_SUFFIXES):
            return f"{name}.{DEFAULT_EXPORT}"
    stems = {
        stem
        for entry in task_root.iterdir()
        if entry.is_file() and _is_code(entry.name) and (stem := _stem(entry.name))
    }
    if len(stems) == 1:
        return f"{stems.pop()}.{DEFAULT_EXPORT}"
    if not stems:
        raise UsageError(
            f"Cannot find a handler in {str(shown)!r}: it has no source file, such as "
            f"{SOURCE_NAMES[0]}.ts; give the function's folder or file, or create one "
            "with `lambda-deno-spawn new`"
        )
    raise UsageError(
        f"Cannot find a handler in {str(shown)!r}: it has {len(stems)} source files, "
        f"and none is called {', '.join(SOURCE_NAMES[:-1])} or {SOURCE_NAMES[-1]}; "
        "give the file, or --handler file.export"
    )


def _stem(name: str) -> str | None:
    for suffix in HANDLER_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return None


def _is_code(name: str) -> bool:
    """Return whether a file is a module, not a test or a file of type declarations."""
    return not re.search(r"\.d\.[mc]?ts$|[._]test\.[a-z]+$", name)


def parse_variables(assignments: Sequence[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` assignments of the function's environment variables.

    Raises:
        UsageError: An assignment is malformed, or Lambda does not accept its name.
    """
    variables = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        problem = (
            variable_problem(name, value)
            if separator
            else "there is no '='; give NAME=VALUE"
        )
        if problem is not None:
            # Leave out the value: it may be a secret.
            raise UsageError(f"Cannot use --env {name!r}: {problem}")
        variables[name] = value
    return variables


def variable_problem(name: str, value: str) -> str | None:
    """Return why Lambda rejects a variable, and what to do; None if it accepts it."""
    if name in RESERVED_VARIABLES:
        return (
            f"Lambda reserves {name}; choose another name, or set it in this "
            "shell's environment if it is a credential or a region"
        )
    if not VARIABLE_NAME.fullmatch(name):
        return (
            f"Lambda does not accept the name {name!r}; use two or more letters, "
            "digits and underscores, a letter first"
        )
    if "\0" in value:
        return "its value contains a NUL character; remove it"
    return None


def shadowing_note(function: Function, shown: str) -> str | None:
    """Return a note if another file is loaded than the one requested, else None."""
    if function.shadowed_by is None:
        return None
    return (
        f"Note: {str(function.shadowed_by)!r} runs instead of {shown!r}, as it would "
        "in Lambda"
    )


def function_name(function: Function) -> str:
    """Return a name that Lambda accepts, derived from the name of the folder.

    If no letter would be left of the folder's name, or it is too long, the name ends
    with a digest of it: else all such folders would be one function in AWS.
    """
    # macOS may give the same name back in another form of Unicode.
    folder = unicodedata.normalize("NFC", function.task_root.name)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder).strip("-")
    is_told_apart = name == folder or re.search("[A-Za-z]", name) or not folder
    if is_told_apart and len(name) <= NAME_LIMIT:
        return name or FALLBACK_NAME
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return f"{name[: NAME_LIMIT - len(digest) - 1] or FALLBACK_NAME}-{digest}"

"""One local invocation as a recording.

Knows where each member of a recording comes from on this machine, and how the digest of
a function's code is made. Does not know how the invocation ran.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.project.function import function_name
from lambda_deno_spawn.errors import LambdaDenoSpawnError
from lambda_deno_spawn.launch.handler import find_handler
from lambda_deno_spawn.recording.form import SETTINGS, SUCCESS, Result, recording
from lambda_deno_spawn.recording.redaction import Redactor, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lambda_deno_spawn.dev.project.function import Function

LOCAL_LIMIT_BYTES = 8 * 1024 * 1024  # no event and no buffered result is larger
LOG_LIMIT = 1024 * 1024  # characters
FILES_LIMIT = 5000
CHUNK_BYTES = 1024 * 1024
# Folders that hold no code of the project's own.
LEFT_OUT = frozenset({"node_modules", "dist", "coverage", "events"})


def capture(
    *,
    function: Function,
    name: str | None = None,
    version: str = "$LATEST",
    arn: str = "",
    request_id: str,
    received_epoch_s: float,
    event: bytes,
    timeout_s: float,
    memory_mb: int,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    context: Mapping[str, str | None],
    result: Result,
    process: Mapping[str, object],
    log: str,
) -> dict[str, Any]:
    """Return the recording of a local invocation.

    Args:
        function: Folder and handler.
        name: The function's name; None: that of its folder.
        version: Version of the function.
        arn: ARN of the function.
        request_id: Of the invocation.
        received_epoch_s: When it began; Unix time.
        event: As it was sent.
        timeout_s: The function's timeout.
        memory_mb: The function's memory.
        variables: The function's own variables.
        environ: The environment of the command, whose secrets are looked for.
        context: Trace id, client context, identity and tenant.
        result: Its result.
        process: How its process began.
        log: Its log; only the end of a long one is kept.
    """
    everything = {**environ, **variables}
    moment = datetime.fromtimestamp(received_epoch_s, UTC)
    return recording(
        request_id=request_id,
        timestamp=moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        origin="local",
        function={
            "name": name or function_name(function),
            "version": version,
            "arn": arn,
            "handler": function.handler,
            "folder": str(function.task_root),
            "memoryMb": memory_mb,
            "timeoutS": timeout_s,
        },
        code=code_digest(function),
        settings={n: everything[n] for n in SETTINGS if n in everything},
        variables=variables,
        context=context,
        event=event,
        result=result,
        process=process,
        log=log[-LOG_LIMIT:],
        redactor=Redactor(secret_values(everything)),
        limit_bytes=LOCAL_LIMIT_BYTES,
    )


def secret_values(variables: Mapping[str, str]) -> list[str]:
    """Return the values of variables whose names tell a secret."""
    return [value for name, value in variables.items() if is_secret_name(name)]


def code_digest(function: Function) -> str:
    """Return the digest of all files of a function's folder that may be its code."""
    digest = hashlib.sha256()
    for path in _code_files(function.task_root):
        name = os.fsencode(path.relative_to(function.task_root))
        digest.update(b"%d:%s" % (len(name), name))
        digest.update(bytes.fromhex(file_digest(path) or "00"))
    return f"files:sha256:{digest.hexdigest()}"


def same_code(recorded: str, function: Function) -> bool | None:
    """Return whether the code is the one that was recorded; None: that is not known."""
    if recorded.startswith("files:"):
        return recorded == code_digest(function)
    match recorded.split(":"):
        case ["file", name, "sha256", digest]:
            handler = handler_file(function)
            # A package may hold a bundle of these files.
            if handler is None or handler.rsplit("/", 1)[-1] != name:
                return None
            return file_digest(handler) == digest
    return None


def handler_file(function: Function) -> str | None:
    """Return the path of the handler's file; None if there is none."""
    try:
        return find_handler(str(function.task_root), function.handler).path
    except LambdaDenoSpawnError:
        return None


def file_digest(path: Path | str) -> str | None:
    """Return the digest of a file; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def _code_files(root: Path) -> list[Path]:
    """Return the files below a folder in a fixed order, without hidden ones."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in LEFT_OUT and name[:1] != "."
        )
        here = root / folder
        found += [here / name for name in sorted(files) if name[:1] != "."]
        if len(found) > FILES_LIMIT:
            break
    return found


def status_of(error: bytes | None, outcome: str | None = None) -> str:
    """Return the error type in an error body; ``success`` if there is no error.

    Args:
        error: JSON error body; None: there was no error.
        outcome: The error type, if the body has none.
    """
    if error is None:
        return SUCCESS
    import json

    try:
        body = json.loads(error)
    except (ValueError, RecursionError):
        body = None
    kind = body.get("errorType") if isinstance(body, dict) else None
    return kind if isinstance(kind, str) and kind else outcome or "Error"

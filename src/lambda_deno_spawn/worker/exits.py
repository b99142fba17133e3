"""The meaning of a worker's end: exit code, signal and last words become an error.

Knows how Deno, V8 and the kernel say why a process ended. Does not know how a process
is watched. The words are those of Deno 2.9; tests compare them with real processes.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import (
    WorkerExhaustedError,
    WorkerExitedError,
    WorkerOutOfMemoryError,
    WorkerRefusedError,
)
from lambda_deno_spawn.protocol.frames import State

if TYPE_CHECKING:
    from lambda_deno_spawn.processes.reaper import ExitStatus

# Deno says this when V8's heap limit is reached, then ends by SIGTRAP.
OUT_OF_MEMORY_SIGNS = (
    "Fatal JavaScript out of memory",
    "JavaScript heap out of memory",
)
# Deno, and Rust below it, say this when the system grants no further thread.
NO_THREAD_SIGNS = ("unable to create worker threads", "failed to spawn thread")
STDOUT_CLOSED_SIGN = "Cannot write to stdout:"
NEVER_SETTLES_SIGN = "Top-level await promise never resolved"
# Deno's message when it refuses to start, with exit code 1. No message of a handler can
# be taken for it: an error that its module throws does not end the process, and its
# console writes records.
REFUSAL = r"(?m)^error: (?!Uncaught|Top-level)(.+)"
REFUSAL_CAUSE = r"(?m)^Caused by:\n\s+(?:0: )?(.+)"
SYSTEM_SIGN = "(os error "  # not the fault of a setting
# The state of a process in words, after "before"; in all others it was to answer.
_DOING = {
    State.STARTING: "loading the handler's module",
    State.FINISHING: "the work after its response was done",
}


def exit_error(
    status: ExitStatus,
    pid: int,
    state: State,
    stderr_tail: str,
    sources: str,
    *,
    is_oom: bool,
) -> WorkerExitedError:
    """Return the error that the end of a worker means.

    Args:
        status: How the process ended.
        pid: Its process id.
        state: What it was doing, as far as its frames tell.
        stderr_tail: The last lines it wrote to stderr.
        sources: Which settings its arguments stem from.
        is_oom: The kernel may have sent a SIGKILL because memory was used up.
    """
    returncode = status.returncode
    doing = _DOING.get(state, "answering")
    refusal = re.search(REFUSAL, stderr_tail)
    ended_by = WorkerExitedError
    if _is_heap_limit(returncode, stderr_tail):
        ended_by = WorkerOutOfMemoryError
        message = (
            f"The process ran out of JavaScript memory before {doing}: raise the "
            "function's memory size, or V8's limit with LAMBDA_DENO_V8_FLAGS="
            "--max-old-space-size=MEGABYTES"
        )
    elif returncode == -signal.SIGKILL and is_oom:
        ended_by = WorkerOutOfMemoryError
        peak_mb = status.peak_bytes // 2**20
        message = (
            f"The process was ended by SIGKILL before {doing}, as the kernel does when "
            f"the environment's memory is used up; it used up to {peak_mb} MB, not "
            "counting programs that it started: raise the function's memory size"
        )
    elif any(sign in stderr_tail for sign in NO_THREAD_SIGNS):
        ended_by = WorkerExhaustedError
        message = (
            f"The process could not start another thread before {doing}: Lambda allows "
            "1,024 processes and threads; start fewer programs at a time"
        )
    elif state is State.STARTING and returncode == 1 and refusal is not None:
        reason = refusal[1]
        cause = re.search(REFUSAL_CAUSE, stderr_tail)
        if cause is not None and cause[1] not in reason:
            reason += f": {cause[1]}"
        if SYSTEM_SIGN in stderr_tail:
            message = f"Deno cannot start: {reason}"
        else:
            ended_by = WorkerRefusedError
            message = f"Deno refuses to start with {sources}: {reason}"
    elif STDOUT_CLOSED_SIGN in stderr_tail:
        message = f"The handler closed the stdout of its process before {doing}"
    elif state is State.STARTING and NEVER_SETTLES_SIGN in stderr_tail:
        message = (
            "The handler's module never finished loading: it awaits a promise at its "
            "top level that can never settle"
        )
    elif returncode < 0:
        name = signal.strsignal(-returncode) or "unknown"
        message = (
            f"The process was ended by signal {-returncode} ({name}) before {doing}"
        )
    else:
        message = f"The process exited with status {returncode} before {doing}"
        if state is not State.FINISHING:
            message += (
                ": a handler must return or throw, not call Deno.exit or process.exit"
            )
    return ended_by(message, returncode=returncode, pid=pid, stderr_tail=stderr_tail)


def _is_heap_limit(returncode: int, stderr_tail: str) -> bool:
    is_trap = returncode == -signal.SIGTRAP  # how V8 ends a process
    return is_trap and any(sign in stderr_tail for sign in OUT_OF_MEMORY_SIGNS)

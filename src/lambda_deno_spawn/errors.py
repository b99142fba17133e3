"""Every exception this project raises on purpose.

A failing handler is not among them: it is an ordinary outcome of an invocation, a
``Failure`` value. These classes mean that a setting is wrong, that the Runtime API
refused a call or cannot be reached, or that a Deno process broke its side of the
contract. The failure table in docs/architecture.md has the error type that the caller
receives for each of them.
"""

from __future__ import annotations

import errno


class LambdaDenoSpawnError(Exception):
    """Root of the tree; never raised itself."""


class ConfigError(LambdaDenoSpawnError):
    """A setting has a value that cannot be used.

    Attributes:
        variable: Name of the environment variable (or option) at fault.
        value: The offending value as it was found, None if it is missing.
        expected: A description of accepted values.
    """

    error_type = "Runtime.InvalidConfiguration"

    def __init__(self, variable: str, value: str | None, expected: str) -> None:
        self.variable = variable
        self.value = value
        self.expected = expected
        found = "it is not set" if value is None else f"its value is {value!r}"
        super().__init__(f"Cannot use {variable}: {found}; expected {expected}")


class HandlerError(LambdaDenoSpawnError):
    """The handler named by ``_HANDLER`` cannot be found or loaded.

    Attributes:
        error_type: AWS's name for the cause, such as ``Runtime.HandlerNotFound``.
    """

    def __init__(self, error_type: str, message: str) -> None:
        self.error_type = error_type
        super().__init__(message)


class SecretError(LambdaDenoSpawnError):
    """A secret that a variable refers to cannot be fetched, or cannot be a variable.

    No message contains the secret.
    """

    error_type = "Runtime.SecretUnavailable"


class UsageError(LambdaDenoSpawnError):
    """A command cannot be carried out with these arguments."""


class BuildError(LambdaDenoSpawnError):
    """A package or a layer cannot be built."""


class DeployError(LambdaDenoSpawnError):
    """AWS refused a call of a command, or cannot be reached."""


class RuntimeApiError(LambdaDenoSpawnError):
    """A call to the Runtime API failed.

    Attributes:
        error_type: What is reported of an invocation whose outcome this call was to
            post.
        call: Which call, such as ``next``, ``response``, ``error``, ``init error``.
        detail: What happened; bounded in length.
        status: HTTP status, None if there was no response.
    """

    error_type = "Runtime.LambdaRuntimeClientError"  # AWS's name for it

    def __init__(self, call: str, detail: str, *, status: int | None = None) -> None:
        self.call = call
        self.detail = detail
        self.status = status
        answer = "no answer" if status is None else f"HTTP status {status}"
        super().__init__(
            f"Cannot complete Runtime API call {call!r}: {answer}, {detail}"
        )


class RefusedError(RuntimeApiError):
    """The Runtime API refused a call.

    Attributes:
        status: Its HTTP status.
    """

    status: int

    def __init__(self, call: str, status: int, detail: str) -> None:
        super().__init__(call, detail, status=status)


class StreamNotBegunError(RuntimeApiError):
    """There was no connection for a streamed response; nothing of it was sent.

    Attributes:
        error_type: ``Runtime.ResourceExhausted`` if the system has no room for one
            more connection.
    """

    def __init__(self, detail: str, *, is_exhausted: bool) -> None:
        self.error_type = (
            "Runtime.ResourceExhausted" if is_exhausted else "Runtime.StreamUnavailable"
        )
        super().__init__("response", detail)


class WorkerError(LambdaDenoSpawnError):
    """A Deno process ended early or broke the protocol.

    Attributes:
        error_type: The ``errorType`` that the caller receives.
        pid: Process id, None if no process could be started.
        stderr_tail: The last lines it wrote to stderr, bounded.
    """

    error_type = "Runtime.ExitError"

    def __init__(
        self, message: str, *, pid: int | None = None, stderr_tail: str = ""
    ) -> None:
        self.pid = pid
        self.stderr_tail = stderr_tail
        super().__init__(message)


class TemplateError(LambdaDenoSpawnError):
    """A process that is to be forked has gone, or broke its side of the contract."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"Cannot use the template: {detail}")


class WorkerSpawnError(WorkerError):
    """Deno could not be started: missing binary, no memory, no free process slot.

    Attributes:
        error_type: ``Runtime.InvalidEntrypoint`` if the binary is at fault, else the
            type for the resource that was used up.
    """

    error_type = "Runtime.InvalidEntrypoint"

    @classmethod
    def from_os_error(cls, action: str, error: OSError) -> WorkerSpawnError:
        """Describe an error of the system, with advice if a resource is used up.

        Args:
            action: The action that failed, such as ``start 'deno'``.
            error: The system's error.
        """
        message = f"Cannot {action}: {error.strerror or error}"
        if error.errno not in _EXHAUSTED:
            return cls(message)
        error_type, advice = _EXHAUSTED[error.errno]
        exhausted = cls(f"{message}; {advice}")
        exhausted.error_type = error_type
        return exhausted


_NO_SLOT = (
    "Runtime.ResourceExhausted",
    "Lambda allows 1,024 processes and threads; end the programs that handlers start",
)
_NO_DESCRIPTOR = (
    "Runtime.ResourceExhausted",
    "Lambda allows 1,024 open files and sockets; close what handlers open",
)
_NO_SPACE = (
    "Runtime.ResourceExhausted",
    "/tmp is full; raise the function's ephemeral storage, or write to TMPDIR only, "
    "which is emptied after each event",
)
_NO_MEMORY = ("Runtime.OutOfMemory", "raise the function's memory size")
_EXHAUSTED = {
    errno.EAGAIN: _NO_SLOT,
    errno.EMFILE: _NO_DESCRIPTOR,
    errno.ENFILE: _NO_DESCRIPTOR,
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.ENOMEM: _NO_MEMORY,
}


class WorkerExitedError(WorkerError):
    """The process ended before it answered.

    Attributes:
        returncode: Exit code; negative: ended by that signal (subprocess's rule).
    """

    def __init__(
        self, message: str, *, returncode: int, pid: int, stderr_tail: str
    ) -> None:
        self.returncode = returncode
        super().__init__(message, pid=pid, stderr_tail=stderr_tail)


class WorkerRefusedError(WorkerExitedError):
    """Deno itself refused its arguments or configuration, before any code ran."""

    error_type = ConfigError.error_type


class WorkerOutOfMemoryError(WorkerExitedError):
    """The process was ended at V8's heap limit, or by the kernel for lack of memory."""

    error_type = "Runtime.OutOfMemory"


class WorkerExhaustedError(WorkerExitedError):
    """The process ended because a resource of the environment was used up."""

    error_type = "Runtime.ResourceExhausted"


class WorkerTimeoutError(WorkerError):
    """The process had not answered by the deadline less the stop margin.

    Attributes:
        limit_s: How long it had, in seconds from the arrival of its event.
    """

    error_type = "Runtime.InvokeTimeout"

    def __init__(
        self, message: str, *, limit_s: float, pid: int | None, stderr_tail: str
    ) -> None:
        self.limit_s = limit_s
        super().__init__(message, pid=pid, stderr_tail=stderr_tail)


class WorkerUnreachedError(WorkerError):
    """The process did not receive the event, so another one can serve it.

    Either there was no connection to it, or it ended before it had read the event.
    """

    error_type = "Runtime.WorkerProtocolError"


class WorkerProtocolError(WorkerError):
    """The process sent a frame that is broken or that its state does not allow."""

    error_type = "Runtime.WorkerProtocolError"

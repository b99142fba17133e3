"""What the system's refusals mean to a caller."""

from __future__ import annotations

import errno
import os

import pytest

from lambda_deno_spawn.errors import WorkerSpawnError


@pytest.mark.parametrize(
    ("number", "error_type", "advice"),
    [
        (errno.ENOENT, "Runtime.InvalidEntrypoint", ""),
        (errno.EACCES, "Runtime.InvalidEntrypoint", ""),
        (errno.ENOEXEC, "Runtime.InvalidEntrypoint", ""),
        (errno.EAGAIN, "Runtime.ResourceExhausted", "end the programs"),
        (errno.EMFILE, "Runtime.ResourceExhausted", "close what handlers open"),
        (errno.ENFILE, "Runtime.ResourceExhausted", "close what handlers open"),
        (errno.ENOSPC, "Runtime.ResourceExhausted", "ephemeral storage"),
        (errno.EDQUOT, "Runtime.ResourceExhausted", "ephemeral storage"),
        (errno.ENOMEM, "Runtime.OutOfMemory", "raise the function's memory size"),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else "",
)
def test_a_refusal_of_the_system_is_named_and_says_what_to_do(
    number: int, error_type: str, advice: str
) -> None:
    refused = OSError(number, os.strerror(number))
    error = WorkerSpawnError.from_os_error("start '/opt/bin/deno'", refused)
    assert error.error_type == error_type
    assert str(error).startswith(f"Cannot start '/opt/bin/deno': {refused.strerror}")
    assert advice in str(error)
    assert WorkerSpawnError.error_type == "Runtime.InvalidEntrypoint"


def test_a_refusal_without_a_number_is_told_as_it_is() -> None:
    error = WorkerSpawnError.from_os_error("start 'deno'", OSError("no reason"))
    assert str(error) == "Cannot start 'deno': no reason"

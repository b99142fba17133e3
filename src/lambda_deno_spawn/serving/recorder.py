"""Invocations as recordings in the function's log, if a setting asks for it.

Knows which invocations are recorded, and where each member comes from. The form is
``recording.form``. Does not know the log. Specification: docs/replay.md.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Record
from lambda_deno_spawn.invocation import Failure, Success
from lambda_deno_spawn.recording.form import (
    LOGGED_LIMIT_BYTES,
    SETTINGS,
    SUCCESS,
    Result,
    log_lines,
    recording,
)
from lambda_deno_spawn.recording.redaction import Redactor, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.invocation import Invocation
    from lambda_deno_spawn.serving.strategy import Facts
    from lambda_deno_spawn.serving.streaming import WorkerChunks

CHUNK_BYTES = 1024 * 1024


class Recorder:
    """Turns invocations into lines of the log."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        module: str,
        secrets: Sequence[str] = (),
    ) -> None:
        """Remember the members that are the same for all of them.

        Args:
            settings: Those of the function.
            environ: The environment, whose secrets are looked for.
            module: Path of the handler's file.
            secrets: Further values that are secrets.
        """
        self._settings = settings
        self._module = module
        self._code: str | None = None
        self._set = {name: environ[name] for name in SETTINGS if name in environ}
        named = [value for name, value in environ.items() if is_secret_name(name)]
        self._secrets = [*named, *secrets]

    def lines(
        self,
        invocation: Invocation,
        outcome: Success | Failure | WorkerChunks,
        refusal: str | None,
        timeout_s: float,
        facts: Facts | None,
        timestamp: str,
    ) -> list[bytes]:
        """Return the lines for one invocation; none if it is not recorded.

        Args:
            invocation: Event and facts.
            outcome: Its outcome.
            refusal: Error type that the caller was told instead; None: nothing else.
            timeout_s: How long it might take when it arrived.
            facts: Facts of its process; None: it had none.
            timestamp: Now, as log records have it.
        """
        result = _result(outcome, refusal)
        settings = self._settings
        if settings.record is Record.FAILURES and result.status == SUCCESS:
            return []
        form = recording(
            request_id=invocation.request_id,
            timestamp=timestamp,
            origin="lambda",
            function={
                "name": settings.function_name,
                "version": settings.function_version,
                "arn": invocation.function_arn,
                "handler": settings.handler,
                "memoryMb": settings.memory_mb,
                # The platform counts in seconds, and has begun to count.
                "timeoutS": math.ceil(timeout_s),
            },
            code=self._digest(),
            settings=self._set,
            variables={},
            context={
                "traceId": invocation.trace_id,
                "clientContext": invocation.client_context,
                "cognitoIdentity": invocation.cognito_identity,
                "tenantId": invocation.tenant_id,
            },
            event=invocation.event,
            result=result,
            process={}
            if facts is None
            else {"start": "fork" if facts.why_not_forked is None else "exec"},
            log=None,
            redactor=Redactor(self._secrets),
            limit_bytes=LOGGED_LIMIT_BYTES,
        )
        return log_lines(form, timestamp)

    def _digest(self) -> str:
        """Return the digest of the handler's file, which in a package is all code."""
        if self._code is None:
            digest = hashlib.sha256()
            try:
                with Path(self._module).open("rb") as file:
                    while chunk := file.read(CHUNK_BYTES):
                        digest.update(chunk)
                name = Path(self._module).name
                self._code = f"file:{name}:sha256:{digest.hexdigest()}"
            except OSError:
                self._code = ""
        return self._code


def _result(outcome: Success | Failure | WorkerChunks, refusal: str | None) -> Result:
    match outcome:
        case Success():
            result = Result(
                SUCCESS, outcome.payload, len(outcome.payload), outcome.content_type
            )
        case Failure():
            body = outcome.answer
            result = Result(outcome.error_type, body, len(body), "application/json")
        case _:
            failure = outcome.failure
            result = Result(
                SUCCESS if failure is None else failure.error_type,
                None if failure is None else failure.answer,
                outcome.sent_bytes,
                is_streamed=True,
            )
    return result if refusal is None else result._replace(status=refusal)

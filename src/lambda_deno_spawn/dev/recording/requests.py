"""Requests to ``dev`` as recordings.

Knows which requests are recorded, and where each member comes from. Does not know how
requests are served.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.devserver.journal import ChangeKind, Notice
from lambda_deno_spawn.dev.local.response_stream import split_prelude
from lambda_deno_spawn.dev.project.quotas import TIMEOUT_LIMIT_S
from lambda_deno_spawn.dev.recording.capture import capture, status_of
from lambda_deno_spawn.dev.recording.store import folder, write
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.recording.form import Result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lambda_deno_spawn.dev.devserver.journal import Change, Record
    from lambda_deno_spawn.dev.devserver.local_lambda import LocalLambda

# Requests that have ended and are not written yet; each holds its event and result.
KEEPING_LIMIT = 100


class RequestRecorder:
    """Writes requests of a ``dev`` into the folder of recordings."""

    def __init__(self, local: LocalLambda, environ: Mapping[str, str]) -> None:
        """Write nothing yet."""
        self._local = local
        self._environ = environ
        # A task that nothing holds could be collected before it ends.
        self._keeping: set[asyncio.Task[None]] = set()
        self._missed = 0

    def listen(self, *, only_failures: bool) -> None:
        """Write each request that ends from now on, or each that has failed."""

        def note(change: Change) -> None:
            record = change.record
            if change.kind is not ChangeKind.ENDED or record is None:
                return
            if only_failures and record.is_ok and (record.status or 0) < 500:
                return
            if len(self._keeping) >= KEEPING_LIMIT:
                self._missed += 1
                return
            task = asyncio.get_running_loop().create_task(self._keep(record))
            self._keeping.add(task)
            task.add_done_callback(self._kept)

        self._local.journal.listen(note)

    async def _keep(self, record: Record) -> None:
        """Write a request while others are served, and report it."""
        try:
            path = await asyncio.to_thread(self.write, record)
        except UsageError as error:
            level, text = "error", str(error)
        else:
            level, text = "info", f"{record.id[:8]} is recorded in {str(path)!r}"
        name = record.facts.function
        self._local.journal.notice(Notice(time.time() * 1000, level, text, name))

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._keeping.discard(task)
        if self._missed and not self._keeping:
            text = (
                f"{self._missed} requests are not recorded: they ended faster than "
                "recordings can be written"
            )
            self._missed = 0
            self._local.journal.notice(Notice(time.time() * 1000, "error", text))

    def write(self, record: Record) -> Path:
        """Write a request that has ended; return its file.

        Raises:
            UsageError: It cannot be written, or its function is not served any more.
        """
        return write(self._form(record), folder(self._environ))

    def _form(self, record: Record) -> dict[str, Any]:
        facts = record.facts
        fleet = self._local.fleets.get(facts.function)
        if fleet is None:
            raise UsageError(
                f"Cannot record {record.id}: {facts.function!r} is not served any more"
            )
        function = fleet.function
        start = (record.measures or {}).get("start")
        # As `invoke` records it: what the caller sees, and the prelude apart.
        sent, parts = bytes(record.result), None
        if record.is_streamed:
            parts = split_prelude(sent, record.content_type)
        prelude, shown = parts or (None, sent)
        body = shown if record.error is None else record.error
        before_bytes = len(sent) - len(shown)
        return capture(
            function=function.project.function,
            name=facts.function,
            version=facts.qualifier or "$LATEST",
            arn=facts.arn,
            request_id=record.id,
            received_epoch_s=facts.received_epoch_ms / 1000,
            event=facts.event,
            # A debugger suspends it.
            timeout_s=min(facts.timeout_s, TIMEOUT_LIMIT_S),
            memory_mb=facts.memory_mb,
            variables=function.variables,
            environ=self._environ,
            context={
                "traceId": facts.trace_id,
                "clientContext": facts.client_context,
                "cognitoIdentity": facts.cognito_identity,
                "tenantId": facts.tenant_id,
            },
            result=Result(
                status=status_of(record.error, record.error_type),
                payload=body,
                sent_bytes=len(body)
                if record.error is not None
                else record.result_bytes - before_bytes,
                content_type=record.content_type,
                is_streamed=record.is_streamed,
                http=None if prelude is None else prelude.fields,
            ),
            process={} if start is None else {"start": start},
            log="\n".join(line.text for line in record.log),
        )

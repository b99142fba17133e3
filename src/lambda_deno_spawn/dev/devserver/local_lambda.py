"""Lambda as ``dev`` has it: functions by name, and the requests to them.

Knows how a name, an ARN and a qualifier find a function, and what a request needs to
begin. Does not know HTTP. Other modules of ``dev`` (pages, recordings) work with this
class and its journal.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.devserver.fleet import Fleet, TooManyRequestsError
from lambda_deno_spawn.dev.devserver.functions import find_functions
from lambda_deno_spawn.dev.devserver.job import Job
from lambda_deno_spawn.dev.devserver.journal import Facts, Journal, Notice, Source
from lambda_deno_spawn.dev.devserver.retries import Retries
from lambda_deno_spawn.dev.local.invoke import trace_id
from lambda_deno_spawn.dev.local.runtime import region
from lambda_deno_spawn.errors import LambdaDenoSpawnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lambda_deno_spawn.dev.devserver.functions import Overrides, ServedFunction

ACCOUNT = "000000000000"
LATEST = "$LATEST"
# NAME, ACCOUNT:function:NAME, or an ARN, each with or without a qualifier.
IDENTIFIER = re.compile(
    r"(?:(?:arn:aws[a-z-]*:lambda:)?(?:[a-z]{2}[a-z-]*-\d:)?(?:\d{12}:)?function:)?"
    r"(?P<name>[A-Za-z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)
# Without any, AWS's SDKs refuse to send even what goes to this machine.
NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


class UnknownFunctionError(LambdaDenoSpawnError):
    """There is no function with a name.

    Attributes:
        arn: Its ARN, if it existed.
    """

    def __init__(self, arn: str, message: str) -> None:
        self.arn = arn
        super().__init__(message)


class LocalLambda:
    """The functions that are served, and the journal of their requests.

    Attributes:
        fleets: By the functions' names.
        journal: What has happened.
        url: Where the functions and the Lambda API are served, once ``serve_at`` said.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        overrides: Overrides,
        *,
        environ: Mapping[str, str],
        journal: Journal | None = None,
    ) -> None:
        """Find the functions; start nothing.

        Raises:
            UsageError: As for ``find_functions``.
        """
        self.journal = journal or Journal()
        self.url = ""
        self.fleets: dict[str, Fleet] = {}
        self._former: list[Fleet] = []
        self._retries = Retries(self.journal)
        self._paths = list(paths)
        self._overrides = overrides
        self._region = region(environ)
        has_credentials = "AWS_ACCESS_KEY_ID" in environ
        self._environ = {
            **({} if has_credentials else NO_CREDENTIALS),
            **environ,
        }
        for function in find_functions(self._paths, overrides).values():
            self._add(function)

    def serve_at(self, url: str) -> None:
        """Tell functions where they can invoke each other; before any is started."""
        self.url = url
        self._environ["AWS_ENDPOINT_URL_LAMBDA"] = url

    @property
    def folders(self) -> list[Path]:
        """The folders of the functions and the paths that they were found in."""
        folders = {fleet.function.folder for fleet in self.fleets.values()}
        given = {path if path.is_dir() else path.parent for path in self._paths}
        return sorted({path.resolve() for path in folders | given})

    def only(self) -> Fleet | None:
        """Return the only function; None if there are several."""
        return next(iter(self.fleets.values())) if len(self.fleets) == 1 else None

    def arn(self, name: str) -> str:
        """Return the ARN of a function."""
        return f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{name}"

    def find(self, identifier: str) -> tuple[Fleet, str | None]:
        """Return the function that a name or an ARN means, and the qualifier in it.

        Raises:
            UnknownFunctionError: There is none; the message lists those there are.
        """
        match = IDENTIFIER.fullmatch(identifier)
        name = identifier if match is None else match["name"]
        fleet = self.fleets.get(name)
        if fleet is None:
            arn = self.arn(name)
            raise UnknownFunctionError(
                arn,
                f"Function not found: {arn}; dev serves "
                f"{', '.join(sorted(self.fleets)) or 'no function'}",
            )
        return fleet, None if match is None else match["qualifier"]

    def begin(
        self,
        fleet: Fleet,
        event: bytes,
        source: Source,
        attempt: int = 1,
        /,
        *,
        request_id: str | None = None,
        qualifier: str | None = None,
        client_context: str | None = None,
        cognito_identity: str | None = None,
        tenant_id: str | None = None,
        trace: str | None = None,
        method: str | None = None,
        target: str | None = None,
        replay_of: str | None = None,
    ) -> Job:
        """Let a function handle an event.

        Raises:
            TooManyRequestsError: Too many requests of the function wait.
        """
        suffix = "" if qualifier is None else f":{qualifier}"
        facts = Facts(
            request_id=request_id or str(uuid.uuid4()),
            function=fleet.function.name,
            source=source,
            event=event,
            received_epoch_ms=time.time() * 1000,
            arn=f"{fleet.arn}{suffix}",
            timeout_s=fleet.function.timeout_s,
            memory_mb=fleet.function.memory_mb,
            qualifier=qualifier,
            client_context=client_context,
            cognito_identity=cognito_identity,
            tenant_id=tenant_id,
            trace_id=trace or trace_id(),
            method=method,
            target=target,
            replay_of=replay_of,
            attempt=attempt,
        )
        fleet.check_room()
        job = Job(self.journal.begin(facts), self.journal)
        fleet.submit(job)
        return job

    def begin_async(
        self,
        fleet: Fleet,
        event: bytes,
        *,
        qualifier: str | None = None,
        tenant_id: str | None = None,
        trace: str | None = None,
    ) -> Job:
        """Let a function handle an event without a caller; twice again if it fails.

        Raises:
            TooManyRequestsError: As for ``begin``.
        """
        name = fleet.function.name

        def attempt(number: int, request_id: str | None = None) -> Job:
            return self.begin(
                self.fleets[name],
                event,
                Source.ASYNC,
                number,
                request_id=request_id,
                qualifier=qualifier,
                tenant_id=tenant_id,
                trace=trace,
            )

        first = attempt(1)

        def again(number: int) -> Job | None:
            try:
                return attempt(number, first.record.id)
            except (KeyError, TooManyRequestsError):
                return None

        def dead_letter() -> str | None:
            function = self.fleets[name].function if name in self.fleets else None
            return None if function is None else function.project.aws.get("dead_letter")

        self._retries.follow(first, again, dead_letter)
        return first

    def reload(self, names: Iterable[str]) -> None:
        """Use the new code and settings of some functions from the next request on."""
        for name in names:
            fleet = self.fleets[name]
            if fleet.function.problem is not None:
                fleet.retire()
                self._tell("error", fleet.function.problem, name)
                continue
            try:
                function = fleet.function.reloaded()
            except UsageError as error:
                # Half-written: what was there before serves until it is repaired.
                self._tell("error", str(error), name)
                continue
            if function.name == name:
                fleet.reload(function)
                self._tell("reload", "has new code", name)
            else:
                self.rescan()
                return

    def set_variables(self, variables: Mapping[str, str]) -> None:
        """Run the functions with other variables from the next request on."""
        if variables == self._overrides.variables:
            return
        self._overrides = replace(self._overrides, variables=variables)
        for name, fleet in self.fleets.items():
            function = fleet.function
            overrides = replace(function.overrides, variables=variables)
            fleet.reload(replace(function, overrides=overrides))
            self._tell("reload", "has new variables", name)

    def rescan(self) -> None:
        """Look for functions again: some may be new, gone, or have another name."""
        try:
            found = find_functions(self._paths, self._overrides)
        except UsageError as error:
            # If folders are gone, `reload` says which.
            if not any(fleet.function.problem for fleet in self.fleets.values()):
                self._tell("error", str(error))
            return
        for name in set(self.fleets) - set(found):
            former = self.fleets.pop(name)
            former.retire()
            self._former.append(former)
            self._tell("info", "is not served any more", name)
        for name, function in found.items():
            fleet = self.fleets.get(name)
            if fleet is None:
                self._add(function)
            elif fleet.function.path != function.path:  # moved, with its name
                fleet.reload(function)
            else:
                continue
            self._tell("info", f"is served now, from {function.folder}", name)

    def tell_mistake(self, text: str, function: str | None = None) -> None:
        """Note a mistake of a function's, or a fault in `dev` itself."""
        self._tell("error", text, function)

    async def aclose(self) -> None:
        """End everything that was started."""
        await self._retries.aclose()
        fleets = [*self.fleets.values(), *self._former]
        await asyncio.gather(*(fleet.aclose() for fleet in fleets))
        self.journal.close()

    def _add(self, function: ServedFunction) -> None:
        arn = self.arn(function.name)
        fleet = Fleet(function, arn, self._environ, self.journal)
        self.fleets[function.name] = fleet

    def _tell(self, level: str, text: str, function: str | None = None) -> None:
        self.journal.notice(Notice(time.time() * 1000, level, text, function))

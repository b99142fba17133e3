"""AWS itself: credentials, regions and calls.

Knows boto3 and how its clients are configured; besides ``aws_errors``, which knows what
a refusal means, no module does. Refuses to know what is called and why. Specification:
AWS SDK for Python, "Credentials" and "Config Reference".
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import boto3
import boto3.exceptions
import botocore.exceptions
import botocore.parsers
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.response import StreamingBody

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.aws.errors import AwsError, translate
from lambda_deno_spawn.dev.aws.plan import Call, Place
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lambda_deno_spawn.dev.aws.plan import Upload, Wait

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
ATTEMPTS = 4  # of what may be repeated; botocore decides what that is


class Aws:
    """A region, with one set of credentials.

    Not for several threads at once.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        """Find credentials and region, as every tool of AWS does.

        Raises:
            DeployError: There is no such profile, or no region.
        """
        with _translated():
            # Every SDK but this one reads AWS_REGION.
            chosen = region or os.environ.get("AWS_REGION")
            self._session = boto3.Session(region_name=chosen, profile_name=profile)
            found = self._session.region_name
        if not found:
            raise DeployError(
                "Cannot choose a region: none is given; use --region, or set "
                "AWS_REGION or the profile's region"
            )
        self.region: str = found
        self._clients: dict[str, Any] = {}
        self._place: Place | None = None

    @property
    def partition(self) -> str:
        """The partition that the region is in; asks nobody."""
        try:
            found: str = self._session.get_partition_for_region(self.region)
        except botocore.exceptions.BotoCoreError:
            return "aws"  # a region that only AWS_ENDPOINT_URL knows
        return found

    @property
    def place(self) -> Place:
        """Where this is; asks once whose the credentials are."""
        if self._place is None:
            with _translated("sts:GetCallerIdentity", region=self.region):
                answer = self._client("sts").get_caller_identity()
            partition = answer["Arn"].split(":")[1]
            self._place = Place(self.region, answer["Account"], partition)
        return self._place

    def call(
        self, call: Call, *, reads_for_s: float | None = None
    ) -> Mapping[str, Any]:
        """Make a call.

        Args:
            call: With all its answers and files resolved.
            reads_for_s: How long an answer may take; such a call is made only once.

        Raises:
            AwsError: It was refused, or did not get there.
        """
        with _translated(str(call), call, self.region):
            client = self._client(call.service, reads_for_s)
            method = getattr(client, _method(client, call.operation))
            answer: Mapping[str, Any] = method(**call.parameters)
            # Read here, where a connection that breaks off is translated.
            return {
                name: value.read() if isinstance(value, StreamingBody) else value
                for name, value in answer.items()
            }

    def find(self, call: Call) -> Mapping[str, Any] | None:
        """Make a call that reads; return None if what it asks for is not there."""
        try:
            return self.call(call)
        except AwsError as error:
            if error.is_not_found:
                return None
            raise

    def pages(self, call: Call, items: str) -> Iterator[Mapping[str, Any]]:
        """Return the items of all pages of a list."""
        with _translated(str(call), call, self.region):
            client = self._client(call.service)
            paginator = client.get_paginator(_method(client, call.operation))
            for page in paginator.paginate(**call.parameters):
                yield from page.get(items, [])

    def wait(self, wait: Wait) -> None:
        """Wait until something has a state.

        Raises:
            AwsError: It never will have, or it takes too long.
        """
        with _translated(str(wait), wait.call, self.region):
            client = self._client(wait.call.service)
            client.get_waiter(wait.waiter).wait(**wait.call.parameters)

    def upload(self, upload: Upload, on_progress: Callable[[int], None]) -> None:
        """Send a file; what was sent of it is removed if that fails.

        Args:
            upload: Which file, and where it goes.
            on_progress: Called with a number of bytes more, from other threads.
        """
        arn = f"{upload.place.bucket(upload.bucket)}/{upload.key}"
        call = Call("s3", "PutObject", arn)
        with _translated(str(upload), call, self.region):
            self._client("s3").upload_file(
                str(upload.path),
                upload.bucket,
                upload.key,
                ExtraArgs={"ExpectedBucketOwner": upload.place.account},
                Callback=on_progress,
                Config=TransferConfig(max_concurrency=4),
            )

    def _client(self, service: str, reads_for_s: float | None = None) -> Any:
        if reads_for_s is not None:
            return self._new_client(service, reads_for_s, attempts=1)
        if service not in self._clients:
            self._clients[service] = self._new_client(service, READ_TIMEOUT_S, ATTEMPTS)
        return self._clients[service]

    def _new_client(self, service: str, reads_for_s: float, attempts: int) -> Any:
        return self._session.client(
            service,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=reads_for_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                # An invocation may be silent for 15 minutes. When the first probe is
                # sent is the system's setting: docs/deploy.md, "invoke --remote".
                tcp_keepalive=True,
                user_agent_extra=f"lambda-deno-spawn/{__version__}",
            ),
        )


def _method(client: Any, operation: str) -> str:
    names: Mapping[str, str] = client.meta.method_to_api_mapping
    return next(method for method, name in names.items() if name == operation)


@contextlib.contextmanager
def _translated(
    what: str = "the command", call: Call | None = None, region: str = ""
) -> Iterator[None]:
    try:
        yield
    except (
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        botocore.parsers.ResponseParserError,
        boto3.exceptions.Boto3Error,
    ) as error:
        raise translate(error, what, call, region) from error
    except ValueError as error:  # of urllib3 and botocore, for what is no address
        raise DeployError(
            f"Cannot complete {what}: {error}; see --region and AWS_ENDPOINT_URL"
        ) from error
    except EOFError as error:
        raise DeployError(
            f"Cannot complete {what}: the profile asks for a code, and there is no "
            "terminal to type it; sign in first"
        ) from error

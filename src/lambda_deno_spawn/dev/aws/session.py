"""Sessions with AWS: credentials, regions and calls.

Knows boto3 and how to configure its clients; only ``errors`` knows boto3 too, to
translate its exceptions. Does not know which calls are made, or why. Specification: AWS
SDK for Python, "Credentials" and "Config Reference".
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import time
from typing import TYPE_CHECKING, Any

import boto3
import boto3.exceptions
import botocore.exceptions
import botocore.parsers
import botocore.waiter
from boto3.s3.transfer import TransferConfig
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.response import StreamingBody

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.aws.errors import AwsError, translate
from lambda_deno_spawn.dev.aws.plan import FUNCTION_SET_UP, Call, Place
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lambda_deno_spawn.dev.aws.plan import Upload, Wait

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
# Names of the token in the request and in the response, where they are not Marker and
# NextMarker.
TOKENS = {
    "FilterLogEvents": ("nextToken", "nextToken"),
    "DescribeLogGroups": ("nextToken", "nextToken"),
    "ListAttachedRolePolicies": ("Marker", "Marker"),
    "ListRolePolicies": ("Marker", "Marker"),
    "ListRuleNamesByTarget": ("NextToken", "NextToken"),
}
REPEAT_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
# Like botocore's FunctionActiveV2, for all states that a function can settle in.
SET_UP = {
    "version": 2,
    "waiters": {
        FUNCTION_SET_UP: {
            "operation": "GetFunction",
            "delay": 1,
            "maxAttempts": 300,
            "acceptors": [
                {
                    "matcher": "path",
                    "argument": "Configuration.State",
                    "expected": state,
                    "state": result,
                }
                for state, result in (
                    ("Active", "success"),
                    ("ActiveNonInvocable", "success"),
                    ("Inactive", "success"),
                    ("Failed", "failure"),
                    ("Pending", "retry"),
                )
            ],
        }
    },
}
ATTEMPTS = 4  # in total; botocore decides which failures it retries


class Aws:
    """A region, with one set of credentials.

    Not thread-safe.
    """

    def __init__(
        self,
        region: str | None = None,
        profile: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Find credentials and region in the places that all AWS tools use.

        Args:
            region: Name of the region; None: that of the environment or the profile.
            profile: Name of the profile; None: that of the environment.
            sleep: Waits for some seconds.

        Raises:
            DeployError: The profile does not exist, no region is set, or one of them
                is empty.
        """
        for option, value in (("--region", region), ("--profile", profile)):
            if value == "":
                raise DeployError(
                    f"Cannot use {option} '': it is empty, perhaps a variable of the "
                    "shell that is not set; give a value, or leave the option out"
                )
        with _translated():
            # boto3 alone among AWS's SDKs does not read AWS_REGION.
            chosen = region or os.environ.get("AWS_REGION")
            self._session = boto3.Session(region_name=chosen, profile_name=profile)
            found = self._session.region_name
        if not found:
            raise DeployError(
                "Cannot choose a region: none is given; use --region, or set "
                "AWS_REGION or the region of the profile"
            )
        self.region: str = found
        self._clients: dict[str, Any] = {}
        self._place: Place | None = None
        self._sleep = sleep

    @property
    def partition(self) -> str:
        """The partition that contains the region; makes no call."""
        try:
            found: str = self._session.get_partition_for_region(self.region)
        except botocore.exceptions.BotoCoreError:
            return "aws"  # a made-up region, for a server at AWS_ENDPOINT_URL
        return found

    @property
    def place(self) -> Place:
        """Region, account and partition; the first access asks AWS for the account."""
        if self._place is None:
            with _translated("sts:GetCallerIdentity", region=self.region):
                identity = self._client("sts").get_caller_identity()
            partition = identity["Arn"].split(":")[1]
            self._place = Place(self.region, identity["Account"], partition)
        return self._place

    def call(
        self, call: Call, *, reads_for_s: float | None = None
    ) -> Mapping[str, Any]:
        """Make a call.

        Args:
            call: The call; its parameters are resolved.
            reads_for_s: Read timeout; such a call is never retried. None: the default.

        Raises:
            AwsError: AWS refused the call, or could not be reached.
        """
        with _translated(str(call), call, self.region):
            client = self._client(call.service, reads_for_s)
            method = getattr(client, _method(client, call.operation))
            response: Mapping[str, Any] = method(**call.parameters)
            # Read bodies here, so that a broken connection is translated too.
            return {
                name: value.read() if isinstance(value, StreamingBody) else value
                for name, value in response.items()
            }

    def find(self, call: Call) -> Mapping[str, Any] | None:
        """Make a call that reads a resource; return None if the resource is missing."""
        try:
            return self.call(call)
        except AwsError as error:
            if error.is_not_found:
                return None
            raise

    def items(
        self, call: Call, items: str, *, may_break_off: bool = False
    ) -> Iterator[Any]:
        """Yield the items of all pages of a list.

        Args:
            call: The call that lists.
            items: Name of the list in its response.
            may_break_off: End the list if AWS does not get further in it; else that
                is an error.

        Raises:
            AwsError: AWS refused a call, could not be reached, or does not get
                further.
        """
        for page in self.pages(call, items, may_break_off=may_break_off):
            yield from page

    def pages(
        self, call: Call, items: str, *, may_break_off: bool = False
    ) -> Iterator[list[Any]]:
        """Yield the pages of a list; some may be empty.

        botocore's paginators are not used: they end with an error when a token is
        repeated, which CloudWatch Logs does while it is still searching.
        """
        sends, receives = TOKENS.get(call.operation, ("Marker", "NextMarker"))
        parameters = dict(call.parameters)
        seen: set[str] = set()
        previous: list[Any] | None = None
        pauses = iter(REPEAT_PAUSES_S)
        while True:
            page = self.call(dataclasses.replace(call, parameters=parameters))
            found = list(page.get(items) or [])
            if found != previous:  # else it is the same page once more
                yield found
            token = page.get(receives)
            if not token:
                return
            previous = None
            if token in seen:
                previous = found
                pause_s = next(pauses, None)
                if pause_s is None and may_break_off:
                    return
                if pause_s is None:
                    raise AwsError(
                        f"Cannot complete {call}: AWS returns the same part of the "
                        "list again and again; try again in a minute"
                    )
                self._sleep(pause_s)
            seen.add(token)
            parameters[sends] = token

    def wait(self, wait: Wait) -> None:
        """Wait until a resource reaches a state.

        Raises:
            AwsError: The resource cannot reach the state, or takes too long.
        """
        with _translated(str(wait), wait.call, self.region):
            client = self._client(wait.call.service)
            if wait.waiter == FUNCTION_SET_UP:
                model = botocore.waiter.WaiterModel(SET_UP)
                waiter = botocore.waiter.create_waiter_with_client(
                    wait.waiter, model, client
                )
            else:
                waiter = client.get_waiter(wait.waiter)
            waiter.wait(**wait.call.parameters)

    def upload(self, upload: Upload, on_progress: Callable[[int], None]) -> None:
        """Upload a file; a failed upload leaves nothing behind.

        Args:
            upload: The file and its destination.
            on_progress: Called from other threads with the number of bytes just sent.
        """
        arn = f"{upload.place.bucket(upload.bucket)}/{upload.key}"
        call = Call("s3", "PutObject", arn)
        content = io.BytesIO(upload.read())
        with _translated(str(upload), call, self.region):
            self._client("s3").upload_fileobj(
                content,
                upload.bucket,
                upload.key,
                ExtraArgs={"ExpectedBucketOwner": upload.place.account},
                Callback=on_progress,
                Config=TransferConfig(max_concurrency=4),
            )

    def signed(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        made_up: str | None = None,
    ) -> dict[str, str]:
        """Return the headers of a request to a function URL, with a signature.

        Args:
            method: HTTP method.
            url: With the query, encoded as it is sent.
            headers: Those that are signed.
            body: All of it.
            made_up: Access key and secret if there are no credentials.

        Raises:
            DeployError: There are no credentials.
        """
        with _translated("the signature"):
            credentials = self._session.get_credentials()
            if credentials is None and made_up is not None:
                credentials = Credentials(made_up, made_up)
            if credentials is None:
                raise botocore.exceptions.NoCredentialsError
            request = AWSRequest(method, url, dict(headers), body)
            SigV4Auth(
                credentials.get_frozen_credentials(), "lambda", self.region
            ).add_auth(request)
        return {name: str(value) for name, value in request.headers.items()}

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
                # The connection of an invocation may be silent for 15 minutes. The
                # operating system sets the time of the first probe: docs/deploy.md,
                # "invoke --remote".
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
    except ValueError as error:  # urllib3 and botocore raise it for a malformed URL
        raise DeployError(
            f"Cannot complete {what}: {error}; see --region and AWS_ENDPOINT_URL"
        ) from error
    except EOFError as error:
        raise DeployError(
            f"Cannot complete {what}: the profile asks for an MFA code, and there is "
            "no terminal to type it in; sign in first"
        ) from error

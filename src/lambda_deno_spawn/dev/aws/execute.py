"""Carries out a plan: step by step, with waits and retries, and reverts on failure.

Knows which failures are retried, which steps are reverted when a later one fails, and
how to upload a file only once. Does not know the purpose of a plan. Specification:
docs/deploy.md, "When something fails".
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from lambda_deno_spawn.dev.aws.errors import THROTTLED, AwsError
from lambda_deno_spawn.dev.aws.plan import (
    Call,
    Only,
    Push,
    Upload,
    Wait,
    part,
    resolve,
)
from lambda_deno_spawn.dev.project.quotas import MB
from lambda_deno_spawn.errors import DeployError, LambdaDenoSpawnError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.dev.aws.plan import Plan, Step
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.package.oci import Blob

# Pauses between retries, 80 s in total: Lambda knows a new role some seconds after IAM.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 15.0, 15.0, 15.0)

# Read timeout of calls that are not retried. Lambda unpacks a layer before it responds;
# giving up earlier would only lose the response.
ONCE_READS_FOR_S = 300.0


class Executor:
    """Carries out one plan.

    Attributes:
        responses: Responses of AWS, by the keys of the steps.
        done: Descriptions of the steps that are done.
    """

    def __init__(
        self,
        aws: Aws,
        log: TextIO,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.responses: dict[str, Mapping[str, Any]] = {}
        self.done: list[str] = []
        self._aws = aws
        self._log = log
        self._sleep = sleep
        self._undo: list[tuple[Call | Wait | Only, ...]] = []

    def run(self, plan: Plan) -> None:
        """Carry out all steps; if one fails, revert those that are not settled.

        Raises:
            DeployError: A step failed. The message says whether steps were reverted.
        """
        try:
            for step in plan.steps:
                self._do(step)
        except LambdaDenoSpawnError as error:
            self._say_done("Done before this failed")
            raise DeployError(f"{error}{self._revert()}") from error
        except BaseException:  # Ctrl-C, SIGTERM, SIGHUP, or a fault of this program
            self._say_done("Interrupted after")
            if self.done:
                self._say("Run the same command again to continue from here.")
            raise

    def _do(self, step: Step) -> None:
        if isinstance(step.action, Wait) and self._is_reached(step.action):
            return
        response: Mapping[str, Any] = {}
        self._say(str(step.action))
        match step.action:
            case Wait(waiter, call):
                self._wait(Wait(waiter, self._ready(call)))
            case Upload():
                self._upload(step.action)
            case Push():
                response = self.responses[step.key] = self._push(step.action)
            case Call():
                response = self._call(step.action, step.retry_while)
                if step.key:
                    self.responses[step.key] = response
                # Only after the call succeeded: a refused call must not be reverted.
                if step.undo:
                    self._undo.append(step.undo)
        if not isinstance(step.action, Wait):
            self.done.append(str(step.action))
        if step.settles:
            self._undo.clear()
        if step.digest is not None:
            _compare(step, response, *step.digest)

    def _wait(self, wait: Wait) -> None:
        """Wait, and go on waiting when AWS does not answer for a while."""
        for pause_s in PAUSES_S:
            try:
                return self._aws.wait(wait)
            except AwsError as error:
                if not error.is_passing:
                    raise
                self._say(f"  {error.detail}; retrying in {pause_s:g} s")
            self._sleep(pause_s)
        return self._aws.wait(wait)

    def _is_reached(self, wait: Wait) -> bool:
        """Return whether an earlier response has the wanted state already."""
        if wait.unless is None:
            return False
        result, value = wait.unless
        return bool(part(self.responses.get(result.step, {}), result.name) == value)

    def _call(self, call: Call, retry_while: tuple[str, ...] = ()) -> Mapping[str, Any]:
        ready = self._ready(call)
        for pause_s in PAUSES_S:
            try:
                return self._make(ready)
            except AwsError as error:
                is_new = any(text in error.detail for text in retry_while)
                # Also after botocore's own retries, which last some seconds only.
                is_early = error.code in THROTTLED
                if not is_new and not is_early and not error.is_in_progress:
                    raise
                self._say(f"  {error.detail}; retrying in {pause_s:g} s")
            self._sleep(pause_s)
        return self._make(ready)

    def _make(self, call: Call) -> Mapping[str, Any]:
        """Make a call; succeed also if its goal is reached already.

        This very call may have reached it: botocore retries a call if its response is
        lost.
        """
        try:
            if call.is_repeatable:
                return self._aws.call(call)
            return self._aws.call(call, reads_for_s=ONCE_READS_FOR_S)
        except AwsError as error:
            if error.is_there_already or (error.is_not_found and call.is_removal):
                return {}
            raise

    def _ready(self, call: Call) -> Call:
        parameters = resolve(call.parameters, self.responses)
        return dataclasses.replace(call, parameters=parameters)

    def _revert(self) -> str:
        """Revert the steps that are not settled, last first; describe the result."""
        if not self._undo:
            return ""
        is_reverted = False
        for undo in reversed(self._undo):
            for action in undo:
                try:
                    if not self._revert_one(action):
                        break
                    is_reverted = True
                except DeployError as error:
                    return (
                        f"; reverting failed too: {error}; run the same command again "
                        "once the cause is fixed"
                    )
        if is_reverted:
            return "; the earlier changes to the function were reverted"
        return "; what was created stays, and the same command continues from there"

    def _revert_one(self, action: Call | Wait | Only) -> bool:
        """Revert a step; return False if the current state forbids it."""
        if isinstance(action, Only):
            try:
                found = part(self._aws.call(action.asks), action.name)
            except AwsError:
                return False  # the current state is unknown
            if found != action.value:
                return False
            action = action.call
        self._say(f"revert: {action}")
        if isinstance(action, Wait):
            self._wait(action)
        else:
            self._call(action)
        return True

    def _say(self, text: str) -> None:
        self._log.write(f"{text}\n")
        self._log.flush()

    def _say_done(self, heading: str) -> None:
        if self.done:
            self._say(f"{heading}: {'; '.join(self.done)}")

    def _push(self, push: Push) -> Mapping[str, Any]:
        """Push an image; return its name with its digest, as ``ImageUri``.

        The registry's address is AWS's to say: it differs between partitions.
        """
        from lambda_deno_spawn.dev.aws.registry import ecr_login
        from lambda_deno_spawn.dev.package.registry import Reference, Registry

        arn = push.place.repository(push.repository, push.account)
        names: dict[str, Any] = {"repositoryNames": [push.repository]}
        if push.account is not None:
            names["registryId"] = push.account
        found = self._call(Call("ecr", "DescribeRepositories", arn, names))
        uri = found["repositories"][0]["repositoryUri"]
        # A tag of its own for each digest, for repositories whose tags are immutable.
        tag = push.image.manifest.digest.partition(":")[2][:16]
        reference = Reference.parse(f"{uri}:{tag}")
        login = ecr_login(self._aws, reference.host)
        with Registry(reference, login, sleep=self._sleep) as registry:
            return {"ImageUri": registry.push(push.image, self._say_blob)}

    def _say_blob(self, blob: Blob, is_sent: bool) -> None:
        if is_sent:
            size = f"{blob.size_bytes / MB:.2f} MB"
            self._say(f"  {blob.digest[:19]} {size} pushed")

    def _upload(self, upload: Upload) -> None:
        """Send a file unless it is in the bucket already; its key is its digest."""
        arn = upload.place.bucket(upload.bucket)
        at = {"Bucket": upload.bucket, "ExpectedBucketOwner": upload.place.account}
        if self._aws.find(Call("s3", "HeadBucket", arn, at)) is None:
            if not upload.is_ours:
                raise DeployError(
                    f"Cannot upload to the bucket {upload.bucket!r}: it does not "
                    "exist; create it, or leave out --bucket"
                )
            for action in bucket_steps(upload):
                if isinstance(action, Wait):
                    self._wait(action)
                else:
                    self._call(action)
        where = f"{arn}/{upload.key}"
        head = Call("s3", "HeadObject", where, {**at, "Key": upload.key})
        if self._aws.find(head) is not None:
            self._say("  uploaded before")
            return
        progress = Progress(upload.path.stat().st_size, self._log)
        try:
            self._aws.upload(upload, progress.add)
        finally:
            progress.end()


def _compare(step: Step, response: Mapping[str, Any], name: str, sent: str) -> None:
    """Compare the digest that AWS returned with that of the bytes sent.

    Raises:
        DeployError: They differ.
    """
    found = part(response, name)
    if found is not None and found != sent:
        raise DeployError(
            f"Cannot continue after {step.action}: AWS received other bytes than were "
            f"sent, their SHA-256 is {found} instead of {sent}; check what else writes "
            "to the package or its bucket, and run the command again"
        )


def bucket_steps(upload: Upload) -> Sequence[Call | Wait]:
    """Return the steps that create our bucket and wait until it can be used.

    Since 2023, S3 encrypts new buckets and blocks public access to them by default.
    """
    arn = upload.place.bucket(upload.bucket)
    at = {"Bucket": upload.bucket}
    region = upload.place.region
    # us-east-1 is the default and must not be named: S3 API reference, CreateBucket.
    location = (
        {}
        if region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    return (
        Call("s3", "CreateBucket", arn, {**at, **location}),
        Wait("bucket_exists", Call("s3", "HeadBucket", arn, at)),
    )


class Progress:
    """Shows the progress of an upload in one line of a terminal; else nothing."""

    def __init__(self, size_bytes: int, log: TextIO) -> None:
        self._size_bytes = size_bytes
        self._sent_bytes = 0
        self._shown = -1
        self._lock = threading.Lock()  # parts are sent by threads
        self._log = log
        self._is_shown = log.isatty()

    def add(self, count_bytes: int) -> None:
        """Count bytes as sent; a negative count: they have to be sent again."""
        with self._lock:
            self._sent_bytes += count_bytes
            percent = 100 * self._sent_bytes // max(self._size_bytes, 1)
            if self._is_shown and percent != self._shown:
                self._shown = percent
                size = f"{self._size_bytes / MB:.1f} MB"
                self._log.write(f"\r  {percent:3} % of {size}")
                self._log.flush()

    def end(self) -> None:
        """End the line."""
        if self._is_shown and self._shown >= 0:
            self._log.write("\n")

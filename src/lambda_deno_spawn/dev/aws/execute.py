"""A plan, carried out: step by step, with waiting, patience and a way back.

Knows in which order things happen, what is tried again, what is taken back when a step
fails, and how a file gets into a bucket once. Refuses to know what a plan is for.
Specification: docs/deploy.md, "When something fails".
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from lambda_deno_spawn.dev.aws.errors import THROTTLED, AwsError
from lambda_deno_spawn.dev.aws.plan import Call, Only, Upload, Wait, part, resolve
from lambda_deno_spawn.dev.project.quotas import MB
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lambda_deno_spawn.dev.aws.plan import Plan, Step
    from lambda_deno_spawn.dev.aws.session import Aws

# A role is known to Lambda some seconds after IAM has it: 80 s in all.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 15.0, 15.0, 15.0)

# A layer is unpacked before its version is answered; nothing is won by giving up.
ONCE_READS_FOR_S = 300.0


class Executor:
    """Steps of a plan being done.

    Attributes:
        answers: What AWS answered, by the keys of the steps.
        done: What was done, in words.
    """

    def __init__(
        self,
        aws: Aws,
        log: TextIO,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.done: list[str] = []
        self._aws = aws
        self._log = log
        self._sleep = sleep
        self._undo: list[tuple[Call | Wait | Only, ...]] = []

    def run(self, plan: Plan) -> None:
        """Do all steps; if one fails, take back what is not settled.

        Raises:
            DeployError: A step failed; it says what was done and what was taken back.
        """
        try:
            for step in plan.steps:
                self._do(step)
        except DeployError as error:
            self._say_done("Done before this failed")
            raise DeployError(f"{error}{self._take_back()}") from error
        except KeyboardInterrupt:
            self._say_done("Interrupted after")
            raise

    def _do(self, step: Step) -> None:
        if isinstance(step.action, Wait) and self._is_answered(step.action):
            return
        answer: Mapping[str, Any] = {}
        self._say(str(step.action))
        match step.action:
            case Wait(waiter, call):
                self._aws.wait(Wait(waiter, self._ready(call)))
            case Upload():
                self._upload(step.action)
            case Call():
                answer = self._call(step.action, step.retry_while)
                if step.key:
                    self.answers[step.key] = answer
                # Not before: what AWS refused must not be taken back.
                if step.undo:
                    self._undo.append(step.undo)
        if not isinstance(step.action, Wait):
            self.done.append(str(step.action))
        if step.settles:
            self._undo.clear()
        if step.digest is not None:
            _compare(step, answer, *step.digest)

    def _is_answered(self, wait: Wait) -> bool:
        """True if an earlier step has told what would be waited for."""
        if wait.unless is None:
            return False
        answer, value = wait.unless
        return bool(part(self.answers.get(answer.step, {}), answer.name) == value)

    def _call(self, call: Call, retry_while: tuple[str, ...] = ()) -> Mapping[str, Any]:
        ready = self._ready(call)
        for pause_s in PAUSES_S:
            try:
                return self._make(ready)
            except AwsError as error:
                is_new = any(text in error.detail for text in retry_while)
                is_early = error.code in THROTTLED and not ready.is_repeatable
                if not is_new and not is_early and not error.is_in_progress:
                    raise
                self._say(f"  {error.detail}; again in {pause_s:g} s")
            self._sleep(pause_s)
        return self._make(ready)

    def _make(self, call: Call) -> Mapping[str, Any]:
        """Make a call; that its aim is reached already is no error.

        It may have been reached by this very call: botocore makes it again if its
        answer is lost.
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
        parameters = resolve(call.parameters, self.answers)
        return dataclasses.replace(call, parameters=parameters)

    def _take_back(self) -> str:
        """Undo what is not settled, last first; return what came of it, as words."""
        if not self._undo:
            return ""
        is_back = False
        for undo in reversed(self._undo):
            for action in undo:
                try:
                    if not self._back(action):
                        break
                    is_back = True
                except DeployError as error:
                    return (
                        f"; going back failed too: {error}; the same command "
                        "finishes it once the cause is removed"
                    )
        if is_back:
            return "; what was changed of the function before is taken back"
        return "; what was made stays, and the same command goes on from there"

    def _back(self, action: Call | Wait | Only) -> bool:
        """Take a step back; False: things stand so that it must not be."""
        if isinstance(action, Only):
            try:
                found = part(self._aws.call(action.asks), action.name)
            except AwsError:
                return False  # nobody knows how it stands
            if found != action.value:
                return False
            action = action.call
        self._say(f"back: {action}")
        if isinstance(action, Wait):
            self._aws.wait(action)
        else:
            self._call(action)
        return True

    def _say(self, text: str) -> None:
        self._log.write(f"{text}\n")
        self._log.flush()

    def _say_done(self, heading: str) -> None:
        if self.done:
            self._say(f"{heading}: {'; '.join(self.done)}")
            self._say("The same command goes on from here and finishes it.")

    def _upload(self, upload: Upload) -> None:
        """Send a file unless it is there; its key is a digest of it."""
        arn = upload.place.bucket(upload.bucket)
        at = {"Bucket": upload.bucket, "ExpectedBucketOwner": upload.place.account}
        if self._aws.find(Call("s3", "HeadBucket", arn, at)) is None:
            if not upload.is_ours:
                raise DeployError(
                    f"Cannot upload to the bucket {upload.bucket!r}: there is none; "
                    "create it, or leave out --bucket"
                )
            for action in bucket_steps(upload):
                if isinstance(action, Wait):
                    self._aws.wait(action)
                else:
                    self._call(action)
        where = f"{arn}/{upload.key}"
        head = Call("s3", "HeadObject", where, {**at, "Key": upload.key})
        if self._aws.find(head) is not None:
            self._say("  it is there already")
            return
        progress = Progress(upload.path.stat().st_size, self._log)
        try:
            self._aws.upload(upload, progress.add)
        finally:
            progress.end()


def _compare(step: Step, answer: Mapping[str, Any], name: str, sent: str) -> None:
    """Refuse to go on with other bytes than were sent.

    Raises:
        DeployError: AWS has others.
    """
    found = part(answer, name)
    if found is not None and found != sent:
        raise DeployError(
            f"Cannot go on after {step.action}: AWS has other bytes than were to be "
            f"sent, their SHA-256 is {found} instead of {sent}; see who else writes to "
            "the package or its bucket, and run the command again"
        )


def bucket_steps(upload: Upload) -> Sequence[Call | Wait]:
    """Return what makes a bucket of ours, and waits until requests find it.

    S3 encrypts every new bucket and blocks public access to it by itself, since 2023.
    """
    arn = upload.place.bucket(upload.bucket)
    at = {"Bucket": upload.bucket}
    region = upload.place.region
    # S3 API reference, CreateBucket: us-east-1 is not to be named.
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
    """How much of a file is sent, in one line of a terminal; nothing elsewhere."""

    def __init__(self, size_bytes: int, log: TextIO) -> None:
        self._size_bytes = size_bytes
        self._sent_bytes = 0
        self._shown = -1
        self._lock = threading.Lock()  # parts are sent by threads
        self._log = log
        self._is_shown = log.isatty()

    def add(self, count_bytes: int) -> None:
        """Count bytes as sent; negative: they have to be sent again."""
        with self._lock:
            self._sent_bytes += count_bytes
            percent = 100 * self._sent_bytes // max(self._size_bytes, 1)
            if self._is_shown and percent != self._shown:
                self._shown = percent
                size = f"{self._size_bytes / MB:.1f} MB"
                self._log.write(f"\r  {percent:3} % of {size}")
                self._log.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._is_shown and self._shown >= 0:
            self._log.write("\n")

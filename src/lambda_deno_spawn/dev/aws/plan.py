"""What is to be done in AWS, as data: calls, waits, uploads, in order.

Knows how a call is written down, what it acts on, which IAM action it takes, and how a
later step uses the answer of an earlier one. Refuses to know how calls are made: a plan
can be printed and compared. Specification: AWS Service Authorization Reference; IAM
User Guide, "IAM ARNs".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# AWS Service Authorization Reference: operations whose action has another name.
ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
}
# What Lambda says of a role that it may not use, or that it does not know yet.
NO_ROLE = "cannot be assumed by Lambda"
# What AWS does twice if it is told twice: the second version of a layer is a new one.
NOT_REPEATABLE = {"lambda:PublishLayerVersion"}
# Of which variables the values are printed; any other may be a secret, whatever it is
# called.
SHOWN_NAME = re.compile(
    r"LAMBDA_DENO_\w+|AWS_LAMBDA_EXEC_WRAPPER|LOG_LEVEL|NODE_ENV|STAGE|TZ"
)
MASK = "***"


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are: a region of an account."""

    region: str
    account: str
    partition: str = "aws"

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"

    def function(self, name: str) -> str:
        """Return a function's ARN."""
        return self._arn("lambda", f"function:{name}")

    def layer(self, name: str) -> str:
        """Return a layer's ARN, without a version."""
        return self._arn("lambda", f"layer:{name}")

    def log_group(self, name: str) -> str:
        """Return a log group's ARN."""
        return self._arn("logs", f"log-group:{name}")

    def role(self, name: str) -> str:
        """Return a role's ARN; roles belong to no region."""
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    def bucket(self, name: str) -> str:
        """Return a bucket's ARN."""
        return f"arn:{self.partition}:s3:::{name}"


@dataclass(frozen=True, slots=True)
class ResultOf:
    """A value that a step will have answered by the time it is needed.

    Attributes:
        step: The step's key.
        name: Which part of its answer.
    """

    step: str
    name: str

    def __str__(self) -> str:
        return f"<{self.name} of {self.step}>"


@dataclass(frozen=True, slots=True)
class FileContent:
    """The bytes of a file, read when the call is made."""

    path: Path


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an AWS API.

    Attributes:
        service: As boto3 names it, such as ``lambda``.
        operation: As its API reference names it, such as ``UpdateFunctionCode``.
        resource: ARN of what it acts on.
        parameters: By the names of the API reference; may hold ``ResultOf`` and
            ``FileContent``.
    """

    service: str
    operation: str
    resource: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.service}:{self.operation} {self.resource}"

    @property
    def action(self) -> str:
        """The IAM action that it takes."""
        name = f"{self.service}:{self.operation}"
        return ACTIONS.get(name, name)

    @property
    def is_repeatable(self) -> bool:
        """False if it must not be made again when its answer is lost."""
        return f"{self.service}:{self.operation}" not in NOT_REPEATABLE

    @property
    def is_removal(self) -> bool:
        """True if its aim is that something is not there."""
        return self.operation.startswith(("Delete", "Detach", "Remove"))


@dataclass(frozen=True, slots=True)
class Wait:
    """Waiting until something has a state.

    Attributes:
        waiter: Name of botocore's waiter.
        call: What it asks, again and again.
        unless: Nothing is waited for if an earlier step answered this value.
    """

    waiter: str
    call: Call
    unless: tuple[ResultOf, str] | None = None

    def __str__(self) -> str:
        return f"wait {self.waiter} {self.call.resource}"


@dataclass(frozen=True, slots=True)
class Only:
    """A call that is made only while something has a state.

    Attributes:
        call: What is made.
        asks: The call that tells the state.
        name: Which part of its answer; dots lead into it.
        value: What that has to be.
    """

    call: Call
    asks: Call
    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.call} if {self.name} is {self.value}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has to be in a bucket; it is sent unless it is there.

    Attributes:
        bucket: Name of the bucket.
        key: Holds the file's digest, so that the same key means the same bytes.
        place: Where the bucket is; it has to be this account's.
        is_ours: The bucket is made if there is none.
    """

    path: Path
    bucket: str
    key: str
    place: Place
    is_ours: bool

    def __str__(self) -> str:
        return f"s3:PutObject {self.place.bucket(self.bucket)}/{self.key}"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        action: What.
        key: Name by which later steps refer to its answer.
        undo: Calls that take it back, if a step up to the next that settles fails.
        settles: Once this is done, nothing before it is taken back any more.
        digest: Part of the answer and what it has to be: SHA-256 of the bytes that
            were sent, in base64; dots lead into the answer.
        retry_while: Made again while AWS refuses it with one of these texts: something
            that was just created has not become known everywhere.
    """

    action: Call | Wait | Upload
    key: str = ""
    undo: tuple[Call | Wait | Only, ...] = ()
    settles: bool = False
    digest: tuple[str, str] | None = None
    retry_while: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between what is there and what is wanted.

    Attributes:
        what: Name of the setting.
        before: As shown; None: there is none.
        after: As shown; None: it goes away.
        loses: Something that is there is removed or replaced for good.
    """

    what: str
    before: str | None
    after: str | None
    loses: bool = False

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.what}: {self.after}"
        if self.after is None:
            return f"- {self.what}: {self.before}"
        return f"~ {self.what}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is different, and what is done about it.

    Attributes:
        changes: For people.
        steps: For AWS; none: there is nothing to do.
        notes: For people: what might be expected and is not done, and why.
    """

    changes: tuple[Change, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def loses(self) -> bool:
        """True if something is removed or replaced."""
        return any(change.loses for change in self.changes)


def resolve(value: Any, answers: Mapping[str, Mapping[str, Any]]) -> Any:
    """Put answers and contents of files in place of what stands for them."""
    match value:
        case ResultOf(step, name):
            return answers[step][name]
        case FileContent(path):
            return path.read_bytes()
        case str() | bytes():
            return value
        case Mapping():
            return {key: resolve(item, answers) for key, item in value.items()}
        case Sequence():
            return [resolve(item, answers) for item in value]
    return value


def part(answer: Mapping[str, Any], name: str) -> Any:
    """Return a part of an answer, None if it has none of that name.

    Args:
        answer: Of AWS.
        name: Dots lead into what is nested.
    """
    found: Any = answer
    for word in name.split("."):
        found = found.get(word) if isinstance(found, Mapping) else None
    return found


def statement(action: str, resource: str) -> str:
    """Return the IAM statement that allows an action."""
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": resource})


def shown_value(name: str, value: str) -> str:
    """Return a variable's value if that can be no secret."""
    return value if SHOWN_NAME.fullmatch(name) else MASK

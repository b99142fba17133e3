"""A plan for AWS, as data: calls, waits and uploads, in order.

Knows how a call is described, the resource it acts on, the IAM action it needs, and how
a later step uses the response to an earlier one. Does not know how calls are made: a
plan can be printed and compared. Specification: AWS Service Authorization Reference;
IAM User Guide, "IAM ARNs".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_deno_spawn.dev.package.oci import Image

# Operations whose IAM action has another name; AWS Service Authorization Reference.
ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
}
# Lambda's text about a role that it may not use, or that it does not know yet.
NO_ROLE = "cannot be assumed by Lambda"
# Our own waiter: botocore's waits for Active, which a function on Managed Instances is
# only once it is published; before that it is ActiveNonInvocable.
FUNCTION_SET_UP = "function_set_up"
# Not idempotent: a second call publishes a second version of the layer.
NOT_REPEATABLE = {"lambda:PublishLayerVersion"}
# Variables whose values are printed. All others may be secrets, whatever their names.
SHOWN_NAME = re.compile(
    r"LAMBDA_DENO_\w+|AWS_LAMBDA_EXEC_WRAPPER|LOG_LEVEL|NODE_ENV|STAGE|TZ"
)
MASK = "***"


@dataclass(frozen=True, slots=True)
class Place:
    """A region of an account."""

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

    def rule(self, name: str) -> str:
        """Return the ARN of a rule of EventBridge's default bus."""
        return self._arn("events", f"rule/{name}")

    def event_source_mapping(self, uuid: str) -> str:
        """Return the ARN of an event source mapping."""
        return self._arn("lambda", f"event-source-mapping:{uuid}")

    def role(self, name: str) -> str:
        """Return a role's ARN; roles belong to no region."""
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    def repository(self, name: str, account: str | None = None) -> str:
        """Return the ARN of a repository for images; None: of this account."""
        owner = account or self.account
        return f"arn:{self.partition}:ecr:{self.region}:{owner}:repository/{name}"

    def bucket(self, name: str) -> str:
        """Return a bucket's ARN."""
        return f"arn:{self.partition}:s3:::{name}"


@dataclass(frozen=True, slots=True)
class ResultOf:
    """A value from the response to an earlier step.

    Attributes:
        step: Key of the step.
        name: Name of the value in the response.
    """

    step: str
    name: str

    def __str__(self) -> str:
        return f"<{self.name} of {self.step}>"


@dataclass(frozen=True, slots=True)
class FileContent:
    """The content of a file, read when the call is made.

    Attributes:
        sha256: Digest that the content has to have, in hexadecimal: of the file that
            the plan is for.
    """

    path: Path
    sha256: str

    def read(self) -> bytes:
        """Return the content.

        Raises:
            DeployError: The file cannot be read, or has changed.
        """
        return _read_unchanged(self.path, self.sha256)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an AWS API.

    Attributes:
        service: Name in boto3, such as ``lambda``.
        operation: Name in the API reference, such as ``UpdateFunctionCode``.
        resource: ARN of the resource that the call acts on.
        parameters: By their names in the API reference; may contain ``ResultOf`` and
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
        """The IAM action that the call needs."""
        name = f"{self.service}:{self.operation}"
        return ACTIONS.get(name, name)

    @property
    def is_repeatable(self) -> bool:
        """False if the call must not be retried when its response is lost."""
        return f"{self.service}:{self.operation}" not in NOT_REPEATABLE

    @property
    def is_removal(self) -> bool:
        """True if the call removes something."""
        return self.operation.startswith(("Delete", "Detach", "Remove"))


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait until a resource reaches a state.

    Attributes:
        waiter: Name of botocore's waiter.
        call: The call that the waiter repeats.
        unless: Skip the wait if an earlier step already returned this value.
    """

    waiter: str
    call: Call
    unless: tuple[ResultOf, str] | None = None

    def __str__(self) -> str:
        return f"wait {self.waiter} {self.call.resource}"


@dataclass(frozen=True, slots=True)
class Only:
    """A call that is made only if a resource is in a state.

    Attributes:
        call: The call to make.
        asks: The call that returns the state.
        name: Name of the state in the response; dots separate nested names.
        value: The value required of the state.
    """

    call: Call
    asks: Call
    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.call} if {self.name} is {self.value}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has to be in a bucket; it is sent only if it is missing.

    Attributes:
        bucket: Name of the bucket.
        sha256: Digest that the file has to have, in hexadecimal.
        place: Region of the bucket, and the account that has to own it.
        is_ours: Create the bucket if it does not exist.
    """

    path: Path
    bucket: str
    sha256: str
    place: Place
    is_ours: bool

    @property
    def key(self) -> str:
        """Name of the object: equal names mean equal content."""
        return f"lambda-deno-spawn/{self.sha256}.zip"

    def read(self) -> bytes:
        """Return the content of the file.

        All of it, and not the file, is sent: an object with other content than its
        name says would be used by every later deployment.

        Raises:
            DeployError: The file cannot be read, or has changed.
        """
        return _read_unchanged(self.path, self.sha256)

    def __str__(self) -> str:
        return f"s3:PutObject {self.place.bucket(self.bucket)}/{self.key}"


@dataclass(frozen=True, slots=True)
class Push:
    """An image that has to be in a repository; only the missing parts are sent.

    The response of this step is a mapping with ``ImageUri``, the image's name with its
    digest.

    Attributes:
        image: The image.
        repository: Name of the repository in ECR.
        place: Region of the repository.
        account: Account of the repository; None: that of the credentials.
    """

    image: Image
    repository: str
    place: Place
    account: str | None = None

    def __str__(self) -> str:
        arn = self.place.repository(self.repository, self.account)
        return f"push {arn}@{self.image.manifest.digest}"


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a plan.

    Attributes:
        action: The action.
        key: Name by which later steps refer to the response.
        undo: Actions that revert this step if a later one fails, up to and including
            the next that settles.
        settles: Once this step is done, the earlier ones are no longer reverted.
        digest: Name of a digest in the response (dots separate nested names), and the
            value it has to have: SHA-256 of the bytes that were sent, in base64.
        retry_while: Retry while AWS refuses the call with one of these texts: a new
            resource is not known in all of AWS at once.
    """

    action: Call | Wait | Upload | Push
    key: str = ""
    undo: tuple[Call | Wait | Only, ...] = ()
    settles: bool = False
    digest: tuple[str, str] | None = None
    retry_while: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between the current and the wanted state, as text.

    Attributes:
        what: Name of the setting.
        before: Current value; None: not set.
        after: Wanted value; None: removed.
        loses: Something is removed or replaced that cannot be restored.
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
    """The changes to make, and the steps that make them.

    Attributes:
        changes: To show to the user.
        steps: To carry out in AWS; empty: nothing has to change.
        notes: To show to the user: what is left unchanged, and why.
    """

    changes: tuple[Change, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def loses(self) -> bool:
        """True if a change removes or replaces something for good."""
        return any(change.loses for change in self.changes)


def resolve(value: Any, responses: Mapping[str, Mapping[str, Any]]) -> Any:
    """Replace ``ResultOf`` and ``FileContent`` by the values they stand for."""
    match value:
        case ResultOf(step, name):
            return responses[step][name]
        case FileContent():
            return value.read()
        case str() | bytes():
            return value
        case Mapping():
            return {key: resolve(item, responses) for key, item in value.items()}
        case Sequence():
            return [resolve(item, responses) for item in value]
    return value


def _read_unchanged(path: Path, sha256: str) -> bytes:
    """Return the content of a file, if it is the one that a plan was made for.

    Another command may have written it again since, or a person at the question.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeployError(
            f"Cannot send {str(path)!r}: {error.strerror or error}; run the command "
            "again"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DeployError(
            f"Cannot send {str(path)!r}: it has changed since this command read it, so "
            "another one writes to the same folder; run the command again"
        )
    return content


def part(response: Mapping[str, Any], name: str) -> Any:
    """Return a value in a response, None if there is none with that name.

    Args:
        response: The response of AWS.
        name: Name of the value; dots separate nested names.
    """
    found: Any = response
    for word in name.split("."):
        found = found.get(word) if isinstance(found, Mapping) else None
    return found


def statement(action: str, resource: str) -> str:
    """Return the IAM statement that allows an action."""
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": resource})


def shown_value(name: str, value: str) -> str:
    """Return a variable's value, masked unless it is certainly not a secret."""
    return value if SHOWN_NAME.fullmatch(name) else MASK

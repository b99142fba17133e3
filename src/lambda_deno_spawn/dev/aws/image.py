"""The repository of a function's image: its name, its policy, and the way into it.

Knows which repositories Lambda can use, and what a repository has to allow. Does not
know how an image is built, nor the protocol of registries. Specification: ECR API
reference; AWS Lambda Developer Guide, "Amazon ECR permissions"; AWS "Lambda quotas".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.plan import Call, Change, Push, Step
from lambda_deno_spawn.dev.aws.registry import HOST
from lambda_deno_spawn.dev.project.aws_keys import REPOSITORY_NAME
from lambda_deno_spawn.dev.project.quotas import MB
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lambda_deno_spawn.dev.aws.plan import Place
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.package.oci import Image

SIZE_LIMIT_BYTES = 10 * 1024 * MB  # uncompressed, so a compressed one is surely smaller
CREATED_BY = {"Key": "created-by", "Value": "lambda-deno-spawn"}
STATEMENT_ID = "LambdaECRImageRetrievalPolicy"  # the name that Lambda gives it, too
LAMBDA = "lambda.amazonaws.com"
ACTIONS = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
# Texts of Lambda about a repository whose policy is too new to be known in all of AWS.
NEW_REPOSITORY_POLICY = ("does not have permission to access the ECR image",)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that is named.

    Attributes:
        account: None: that of the function.
        may_create: Create it if it does not exist.
    """

    name: str
    account: str | None = None
    may_create: bool = False


@dataclass(frozen=True, slots=True)
class FunctionImage:
    """A function's code as a container image.

    Attributes:
        image: The image.
        path: Its layout.
        size_bytes: Of its compressed layers.
        repository: Where it is pushed.
    """

    image: Image
    path: Path
    size_bytes: int
    repository: Repository

    @property
    def digest(self) -> str:
        """Digest of its manifest."""
        return self.image.manifest.digest


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A repository that exists.

    Attributes:
        policy: Its policy; None: it cannot be read, or is not ours to change.
    """

    policy: Mapping[str, Any] | None


def find_repository(
    given: str | None, function: str, place: Place, *, may_create: bool
) -> Repository:
    """Return the repository for the images of a function.

    Args:
        given: Its name, or address and name; None: the function's own.
        function: Name of the function.
        place: Region and account of the function.
        may_create: Create also a repository that was named.

    Raises:
        UsageError: Lambda cannot use it for this function.
    """
    if given is None:
        name = function.lower()
        if not re.fullmatch(REPOSITORY_NAME, name):
            raise UsageError(
                f"Cannot name a repository {name!r} after the function: ECR accepts "
                "2 to 256 lowercase letters and digits, with single . _ - between "
                "them; "
                "set `repository` in [image] of lambda.toml, or --repository"
            )
        return Repository(name, may_create=True)
    host, slash, name = given.partition("/")
    found = HOST.fullmatch(host)
    if not slash or ("." not in host and ":" not in host):
        name, found = given, None
    elif found is None:
        raise UsageError(
            f"Cannot deploy from the repository {given!r}: Lambda takes images only "
            "from Amazon ECR, such as "
            f"{place.account}.dkr.ecr.{place.region}.amazonaws.com/NAME"
        )
    if not re.fullmatch(REPOSITORY_NAME, name):
        raise UsageError(
            f"Cannot use the repository {given!r}: ECR accepts 2 to 256 lowercase "
            "letters and digits, with single . _ - / between them"
        )
    if found is None:
        return Repository(name, None, may_create)
    if found["region"] != place.region:
        raise UsageError(
            f"Cannot deploy from the repository {given!r}: Lambda takes images only "
            f"from the function's region, {place.region}"
        )
    account = None if found["account"] == place.account else found["account"]
    return Repository(name, account, may_create and account is None)


def read_repository(aws: Aws, image: FunctionImage) -> RepositoryState | None:
    """Return the repository of an image, None if it does not exist."""
    repository = image.repository
    arn = aws.place.repository(repository.name, repository.account)
    given: dict[str, Any] = {"repositoryNames": [repository.name]}
    if repository.account is not None:
        given["registryId"] = repository.account
    found = aws.find(Call("ecr", "DescribeRepositories", arn, given))
    if found is None:
        return None
    if repository.account is not None:
        return RepositoryState(None)
    asked = {"repositoryName": repository.name}
    try:
        response = aws.find(Call("ecr", "GetRepositoryPolicy", arn, asked))
    except AwsError as error:
        if error.is_denied:
            return RepositoryState(None)
        raise
    return RepositoryState(
        {} if response is None else json.loads(response["policyText"])
    )


def plan_image(
    image: FunctionImage, current: RepositoryState | None, place: Place
) -> Iterator[tuple[Change | None, Step]]:
    """Yield what brings an image to Lambda; the last step has the key ``image``.

    Raises:
        DeployError: The repository does not exist, and must not be created.
    """
    repository = image.repository
    arn = place.repository(repository.name, repository.account)
    name = {"repositoryName": repository.name}
    if current is None and not repository.may_create:
        advice = (
            "use --create-repository, or another name"
            if repository.account is None
            else "only its own account can create it"
        )
        raise DeployError(
            f"Cannot push to the repository {arn}: it does not exist; {advice}"
        )
    if current is None:
        created = Call("ecr", "CreateRepository", arn, {**name, "tags": [CREATED_BY]})
        yield Change("repository", None, repository.name), Step(created)
    policy = {} if current is None else current.policy
    if policy is not None and not _lets_lambda_read(policy):
        after = _with_lambda(policy, place)
        given = {**name, "policyText": json.dumps(after)}
        change = Change(f"repository policy of {repository.name}", None, "Lambda reads")
        yield change, Step(Call("ecr", "SetRepositoryPolicy", arn, given))
    push = Push(image.image, repository.name, place, repository.account)
    yield None, Step(push, key="image")


def check_image_size(name: str, image: FunctionImage) -> None:
    """Reject an image that is too large for Lambda even when it is compressed.

    Raises:
        UsageError: It is.
    """
    if image.size_bytes > SIZE_LIMIT_BYTES:
        raise UsageError(
            f"Cannot deploy {name!r}: its image has {image.size_bytes / MB:.0f} MB "
            f"compressed, and Lambda accepts {SIZE_LIMIT_BYTES // MB} MB uncompressed; "
            "choose a smaller base, or leave out what the handler does not need"
        )


def _lets_lambda_read(policy: Mapping[str, Any]) -> bool:
    allowed: set[str] = set()
    for statement in policy.get("Statement") or ():
        principal = statement.get("Principal")
        services = principal.get("Service") if isinstance(principal, dict) else None
        if statement.get("Effect") == "Allow" and LAMBDA in _listed(services):
            allowed.update(_listed(statement.get("Action")))
    return bool(allowed & {"ecr:*", "*"}) or allowed >= set(ACTIONS)


def _listed(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return [] if value is None else [str(value)]


def _with_lambda(policy: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return a policy that lets this account's functions read images, too."""
    added = {
        "Sid": STATEMENT_ID,
        "Effect": "Allow",
        "Principal": {"Service": LAMBDA},
        "Action": list(ACTIONS),
        "Condition": {"StringLike": {"aws:sourceArn": place.function("*")}},
    }
    kept = [
        statement for statement in policy.get("Statement") or ()
        if statement.get("Sid") != STATEMENT_ID
    ]  # fmt: skip
    return {
        "Version": policy.get("Version") or "2012-10-17",
        "Statement": [*kept, added],
    }

"""Whether an argument means another function in AWS, or another account.

Knows how to ask AWS for the other function. Does not know how an argument is parsed:
that is in ``dev.project.target``. Specification:
docs/deploy.md, "Which function is meant".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.read import read_function
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.project.target import Target


def check_account(aws: Aws, target: Target) -> None:
    """Reject a function in another account than that of the credentials.

    Raises:
        UsageError: The ARN names another account, or another partition.
    """
    if target.partition not in (None, aws.place.partition):
        raise UsageError(
            f"Cannot use {target.argument!r}: it is in the partition "
            f"{target.partition}, and these credentials are for {aws.place.partition}; "
            "correct the ARN, or choose another --profile"
        )
    if target.account is not None and target.account != aws.place.account:
        raise UsageError(
            f"Cannot use {target.argument!r}: it belongs to the account "
            f"{target.account}, and these credentials to {aws.place.account}; choose "
            "another --profile"
        )


def check_ambiguity(aws: Aws, target: Target, *, has_name_option: bool = False) -> None:
    """Reject an argument that means both a local folder and another function in AWS.

    Args:
        aws: Where to look for the other function.
        target: The function in the folder.
        has_name_option: The command has an option ``--name`` for a function in AWS.

    Raises:
        UsageError: There is another function, or these credentials may not look.
    """
    other = target.other
    if other is None:
        return
    try:
        if read_function(aws, other) is None:
            return
        found = f"there is a function {other!r} in {aws.region}"
    except AwsError as error:
        if not error.is_denied:
            raise
        found = (
            f"these credentials may not see whether there is a function {other!r} in "
            f"{aws.region}"
        )
    by_option = f"--name {other} or " if has_name_option else ""
    first, second = f"'./{other}'", aws.place.function(other)
    if target.qualifier is not None:
        first = f"{first} with --qualifier {target.qualifier}"
        second = f"{second}:{target.qualifier}"
    raise UsageError(
        f"Cannot tell which function {target.argument!r} means: the folder {other!r} "
        f"contains {target.name!r}, and {found}; give {first} for the first, "
        f"{by_option}{second} for the second"
    )

"""Permissions that a function's role needs for the secrets in its variables.

Knows the actions and the ARNs of parameters and secrets. Does not know their values,
nor how a role is changed. Specification: docs/secrets.md; AWS Service Authorization
Reference, "AWS Systems Manager" and "AWS Secrets Manager".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.project.secrets import SECRETS_VARIABLE, references_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.aws.plan import Place

ACTIONS = {
    "ssm": "ssm:GetParameters",
    "secretsmanager": "secretsmanager:GetSecretValue",
}
# Names of the statements, by which a later deployment knows them.
SIDS = {"ssm": "Parameters", "secretsmanager": "Secrets"}


def with_secrets(
    policy: Mapping[str, Any], variables: Mapping[str, str], place: Place
) -> dict[str, Any]:
    """Return a role's policy with what the secrets of a function need.

    Keys of one's own that encrypt them are not known here, so none is allowed.
    """
    return {
        **policy,
        "Statement": [*policy["Statement"], *secret_statements(variables, place)],
    }


def secret_statements(
    variables: Mapping[str, str], place: Place
) -> list[dict[str, Any]]:
    """Return the statements that allow to read the secrets, and no others."""
    arns: dict[str, list[str]] = {}
    for store, name in references_in(variables.get(SECRETS_VARIABLE, "")):
        arn = _arn(store, name, place)
        if arn not in arns.setdefault(store, []):
            arns[store].append(arn)
    return [
        {
            "Sid": SIDS[store],
            "Effect": "Allow",
            "Action": [ACTIONS[store]],
            "Resource": found,
        }
        for store, found in sorted(arns.items())
    ]


def _arn(store: str, name: str, place: Place) -> str:
    if name.startswith("arn:"):
        return name
    begin = f"arn:{place.partition}:{store}:{place.region}:{place.account}"
    if store == "ssm":
        # A version or label after a colon is not a part of the resource.
        path = name.partition(":")[0].lstrip("/")
        return f"{begin}:parameter/{path}"
    # Secrets Manager puts a hyphen and six characters after the name.
    return f"{begin}:secret:{name}-??????"

"""References to secrets in ``lambda.toml``: ``{ from = "ssm", name = "/orders/db" }``.

Knows their form, and the setting of the runtime that they become. Does not know the
secrets: the runtime fetches them. Specification: docs/secrets.md, decision 0043.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import SECRET_STORES, WITHHELD_FROM_SECRETS
from lambda_deno_spawn.dev.project.function import variable_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRETS_VARIABLE = "LAMBDA_DENO_SECRETS"
MEMBERS = ("from", "key", "name")
# Names, paths, ARNs, and versions and labels of parameters.
NAMES = {
    "ssm": re.compile(r"[A-Za-z0-9_.:/-]{1,2048}"),
    "secretsmanager": re.compile(r"[A-Za-z0-9/_+=.@:-]{1,2048}"),
}
EXAMPLE = '{ from = "ssm", name = "/orders/db" }'


def reference_text(variable: str, table: Mapping[str, object]) -> str:
    """Return a reference as the runtime reads it: ``ssm:/orders/db``.

    Args:
        variable: The variable whose value it is.
        table: The reference in the project file.

    Raises:
        ValueError: It is not a reference; the text says why.
    """
    problem = variable_problem(variable, "")
    if problem is None and variable.startswith(WITHHELD_FROM_SECRETS):
        problem = (
            "a variable that begins with AWS_ or LAMBDA_ cannot be a secret; choose "
            "another name"
        )
    if problem is not None:
        raise ValueError(problem)
    for member in table:
        if member not in MEMBERS:
            near = difflib.get_close_matches(member, MEMBERS, 1)
            hint = f"did you mean {near[0]}? It" if near else "it"
            raise ValueError(
                f"the member {member!r} is unknown; {hint} has {', '.join(MEMBERS)}"
            )
    store, name, key = (table.get(member) for member in ("from", "name", "key"))
    if store not in SECRET_STORES:
        raise ValueError(
            f"from is {store!r}; expected one of {', '.join(SECRET_STORES)}, as in "
            f"{EXAMPLE}"
        )
    if not isinstance(name, str) or not NAMES[str(store)].fullmatch(name):
        raise ValueError(
            f"name is {name!r}; expected the name or ARN of the parameter or secret, "
            f"as in {EXAMPLE}"
        )
    if key is None:
        return f"{store}:{name}"
    if not isinstance(key, str) or not re.fullmatch(r"[^\s#]+", key):
        raise ValueError(
            f"key is {key!r}; expected a member of the JSON object in the secret, "
            "without blanks and #"
        )
    return f"{store}:{name}#{key}"


def secrets_variable(references: Mapping[str, str]) -> dict[str, str]:
    """Return the variable with the runtime's setting; empty without references."""
    if not references:
        return {}
    items = sorted(references.items())
    return {SECRETS_VARIABLE: " ".join(f"{name}={text}" for name, text in items)}


def references_in(text: str) -> list[tuple[str, str]]:
    """Return store and name of each reference in a value of the runtime's setting."""
    found = []
    for item in text.split():
        store, _, place = item.partition("=")[2].partition(":")
        found.append((store, place.partition("#")[0]))
    return found

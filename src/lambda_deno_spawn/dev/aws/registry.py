"""AWS's registry for container images: its addresses, and how to log in.

Knows Elastic Container Registry (ECR). Does not know images, nor the protocol of
registries. Specification: ECR API reference, GetAuthorizationToken; ECR User Guide,
"Private registry authentication".
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.aws.plan import Call
from lambda_deno_spawn.errors import DeployError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.aws.session import Aws

HOST = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)


def ecr_region(host: str) -> str | None:
    """Return the region of a registry of AWS; None: it is another one."""
    found = HOST.fullmatch(host)
    return None if found is None else found["region"]


def ecr_login(aws: Aws, host: str) -> tuple[str, str]:
    """Return name and password, which are valid for twelve hours.

    Args:
        aws: A session in the registry's region.
        host: The registry.

    Raises:
        DeployError: AWS refused it.
    """
    call = Call("ecr", "GetAuthorizationToken", "*")
    data = aws.call(call).get("authorizationData") or [{}]
    token = data[0].get("authorizationToken") or ""
    name, _, password = base64.b64decode(token).decode().partition(":")
    if not password:
        raise DeployError(f"Cannot log in to {host}: AWS sent no password")
    return name, password

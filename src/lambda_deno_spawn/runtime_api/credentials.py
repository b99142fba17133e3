"""The endpoint in the execution environment that credentials are fetched from.

Knows how the request looks. Does not know what the response means, nor when
credentials are needed: see ``serving.credentials``. AWS SDKs and Tools Reference Guide,
"Container credential provider"; decision 0023.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from lambda_deno_spawn.runtime_api.calls import Address, call_once

DEFAULT_PORT = 80


class CredentialsEndpoint:
    """Fetches credentials; ``serving.credentials.Source``."""

    async def credentials(self, uri: str, token: str) -> bytes:
        """Fetch credentials as JSON.

        Args:
            uri: Absolute, as ``config.Settings.credentials_uri``.
            token: Sent for authorization; empty: none.

        Raises:
            RuntimeApiError: There are none.
        """
        url = urlsplit(uri)
        address = Address(url.hostname or "", url.port or DEFAULT_PORT, url.netloc)
        target = url._replace(scheme="", netloc="").geturl() or "/"
        fields = [("Authorization", token)] if token else []
        response = await call_once(address, "credentials", "GET", target, fields)
        return response.body

"""Secrets that variables refer to, fetched once before the first process starts.

Knows how Systems Manager and Secrets Manager are asked, how such a request is signed,
and how long the start may wait for it. Values go into the environment of processes and
nowhere else: no message quotes one. Does not know asyncio, which is not imported yet.
Specification: docs/secrets.md, decision 0043; AWS General Reference, "Signing AWS API
requests"; API references of both services.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lambda_deno_spawn.errors import SecretError
from lambda_deno_spawn.records import NamedTuple
from lambda_deno_spawn.strict_json import loads

if TYPE_CHECKING:
    import http.client
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lambda_deno_spawn.config import SecretReference

# Lambda gives init 10 s; the rest is for the handler's module.
LIMIT_S = 5.0
ATTEMPT_LIMIT_S = 2.5
PAUSES_S = (0.1, 0.3)  # between attempts
NAMES_LIMIT = 10  # of a call of GetParameters
BODY_LIMIT_BYTES = 1024 * 1024  # ten parameters have 80 KB, a secret has 64 KB
DETAIL_LIMIT = 400  # characters of AWS's text in a message
THROTTLED = 429
FAULTS = 500  # the lowest status of a fault of the server
# Error names of both services that mean "too many requests".
THROTTLING = ("ThrottlingException", "TooManyRequestsException")
# Files in which Linux systems keep certificates, Lambda's first. An interpreter that
# was built for another system looks elsewhere.
CERTIFICATES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
)


class Service(NamedTuple):
    """A service that keeps secrets.

    Attributes:
        host: First part of its host name, and its name in signatures.
        endpoint_variable: Names another address, as for AWS's SDKs.
        target: Beginning of the header that names the operation.
    """

    host: str
    endpoint_variable: str
    target: str


SERVICES = {
    "ssm": Service("ssm", "AWS_ENDPOINT_URL_SSM", "AmazonSSM"),
    "secretsmanager": Service(
        "secretsmanager", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "secretsmanager"
    ),
}


class Keys(NamedTuple):
    """Credentials that sign requests."""

    access_key_id: str
    secret_access_key: str
    session_token: str

    def __repr__(self) -> str:
        return "Keys(***)"


def fetch_secrets(
    references: Sequence[SecretReference],
    environ: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Return the values of secrets, by the variables that refer to them.

    Args:
        references: What to fetch.
        environ: Region, credentials and endpoints, as AWS's SDKs find them.
        clock: Seconds of the monotonic clock.
        sleep: Waits so many seconds.

    Raises:
        SecretError: A secret cannot be fetched, or cannot be a variable.
    """
    end_s = clock() + LIMIT_S
    found: dict[tuple[str, str], str] = {}
    for store, service in SERVICES.items():
        names = list(
            dict.fromkeys(one.name for one in references if one.store == store)
        )
        if not names:
            continue
        client = Client(service, environ, end_s, clock, sleep)
        try:
            fetch = _parameters if store == "ssm" else _secrets
            for name, value in fetch(client, names):
                found[store, name] = value
        finally:
            client.close()
    return {
        one.variable: _variable(one, found[one.store, one.name]) for one in references
    }


def _parameters(client: Client, names: list[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(names), NAMES_LIMIT):
        some = names[start : start + NAMES_LIMIT]
        what = f"the parameters {', '.join(some)}"
        answer = client.call(
            "GetParameters", {"Names": some, "WithDecryption": True}, what
        )
        values = _values(_list(answer.get("Parameters")))
        for name in some:
            if name not in values:
                raise SecretError(
                    f"Cannot fetch the parameter {name!r}: there is none of this name "
                    f"in {client.region}, or none that this function may read; create "
                    "it, or correct the reference"
                )
            yield name, values[name]


def _values(parameters: list[object]) -> dict[str, str]:
    """Return the values of parameters, by all names that they can be asked for."""
    values: dict[str, str] = {}

    def version(parameter: dict[str, Any]) -> int:
        found = parameter.get("Version")
        return found if isinstance(found, int) else 0

    found = [parameter for parameter in parameters if isinstance(parameter, dict)]
    # The name alone means the newest version, which then comes last here.
    for parameter in sorted(found, key=version):
        value = parameter.get("Value")
        if not isinstance(value, str):
            continue
        # A name with a version or a label comes back in two parts.
        selector = str(parameter.get("Selector") or "").removeprefix(":")
        for name in (parameter.get("Name"), parameter.get("ARN")):
            values[str(name)] = value
            values[f"{name}:{selector or version(parameter)}"] = value
    return values


def _secrets(client: Client, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        what = f"the secret {name!r}"
        answer = client.call("GetSecretValue", {"SecretId": name}, what)
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise SecretError(
                f"Cannot use {what}: it is binary, and a variable is text; store it as "
                "text"
            )
        yield name, value


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _variable(reference: SecretReference, value: str) -> str:
    """Return the value of a variable: a secret, or one member of it."""
    where = f"the secret of the variable {reference.variable!r} ({reference.text})"
    if reference.key:
        try:
            members = loads(value.encode())
        except ValueError:
            members = None
        if not isinstance(members, dict):
            raise SecretError(
                f"Cannot use {where}: it is not a JSON object, so it has no member; "
                f"leave out '#{reference.key}'"
            )
        member = members.get(reference.key)
        if isinstance(member, bool):
            value = "true" if member else "false"
        elif isinstance(member, str | int | float):
            value = str(member)
        else:
            state = "not text" if reference.key in members else "missing"
            raise SecretError(
                f"Cannot use {where}: the member {reference.key!r} is {state}; "
                "correct the reference"
            )
    if "\0" in value:
        raise SecretError(f"Cannot use {where}: it contains a NUL character")
    return value


class Client:
    """Calls one service; every call ends in time.

    Not for concurrent use.

    Attributes:
        region: Region of the service.
    """

    def __init__(
        self,
        service: Service,
        environ: Mapping[str, str],
        end_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Connect to nothing yet.

        Raises:
            SecretError: There is no region, or there are no credentials.
        """
        self.region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", "")
        if not self.region:
            raise SecretError(
                "Cannot fetch secrets: there is no region; set AWS_REGION"
            )
        self._service = service
        self._environ = environ
        self._end_s = end_s
        self._clock = clock
        self._sleep = sleep
        self._connection: http.client.HTTPConnection | None = None
        given = environ.get(service.endpoint_variable) or environ.get(
            "AWS_ENDPOINT_URL"
        )
        self._url = urlsplit(given or f"https://{_host(service.host, self.region)}")
        self._keys = _keys(environ)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(
        self, operation: str, parameters: Mapping[str, object], what: str
    ) -> Mapping[str, Any]:
        """Make a call; try again after a fault of the network or of the service.

        Args:
            operation: Name of the operation.
            parameters: Its parameters.
            what: What it fetches, for messages.

        Raises:
            SecretError: AWS refused it, or could not be reached in time.
        """
        import http.client
        import json

        body = json.dumps(parameters).encode()
        reason = ""
        for pause_s in (*PAUSES_S, None):
            try:
                status, answer = self._send(operation, body)
            except TimeoutError:
                reason = "no answer"
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "strerror", None) or str(error) or repr(error)
            else:
                members = _object(answer)
                if status == http.client.OK and members is not None:
                    return members
                code, detail = _error(members)
                reason = f"{code or f'status {status}'}: {detail}".rstrip(": ")
                is_passing = status >= FAULTS or status == THROTTLED
                if not is_passing and code not in THROTTLING and status != 200:
                    raise SecretError(
                        f"Cannot fetch {what}: AWS refused: {reason}; see what the "
                        "function's role has to allow in docs/secrets.md"
                    )
            self.close()
            if pause_s is None or self._clock() + pause_s >= self._end_s:
                break
            self._sleep(pause_s)
        raise SecretError(
            f"Cannot fetch {what} from {self._url.netloc}: {reason}; a function in a "
            "VPC needs a VPC endpoint for the service, or internet access"
        )

    def _send(self, operation: str, body: bytes) -> tuple[int, bytes]:
        left_s = min(self._end_s - self._clock(), ATTEMPT_LIMIT_S)
        if left_s <= 0:
            raise TimeoutError
        connection = self._connected(left_s)
        headers = signed_headers(
            self._keys,
            self._service,
            self.region,
            self._url.netloc,
            operation,
            body,
            time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        )
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        answer = response.read(BODY_LIMIT_BYTES + 1)
        if len(answer) > BODY_LIMIT_BYTES:
            raise OSError(0, "the answer is too large")
        return response.status, answer

    def _connected(self, limit_s: float) -> http.client.HTTPConnection:
        import http.client

        if self._connection is None:
            host = self._url.hostname or ""
            if self._url.scheme == "https":
                self._connection = http.client.HTTPSConnection(
                    host,
                    self._url.port,
                    timeout=limit_s,
                    context=_tls(self._environ),
                )
            else:
                self._connection = http.client.HTTPConnection(
                    host, self._url.port, timeout=limit_s
                )
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(limit_s)
        return self._connection


def _host(name: str, region: str) -> str:
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{name}.{region}.{suffix}"


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    import ssl
    from pathlib import Path

    given = environ.get("AWS_CA_BUNDLE") or environ.get("SSL_CERT_FILE")
    default = ssl.get_default_verify_paths()
    if given is None and not (default.cafile or default.capath):
        given = next((path for path in CERTIFICATES if Path(path).is_file()), None)
    return ssl.create_default_context(cafile=given)


def _keys(environ: Mapping[str, str]) -> Keys:
    """Return the credentials in the environment.

    Raises:
        SecretError: There are none.
    """
    key_id = environ.get("AWS_ACCESS_KEY_ID")
    secret = environ.get("AWS_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        raise SecretError(
            "Cannot fetch secrets: there are no credentials in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; to do without secrets on this machine, set their "
            "variables with --env or --env-file"
        )
    return Keys(key_id, secret, environ.get("AWS_SESSION_TOKEN", ""))


def signed_headers(
    keys: Keys,
    service: Service,
    region: str,
    host: str,
    operation: str,
    body: bytes,
    moment: str,
) -> dict[str, str]:
    """Return the headers of a signed request (AWS Signature Version 4).

    Args:
        keys: Credentials.
        service: The service that is called.
        region: Its region.
        host: Value of the header ``Host``.
        operation: Name of the operation.
        body: The request's body.
        moment: Time of the signature, ``YYYYMMDDTHHMMSSZ``.
    """
    import hashlib
    import hmac

    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": moment,
        "x-amz-target": f"{service.target}.{operation}",
    }
    if keys.session_token:
        headers["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    digest = hashlib.sha256(body).hexdigest()
    request = f"POST\n/\n\n{lines}\n{names}\n{digest}"
    scope = f"{moment[:8]}/{region}/{service.host}/aws4_request"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _error(members: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return AWS's name of an error, and its text."""
    members = members or {}
    code = str(members.get("__type") or "").rpartition("#")[2]
    detail = str(members.get("message") or members.get("Message") or "")
    return code[:DETAIL_LIMIT], detail[:DETAIL_LIMIT]

"""The command ``call``: an HTTP request to a function URL, local or in AWS.

Knows the options and the output: the body on stdout as it arrives, all else on stderr.
Does not know how requests are signed. Specification: docs/dev.md, "call".
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import EXIT_FAILED, exit_codes
from lambda_deno_spawn.dev.cli.events import read_file
from lambda_deno_spawn.dev.cli.modes import Mode, refuse_ignored
from lambda_deno_spawn.dev.cli.options import VerboseOption, positive_timeout_s
from lambda_deno_spawn.dev.project.quotas import EVENT_LIMIT_BYTES, TIMEOUT_LIMIT_S
from lambda_deno_spawn.dev.project.target import find_target
from lambda_deno_spawn.errors import LambdaDenoSpawnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

DEFAULT_PORT = 3000
CONNECT_LIMIT_S = 10.0
# Beyond the longest timeout of a function; nothing arrives while a function computes.
READ_LIMIT_S = TIMEOUT_LIMIT_S + 30.0
# RFC 9110, "Fields" and "Methods".
TOKEN = r"[!#$%&'*+.^_`|~\w-]+"
HEADER = re.compile(
    rf"[ \t]*(?P<name>{TOKEN})[ \t]*:(?P<value>[\t\x20-\x7e]*)", re.ASCII
)
METHOD = re.compile(TOKEN, re.ASCII)
LOCAL_REGION = "us-east-1"
LOCAL = Mode("without --remote", "a function that `dev` serves")
REMOTE = Mode("with --remote", "a function in AWS", "leave {} out, or add --remote")


def call(
    context: typer.Context,
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION",
            help="Name of the function, or its folder; with --remote also its ARN.",
        ),
        LOCAL,
        REMOTE,
    ],
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="Path and query, such as /items?limit=5."),
        LOCAL,
        REMOTE,
    ] = "/",
    *,
    request: Annotated[
        str | None,
        typer.Option(
            "--request",
            "-X",
            metavar="METHOD",
            help="HTTP method.  [default: GET, with --data POST]",
        ),
        LOCAL,
        REMOTE,
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="TEXT|@FILE|-",
            help="Body: text, @ and a file, or - for stdin.",
        ),
        LOCAL,
        REMOTE,
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", metavar="NAME:VALUE", help="A header; may be repeated."
        ),
        LOCAL,
        REMOTE,
    ] = None,
    include: Annotated[
        bool,
        typer.Option(
            "--include", "-i", help="Print the headers of the response to stderr."
        ),
        LOCAL,
        REMOTE,
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long to wait for the next part of the response.  [default: 930]",
        ),
        LOCAL,
        REMOTE,
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            "--port", "-p", metavar="PORT", min=1, max=65535, help="Port of `dev`."
        ),
        LOCAL,
    ] = DEFAULT_PORT,
    remote: Annotated[
        bool,
        typer.Option(
            "--remote",
            help="Call the function's URL in AWS; signed if its AuthType is AWS_IAM.",
        ),
        REMOTE,
    ] = False,
    qualifier: Annotated[
        str | None,
        typer.Option(
            "--qualifier",
            "--alias",
            metavar="NAME",
            help="With --remote: alias that has the URL.",
        ),
        REMOTE,
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region", "-r", metavar="REGION", help="With --remote: AWS region."
        ),
        REMOTE,
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --remote: profile in the AWS configuration files.",
        ),
        REMOTE,
    ] = None,
    verbose: Annotated[VerboseOption, LOCAL, REMOTE] = False,
) -> None:
    """Send an HTTP request to a function URL and print the response.

    The body is printed as it arrives. The function is served by `dev`, or with --remote
    runs in AWS. Exit code 1: the status is 400 or above, or the response was cut off.
    """
    with exit_codes(is_verbose=verbose):
        refuse_ignored(context, REMOTE if remote else LOCAL)
        body = None if data is None else read_body(data)
        method = parse_method(request or ("GET" if data is None else "POST"))
        headers = [parse_header(each) for each in header or []]
        if not path.startswith(("/", "?")):
            path = f"/{path}"
        limit_s = READ_LIMIT_S if timeout is None else positive_timeout_s(timeout)
        if remote:
            base, headers = _remote(
                function, method, path, headers, body or b"", qualifier, region, profile
            )
        else:
            base = f"http://127.0.0.1:{port}"
            name = find_target(function).name
            host = f"{name}.localhost:{port}"
            if _needs_signature(f"{base}/2021-10-31/functions/{name}/url"):
                url = f"http://{host}{path}"
                headers = _signed_here(method, url, headers, body or b"")
            headers = [("Host", host), *headers]
        address = f"{base}{path}"
        _send(
            method,
            address,
            headers,
            body,
            limit_s,
            has_head=include,
            uses_proxy=remote,
        )


def read_body(data: str) -> bytes:
    """Return the body that ``--data`` means.

    Raises:
        UsageError: It cannot be read, or is too large for Lambda.
    """
    if data == "-":
        body = sys.stdin.buffer.read()
    elif data.startswith("@"):
        body = read_file(data[1:], "--data")
    else:
        body = data.encode(errors="surrogateescape")
    if len(body) > EVENT_LIMIT_BYTES:
        raise UsageError(
            f"Cannot send the body of --data: it has {len(body)} bytes, and Lambda "
            f"accepts {EVENT_LIMIT_BYTES}; store the data elsewhere and send its "
            "address"
        )
    return body


def parse_header(text: str) -> tuple[str, str]:
    """Return name and value of a header.

    Raises:
        UsageError: It is malformed.
    """
    match = HEADER.fullmatch(text)
    if match is None:
        raise UsageError(
            f"Cannot use --header {text!r}: expected NAME:VALUE in ASCII, such as "
            "'Accept: text/html'"
        )
    return match["name"], match["value"].strip()


def parse_method(text: str) -> str:
    """Return a method in the form that HTTP has.

    Raises:
        UsageError: It is not a method.
    """
    if METHOD.fullmatch(text) is None:
        raise UsageError(
            f"Cannot use --request {text!r}: it is not a method of HTTP, such as PUT"
        )
    return text.upper()


def _remote(
    function: str,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    qualifier: str | None,
    region: str | None,
    profile: str | None,
) -> tuple[str, list[tuple[str, str]]]:
    """Return the function's URL, and the headers of the request with a signature."""
    from lambda_deno_spawn.dev.aws.function_url import find_url
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.aws.target import check_ambiguity

    target = find_target(function)
    aws = Aws(target.choose_region(region), profile)
    check_ambiguity(aws, target)
    name = target.name if target.qualifier is not None else target.lambda_name
    found = find_url(aws, name, qualifier or target.qualifier)
    if not found.is_signed:
        return found.url, list(headers)
    url = str(_url(f"{found.url}{path}"))
    signed = aws.signed(method, url, dict(headers), body)
    return found.url, list(signed.items())


def _needs_signature(address: str) -> bool:
    """Ask ``dev`` whether the AuthType of a function is AWS_IAM."""
    import httpx

    try:
        found = httpx.get(address, timeout=CONNECT_LIMIT_S, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False  # the request itself says what is wrong
    return isinstance(found, dict) and found.get("AuthType") == "AWS_IAM"


def _signed_here(
    method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes
) -> list[tuple[str, str]]:
    """Return headers with a signature, which ``dev`` looks for and does not verify."""
    from lambda_deno_spawn.dev.aws.session import Aws

    aws = Aws(LOCAL_REGION, None)
    signed = aws.signed(method, str(_url(url)), dict(headers), body, made_up="local")
    return [(name, text) for name, text in signed.items() if name.lower() != "host"]


def _url(text: str) -> httpx.URL:
    import httpx

    try:
        return httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UsageError(f"Cannot call {text!r}: {error}") from error


def _send(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    body: bytes | None,
    limit_s: float,
    *,
    has_head: bool,
    uses_proxy: bool,
) -> None:
    """Send the request and print the response; exit with 1 if it is an error."""
    import httpx

    # As curl does; a body of unknown form would be base64 in the event.
    names = {name.lower() for name, _ in headers}
    fields = list(headers)
    if body is not None and "content-type" not in names:
        form = "application/json" if body[:1] in (b"{", b"[") else "text/plain"
        fields.append(("Content-Type", form))
    timeout = httpx.Timeout(limit_s, connect=CONNECT_LIMIT_S)
    is_cut = False
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=uses_proxy) as client,
            client.stream(method, _url(url), headers=fields, content=body) as response,
        ):
            _show_head(response, has_head=has_head)
            try:
                for piece in response.iter_bytes():
                    sys.stdout.buffer.write(piece)
                    sys.stdout.flush()
            except httpx.RemoteProtocolError:
                is_cut = True
            status = response.status_code
    except httpx.ConnectError as error:
        raise LambdaDenoSpawnError(_unreachable(url, error)) from error
    except httpx.TimeoutException as error:
        raise LambdaDenoSpawnError(
            f"Cannot wait any longer for {url}: nothing came for {limit_s:g} seconds; "
            "give more with --timeout"
        ) from error
    except httpx.HTTPError as error:
        raise LambdaDenoSpawnError(f"Cannot call {url}: {error}") from error
    if sys.stdout.isatty():
        print()
    if is_cut:
        print("The response broke off: the function failed", file=sys.stderr)
    if is_cut or status >= 400:
        raise typer.Exit(EXIT_FAILED)


def _show_head(response: httpx.Response, *, has_head: bool) -> None:
    print(f"HTTP {response.status_code}", file=sys.stderr)
    if has_head:
        for name, value in response.headers.multi_items():
            print(f"{name}: {value}", file=sys.stderr)
    sys.stderr.flush()


def _unreachable(url: str, error: Exception) -> str:
    if url.startswith("http://127.0.0.1:"):
        return (
            f"Cannot reach {url}: nothing listens there; start "
            "`lambda-deno-spawn dev`, give its --port, or call a function in AWS with "
            "--remote"
        )
    return f"Cannot reach {url}: {error}"

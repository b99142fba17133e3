"""The page of types: the declarations of lambda.d.ts, each with its description."""

from __future__ import annotations

import re
from pathlib import Path

from docs.site.reference.markdown import ReferenceGapError

import lambda_deno_spawn

SOURCE = Path(lambda_deno_spawn.__file__).parent / "js" / "lambda.d.ts"
# A declaration ends where a line begins with what closes it.
DECLARATION = re.compile(
    r"(?:^/\*\* (?P<doc>(?:(?!\*/)[\s\S])*?) \*/\n)?"
    r"(?:^// deno-lint-ignore.*\n)*"
    r"(?P<code>^export (?:interface (?P<object>\w+)[\s\S]*?^\}|"
    r"type (?P<alias>\w+)[\s\S]*?;)$)",
    re.MULTILINE,
)
LINT = re.compile(r"^ *// deno-lint-ignore.*\n", re.MULTILINE)
GROUPS = {
    "Handlers": (
        "Handler", "CallbackHandler", "Callback", "FetchHandler", "StreamifyHandler",
    ),
    "Context": ("Context", "FetchContext", "CognitoIdentity", "ClientContext"),
    "Streams": ("AwsLambda", "InvokeStore", "ResponseStream", "HttpMetadata"),
    "HTTP events": (
        "HttpEvent", "ApiGatewayV1Event", "ApiGatewayV1RequestContext",
        "ApiGatewayV2Event", "FunctionUrlEvent", "ApiGatewayV2RequestContext",
        "AlbEvent", "VpcLatticeEvent", "VpcLatticeV1Event", "VpcLatticeV2Event",
    ),
    "HTTP results": ("ApiGatewayV1Result", "ApiGatewayV2Result", "AlbResult"),
}  # fmt: skip


def types_page() -> str:
    """Return docs/reference/types.md without its frame.

    Raises:
        ReferenceGapError: A type is not described, or belongs to no group.
    """
    found = declarations()
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(found):
        differing = ", ".join(sorted({*grouped} ^ {*found}))
        raise ReferenceGapError(f"no group of types, or no such type: {differing}")
    lines: list[str] = []
    for title, names in GROUPS.items():
        lines += [f"## {title}", ""]
        for name in names:
            doc, text = found[name]
            if not doc:
                raise ReferenceGapError(f"no description of type {name}")
            lines += [f"### {name}", "", doc, "", "```ts", text, "```", ""]
    return "\n".join(lines).rstrip()


def declarations() -> dict[str, tuple[str, str]]:
    """Return description and code of each type that is exported."""
    text = SOURCE.read_text(encoding="utf-8")
    return {
        each["object"] or each["alias"]: (
            re.sub(r"\s*\n \* ?", " ", each["doc"] or "").strip(),
            LINT.sub("", each["code"]),
        )
        for each in DECLARATION.finditer(text)
    }

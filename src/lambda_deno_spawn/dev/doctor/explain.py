"""What an error text means, and what to do about it.

Knows the errors that people meet with this runtime, by the text that a log or a caller
shows. Pure: reads a text, and nothing else. The tables of docs/troubleshooting.md are
written from the same entries; a test compares them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEEN_LIMIT = 160  # characters of the text that are shown


@dataclass(frozen=True, slots=True)
class Entry:
    """An error that people meet.

    Attributes:
        shown: How the error reads; the first column of the table.
        pattern: Regular expression that finds it in a text.
        why: The cause, as a clause.
        do: What to do, as an imperative.
        page: Page of the documentation with more, relative to docs/.
    """

    shown: str
    pattern: str
    why: str
    do: str
    page: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """An entry that was found in a text.

    Attributes:
        seen: The line it was found in, shortened.
    """

    seen: str
    entry: Entry


# The more special ones first: of two entries that match one place, the first is shown.
ENTRIES = (
    Entry(
        "`Cannot find module 'aws-sdk'`",
        r"Cannot find (?:module|package) ['\"]@?aws-sdk[/'\"]",
        "no SDK comes with this runtime, unlike with managed Node.js",
        'import a version of your own, such as "npm:@aws-sdk/client-s3@3"',
        "compatibility.md",
    ),
    Entry(
        "`Runtime.ImportModuleError`",
        r"Runtime\.ImportModuleError|ERR_MODULE_NOT_FOUND|Module not found",
        "the file of the handler, or a module that it imports, is not in the package",
        "read which import the message names, and see what `build` packages",
        "build.md",
    ),
    Entry(
        "`Runtime.HandlerNotFound`, `Runtime.MalformedHandlerName`",
        r"Runtime\.(?:HandlerNotFound|MalformedHandlerName)",
        "the module does not export what `handler` names",
        "set `handler` in lambda.toml; the message lists the exports that exist",
        "project.md",
    ),
    Entry(
        "`Runtime.UserCodeSyntaxError`",
        r"Runtime\.UserCodeSyntaxError",
        "the module cannot be parsed",
        "go to the position that the message names",
        "handlers.md",
    ),
    Entry(
        "`require is not defined`, `module is not defined`",
        r"(?:require|module|exports|__dirname) is not defined",
        "CommonJS code is loaded as an ES module",
        'name the file .cjs, or leave "type": "module" out of its package.json',
        "compatibility.md",
    ),
    Entry(
        "`React is not defined`",
        r"React is not defined|jsx-runtime",
        "JSX is compiled without an import source",
        'set "jsx" and "jsxImportSource" under compilerOptions in deno.json',
        "configuration.md",
    ),
    Entry(
        "`ERR_DLOPEN_FAILED`, `Requires ffi access`",
        r"ERR_DLOPEN_FAILED|Requires ffi access|invalid ELF header",
        "a package loads native code, which needs a permission and the right binary",
        'set permissions = "default --allow-ffi", and install the package for the '
        "architecture of the function",
        "packages.md",
    ),
    Entry(
        "`EROFS`, `Read-only file system`",
        r"EROFS|[Rr]ead-only file system",
        "everything but the private folder is read-only on Lambda",
        "write to Deno.env.get('TMPDIR') or os.tmpdir()",
        "decisions/0035-files-and-tmp.md",
    ),
    Entry(
        '`Requires write access to "/tmp/…"`',
        r"Requires write access to \"?/tmp",
        "each event has a folder of its own, and /tmp itself belongs to no event",
        "write to Deno.env.get('TMPDIR') or os.tmpdir()",
        "decisions/0035-files-and-tmp.md",
    ),
    Entry(
        "`NotCapable`",
        r"NotCapable|Requires (?:net|env|read|write|run|sys|import) access",
        "Deno's permissions do not allow it",
        "add the permission that the message names to `permissions` in lambda.toml",
        "configuration.md",
    ),
    Entry(
        "`Runtime.HandlerNeverSettled`",
        r"Runtime\.HandlerNeverSettled",
        "the handler returned a promise that nothing can settle any more",
        "look for a missing await, or a callback that is never called",
        "handlers.md",
    ),
    Entry(
        "`Runtime.InvokeTimeout`, `Task timed out`",
        r"Runtime\.InvokeTimeout|Task timed out|Sandbox\.Timedout",
        "the handler was still running shortly before the function's timeout",
        "raise `timeout`, or give context.signal to fetch so that it stops in time",
        "handlers.md",
    ),
    Entry(
        "`Runtime.OutOfMemory`",
        r"Runtime\.OutOfMemory|heap limit|signal: killed",
        "V8's heap or the environment's memory was full",
        "raise `memory`; LAMBDA_DENO_METRICS=json shows the peak of each event",
        "metrics.md",
    ),
    Entry(
        "`Runtime.ResourceExhausted`",
        r"Runtime\.ResourceExhausted|Too many open files|EMFILE|ENOSPC|EAGAIN",
        "processes, descriptors or space in /tmp ran out",
        "close what the handler opens, and wait for the programs that it starts",
        "configuration.md",
    ),
    Entry(
        "`Runtime.ExitError`",
        r"Runtime\.ExitError|Runtime exited",
        "the process ended before it had answered",
        "return or throw instead of calling Deno.exit or process.exit",
        "configuration.md",
    ),
    Entry(
        "`Runtime.UnhandledPromiseRejection`",
        r"Runtime\.UnhandledPromiseRejection",
        "a promise was rejected, and no code awaited it",
        "await it, or give it to context.waitUntil",
        "handlers.md",
    ),
    Entry(
        "`Runtime.JSONStringifyError`",
        r"Runtime\.JSONStringifyError|Do not know how to serialize a BigInt",
        "the result cannot be written as JSON",
        "convert BigInt, circular objects and the like before returning",
        "handlers.md",
    ),
    Entry(
        "`Function.ResponseSizeTooLarge`",
        r"ResponseSizeTooLarge|Runtime\.TruncatedResponse",
        "the response is larger than the 6 MB that Lambda accepts",
        "stream it, or store it and return its address",
        "guides/streaming.md",
    ),
    Entry(
        "`Runtime.UnsupportedEvent`, `Runtime.InvalidResponse`",
        r"Runtime\.(?:UnsupportedEvent|InvalidResponse)",
        "a web app got an event that is not an HTTP request, or gave no Response",
        "export a `handler` for other events",
        "handlers.md",
    ),
    Entry(
        "`Runtime.InvalidConfiguration`",
        r"Runtime\.InvalidConfiguration",
        "a setting or deno.json has a value that cannot be used",
        "correct the value that the message names",
        "configuration.md",
    ),
    Entry(
        "`Runtime.SecretUnavailable`",
        r"Runtime\.SecretUnavailable",
        "a secret that a variable refers to could not be fetched at the start",
        "check its name, the role's policy, and the way out of the VPC",
        "secrets.md",
    ),
    Entry(
        "`/opt/lambda-deno-spawn: No such file`",
        r"/opt/lambda-deno-spawn[^\n]*(?:[Nn]o such file|not exist)",
        "the variable AWS_LAMBDA_EXEC_WRAPPER is set, and the runtime layer is missing",
        "add both layers, for the architecture and the Python of the function",
        "layers.md",
    ),
    Entry(
        "`Runtime.InvalidEntrypoint`, `exec format error`",
        r"Runtime\.InvalidEntrypoint|[Ee]xec format error|GLIBC_2",
        "Deno or the supervisor cannot be started on this system",
        "use layers for the function's architecture, on Amazon Linux 2023",
        "layers.md",
    ),
    Entry(
        "`Unknown settings have no effect`",
        r"Unknown settings have no effect",
        "a variable LAMBDA_DENO_… is misspelled",
        "correct its name",
        "configuration.md",
    ),
    Entry(
        "`Events are served by processes of their own start`",
        r"Events are served by processes of their own start",
        "this function cannot be forked safely; the reason follows in that line",
        "nothing, unless the cost matters: then remove the reason",
        "fork.md",
    ),
    Entry(
        '`{"Message":"Forbidden"}` from a function URL',
        r"\"?Message\"?: ?\"?Forbidden|AccessDeniedException[^\n]*InvokeFunction",
        "the URL accepts only signed requests, or two permissions are missing",
        "sign the request, or deploy with --function-url-auth NONE",
        "deploy.md",
    ),
    Entry(
        "`these credentials lack the permission`",
        r"these credentials lack the permission",
        "the policy of the user who deploys does not allow the call",
        "add the statement that the message prints",
        "deploy.md",
    ),
)


def explain(text: str) -> list[Explanation]:
    """Return what is known about the errors in a text, in the order of the text."""
    found: dict[Entry, Explanation] = {}
    for line in text.splitlines():
        for entry in ENTRIES:
            match = re.search(entry.pattern, line)
            if match is None:
                continue
            if entry not in found:
                seen = line.strip()
                if len(seen) > SEEN_LIMIT:
                    start = max(0, match.start() - SEEN_LIMIT // 2)
                    seen = f"…{line[start : start + SEEN_LIMIT].strip()}…"
                found[entry] = Explanation(seen, entry)
            break
    return list(found.values())


def table() -> str:
    """Return all entries as the table of docs/troubleshooting.md."""
    rows = [
        f"| {entry.shown} | {entry.why} | {entry.do} | [more]({entry.page}) |"
        for entry in ENTRIES
    ]
    return "\n".join(["| Text | Why | What to do | |", "|---|---|---|---|", *rows])

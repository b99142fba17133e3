"""What an error text means, and what to do about it.

Knows the errors that people meet with this runtime, by the text that a log or a caller
shows. Pure: reads a text, and nothing else. docs/troubleshooting.md and
docs/reference/errors.md are generated from the same entries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEEN_LIMIT = 160  # characters of the text that are shown

# Where an error type is reported.
INIT = "at init"
LOADING = "at init, or for an event whose process starts later"
EVENT = "for the event"
EITHER = "at init or for the event"
LOG = "in the log and the metrics"
LAMBDA = "by Lambda itself"


@dataclass(frozen=True, slots=True)
class Entry:
    """An error that people meet.

    Attributes:
        shown: How the error reads; the first column of the table.
        pattern: Regular expression that finds it in a text.
        why: The cause, as a clause.
        do: What to do, as an imperative.
        page: Page of the documentation with more, relative to docs/.
        reported: Where the runtime or Lambda reports it, if it is an error type; empty:
            it is the text of another program.
    """

    shown: str
    pattern: str
    why: str
    do: str
    page: str
    reported: str = ""


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
        LOADING,
    ),
    Entry(
        "`Runtime.HandlerNotFound`",
        r"Runtime\.HandlerNotFound",
        "the module does not export what `handler` names",
        "set `handler` in lambda.toml; the message lists the exports that exist",
        "project.md",
        LOADING,
    ),
    Entry(
        "`Runtime.MalformedHandlerName`",
        r"Runtime\.MalformedHandlerName",
        "`handler` does not have the form `file.export`",
        "set `handler` in lambda.toml, such as `src/api.handler`",
        "configuration.md",
        INIT,
    ),
    Entry(
        "`Runtime.UserCodeSyntaxError`",
        r"Runtime\.UserCodeSyntaxError",
        "the module cannot be parsed",
        "go to the position that the message names",
        "handlers.md",
        LOADING,
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
        EVENT,
    ),
    Entry(
        "`Runtime.InvokeTimeout`",
        r"Runtime\.InvokeTimeout",
        "the handler was still running shortly before the function's timeout",
        "raise `timeout`, or give context.signal to fetch so that it stops in time; "
        "`logTail` has the last lines that it logged",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Sandbox.Timedout`, `Task timed out`",
        r"Sandbox\.Timedout|Task timed out",
        "the function's timeout was over before the runtime could report an error, "
        "which takes 200 ms",
        "raise `timeout`, or LAMBDA_DENO_STOP_MARGIN_MS if functions have little CPU",
        "handlers.md",
        LAMBDA,
    ),
    Entry(
        "`Runtime.OutOfMemory`",
        r"Runtime\.OutOfMemory|heap limit|signal: killed",
        "V8's heap or the environment's memory was full",
        "raise `memory`; LAMBDA_DENO_METRICS=json shows the peak of each event",
        "metrics.md",
        EITHER,
    ),
    Entry(
        "`Runtime.ResourceExhausted`",
        r"Runtime\.ResourceExhausted|Too many open files|EMFILE|ENOSPC|EAGAIN",
        "processes, descriptors or space in /tmp ran out",
        "close what the handler opens, and wait for the programs that it starts; the "
        "message names the resource",
        "reference/errors.md",
        EITHER,
    ),
    Entry(
        "`Runtime.ExitError`",
        r"Runtime\.ExitError|Runtime exited",
        "the process ended before it had answered, by itself or by a signal",
        "return or throw instead of calling Deno.exit or process.exit",
        "reference/errors.md",
        EITHER,
    ),
    Entry(
        "`Runtime.UnhandledPromiseRejection`",
        r"Runtime\.UnhandledPromiseRejection",
        "a promise was rejected, and no code awaited it",
        "await it, or give it to context.waitUntil",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Runtime.JSONStringifyError`",
        r"Runtime\.JSONStringifyError|Do not know how to serialize a BigInt",
        "the result cannot be written as JSON",
        "convert BigInt, circular objects and the like before returning",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Function.ResponseSizeTooLarge`",
        r"ResponseSizeTooLarge",
        "the response is larger than the 6 MB that Lambda accepts",
        "stream it, or store it and return its address",
        "guides/streaming.md",
        EVENT,
    ),
    Entry(
        "`Runtime.TruncatedResponse`",
        r"Runtime\.TruncatedResponse",
        "a streamed response ended before it was complete",
        "look for the handler's error, or the caller's end, in the log",
        "guides/streaming.md",
        LAMBDA,
    ),
    Entry(
        "`Runtime.UnsupportedEvent`",
        r"Runtime\.UnsupportedEvent",
        "a web app got an event that is not an HTTP request",
        "export a `handler` for other events",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Runtime.InvalidResponse`",
        r"Runtime\.InvalidResponse\b",
        "`fetch` of a web app did not return a `Response`",
        "return one in every branch, errors included",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Runtime.UnmarshalError`, `Runtime.LambdaContextUnmarshalError`",
        r"Runtime\.(?:LambdaContext)?UnmarshalError",
        "the event, or the caller's client context, is not JSON",
        "correct the caller",
        "reference/errors.md",
        EVENT,
    ),
    Entry(
        "`Runtime.InvalidStreamingOperation`",
        r"Runtime\.InvalidStreamingOperation",
        "a piece of a stream is neither text nor bytes, or the media type cannot be a "
        "header",
        "encode it first; the message has the type",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Runtime.StreamUnavailable`",
        r"Runtime\.StreamUnavailable",
        "the connection for a streamed response could not be opened; nothing was sent",
        "try again; the message has the reason",
        "reference/errors.md",
        EVENT,
    ),
    Entry(
        "`Runtime.ServerClosed`",
        r"Runtime\.ServerClosed",
        "the module has closed the server that answers its events",
        "call `close` or `shutdown` of the server at the end only",
        "handlers.md",
        EVENT,
    ),
    Entry(
        "`Runtime.WorkerProtocolError`",
        r"Runtime\.WorkerProtocolError",
        "another program wrote into a frame, a frame was too long, or stdout was "
        "closed",
        "do not let programs inherit stdout",
        "protocol.md",
        EITHER,
    ),
    Entry(
        "`Runtime.LambdaRuntimeClientError`",
        r"Runtime\.LambdaRuntimeClientError",
        "the Runtime API did not accept the response, or not all of it",
        "look for the warning in the log that names the call and the status",
        "metrics.md",
        LOG,
    ),
    Entry(
        "`Runtime.BeforeSnapshotError`",
        r"Runtime\.BeforeSnapshotError",
        "SnapStart: the environment could not be made ready for its snapshot",
        "read the message: it has the reason",
        "layers.md",
        INIT,
    ),
    Entry(
        "`Runtime.AfterRestoreError`",
        r"Runtime\.AfterRestoreError",
        "SnapStart: the module could not be loaded after a restore",
        "correct the error that the message names",
        "layers.md",
        INIT,
    ),
    Entry(
        "`Runtime.Unknown`, `Function.Unknown`",
        r"(?:Runtime|Function)\.Unknown\b",
        "the name of the error cannot be an error type of Lambda",
        "read the message and the log; give your error classes names of letters",
        "reference/errors.md",
        LAMBDA,
    ),
    Entry(
        "`Runtime.InvalidConfiguration`",
        r"Runtime\.InvalidConfiguration",
        "a setting or deno.json has a value that cannot be used",
        "correct the value that the message names",
        "configuration.md",
        LOADING,
    ),
    Entry(
        "`Runtime.SecretUnavailable`",
        r"Runtime\.SecretUnavailable",
        "a secret that a variable refers to could not be fetched at the start",
        "check its name, the role's policy, and the way out of the VPC",
        "secrets.md",
        INIT,
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
        EITHER,
    ),
    Entry(
        "`ENOENT`, `NotFound:`",
        r"\bENOENT\b|\bNotFound:",
        "there is no such file, or it is one that the function may not read, which the "
        "message then says",
        "check the path, or allow it in `permissions`",
        "configuration.md",
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
    """Return the texts that are not error types as the table of troubleshooting.md."""
    rows = [
        f"| {entry.shown} | {entry.why} | {entry.do} | [more]({entry.page}) |"
        for entry in ENTRIES
        if not entry.reported
    ]
    return "\n".join(["| Text | Why | What to do | |", "|---|---|---|---|", *rows])

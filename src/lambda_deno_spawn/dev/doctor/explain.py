"""What error texts mean, and what to do about them.

Knows the errors that people meet with this runtime by the text in a log or in a
caller's response. Pure: reads only the text it is given. docs/troubleshooting.md and
docs/reference/errors.md are generated from the same entries.
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
        setting: What to set, if that is the cure: a key of lambda.toml, or a variable.
    """

    shown: str
    pattern: str
    why: str
    do: str
    page: str
    setting: str = ""

    @property
    def error_types(self) -> list[str]:
        """The types among what it shows, which the runtime or Lambda reports."""
        return re.findall(r"`((?:Runtime|Function|Sandbox)\.\w+)`", self.shown)


@dataclass(frozen=True, slots=True)
class Explanation:
    """An entry that was found in a text.

    Attributes:
        seen: The line it was found in, shortened.
        setting: That of the entry; with the value, if the line says which it is.
    """

    seen: str
    entry: Entry
    setting: str


# If two entries match one line, the first is shown. So the special ones come first,
# and the ones that name only how an invocation ended come last.
ENTRIES = (
    # The function is not started by this runtime.
    Entry(
        "`Unable to import module 'function': No module named 'function'`",
        r"Unable to import module '|Handler '[^']*' missing on module|"
        r"Bad handler '[^']*': not enough values",
        "Lambda's own Python runtime looked for the handler; nothing starts Deno",
        "deploy with `deploy`, or set this variable and add both layers",
        "layers.md#which-layers-a-function-needs",
        "AWS_LAMBDA_EXEC_WRAPPER=/opt/lambda-deno-spawn",
    ),
    Entry(
        "`Require stack: - /var/runtime/index.mjs`",
        r"/var/runtime/(?:index\.m?js|UserFunction\.js)",
        "Lambda's own Node.js runtime runs the function, not this one",
        "set the runtime to python3.13 or provided.al2023, as `deploy` does",
        "layers.md#which-layers-a-function-needs",
        "runtime",
    ),
    Entry(
        "`/opt/lambda-deno-spawn: No such file`",
        r"/opt/lambda-deno-spawn[^\n]*(?:[Nn]o such file|not exist)",
        "AWS_LAMBDA_EXEC_WRAPPER is set, but the runtime layer is missing",
        "add both layers, built for the function's architecture and Python version",
        "layers.md",
        "layers",
    ),
    Entry(
        "`Runtime.InvalidEntrypoint`, `exec format error`, `GLIBC_2.35 not found`",
        r"Runtime\.InvalidEntrypoint|[Ee]xec format error|GLIBC_2|"
        r"error while loading shared libraries",
        "Deno or the supervisor cannot be started on this system",
        "use layers for the function's architecture, on Amazon Linux 2023",
        "layers.md",
        "arch",
    ),
    # Modules.
    Entry(
        "`Cannot find module 'aws-sdk'`, `Relative import path \"@aws-sdk/client-s3\"`",
        r"(?:Cannot find (?:module|package)|Relative import path|Import) "
        r"['\"]@?aws-sdk[/'\"]",
        "this runtime includes no AWS SDK, unlike the managed Node.js runtime",
        'import the version you want, such as "npm:@aws-sdk/client-s3@3"',
        "compatibility.md#how-to-provide-packages",
        "imports in deno.json",
    ),
    Entry(
        "`React is not defined`, `Module not found … /jsx-runtime`",
        r"React is not defined|(?:not find|not found|import path|Import)[^\n]*"
        r"/jsx-(?:dev-)?runtime",
        "JSX is compiled without an import source, or with one that cannot be found",
        'set "jsx" and "jsxImportSource" under compilerOptions in deno.json',
        "configuration.md#project-files",
        "compilerOptions.jsxImportSource in deno.json",
    ),
    Entry(
        '`could not locate the bindings file`, `Could not load the "sharp" module`, '
        "`ERR_DLOPEN_FAILED`, `Requires ffi access`",
        r"ERR_DLOPEN_FAILED|Requires ffi access|invalid ELF header|wrong ELF class|"
        r"[Cc]ould not locate the bindings file|Could not load the \"sharp\" module|"
        r"[Nn]o native build was found|Cannot find native binding|Query [Ee]ngine|"
        r"(?:not find|not load)[^\n]*\.node\b",
        "a package loads native code, which needs a permission and the right binary",
        "allow it, and install the package for the function's architecture",
        "packages.md",
        'permissions = "default --allow-ffi"',
    ),
    Entry(
        '`Relative import path "lodash" not prefixed with / or ./ or ../`',
        r"Relative import path|not a dependency and not in import map|"
        r"not prefixed with / or \./|ERR_PACKAGE_IMPORT_NOT_DEFINED|"
        r"ERR_UNSUPPORTED_ESM_URL_SCHEME|Unsupported scheme \"|Could not resolve ['\"]",
        "no file says where this package or alias comes from; Deno ignores `paths` in "
        "tsconfig.json",
        "add it to deno.json or package.json, or import it as npm:NAME@VERSION",
        "compatibility.md#how-to-provide-packages",
        "imports in deno.json",
    ),
    Entry(
        "`--cached-only is specified`, `Could not find npm package`",
        r"--cached-only is specified|Could not find npm package|"
        r"[Cc]ould not find (?:version|constraint)|npm package '[^']+' does not exist|"
        r"JSR package manifest|Failed caching npm package|Import '[^']+' failed",
        "a package is neither in the deployment package nor in Deno's cache, or the "
        "version does not exist",
        "build with `build`, which packages it; check its name and version",
        "build.md#the-cache",
        "bundle",
    ),
    Entry(
        "`The lockfile is out of date`, `Integrity check failed`",
        r"lockfile is out of date|[Ii]ntegrity check failed|"
        r"checksum mismatch|Failed reading lockfile|Unsupported lockfile version",
        "deno.lock does not match the imports, and Lambda never updates it (--frozen)",
        "run `lambda-deno-spawn deno install --entrypoint FILE`, and commit deno.lock",
        "configuration.md#project-files",
        "deno.lock",
    ),
    Entry(
        "`The requested module 'x' does not provide an export named 'y'`",
        r"does not provide an export named|has no exported member|"
        r"Named export '[^']+' not found",
        "the module has no such export; a CommonJS module may only have a default one",
        "import the default export and read the member from it",
        "from-node.md#typescript-needs-no-build-step",
    ),
    Entry(
        "`require is not defined`, `module is not defined`, "
        "`__dirname is not defined`, "
        "`Cannot use import statement outside a module`",
        r"(?:require|module|exports|__dirname|__filename) is not defined|"
        r"Cannot use import statement outside a module|Unexpected token 'export'|"
        r"ERR_REQUIRE_ESM|require\(\) of ES Module|Dynamic require of",
        "CommonJS code is loaded as an ES module, or the other way round",
        'name the file .cjs or .mjs, or correct "type" in its package.json',
        "compatibility.md#how-to-provide-packages",
        "type in package.json",
    ),
    Entry(
        "`Expected a JavaScript or TypeScript module, but identified a Json module`",
        r"but identified a Json module|ERR_IMPORT_ATTRIBUTE_MISSING|"
        r"needs an import attribute|[Ii]mport assertions? (?:are|is) ",
        "a JSON file is imported without an import attribute",
        'write `import data from "./data.json" with { type: "json" }`',
        "from-node.md#typescript-needs-no-build-step",
    ),
    Entry(
        "`Decorators are not valid here`",
        r"[Dd]ecorators are not valid|Unexpected token '@'",
        "these decorators follow TypeScript's older proposal",
        'set "experimentalDecorators": true under compilerOptions in deno.json',
        "compatibility.md#what-behaves-differently",
        "compilerOptions.experimentalDecorators in deno.json",
    ),
    Entry(
        "`TS2322 [ERROR]`, `Type checking failed`",
        r"\bTS\d{4,5} \[ERROR\]|Type checking failed",
        "the type checker found an error; the runtime itself does not check types",
        "fix the type; `invoke` and Lambda run the code regardless",
        "from-node.md#typescript-needs-no-build-step",
    ),
    Entry(
        "`Deno.openKv is not a function`, `--unstable-kv`",
        r"Deno\.openKv is not a function|--unstable-kv",
        "Deno KV is unstable, and a database on local disk would not outlast its event",
        'use a service such as DynamoDB; for a remote KV database, list "kv" under '
        '"unstable" in deno.json',
        "from-deno.md#what-deno-deploy-has",
        "unstable in deno.json",
    ),
    Entry(
        "`Deno.cron is not a function`, `--unstable-cron`",
        r"Deno\.cron is not a function|--unstable-cron",
        "no process runs between events, so the handler's process cannot schedule jobs",
        "give the job its own function, with a schedule in its lambda.toml",
        "guides/queues-and-schedules.md#a-schedule",
        "events.schedule",
    ),
    Entry(
        "`Deno.dlopen is not a function`, `Unstable API`",
        r"Deno\.\w+ is not a function|--unstable-|Unstable API",
        "this version of Deno does not have the function, or it is unstable",
        'list the feature under "unstable" in deno.json, or use its successor',
        "configuration.md#project-files",
        "unstable in deno.json",
    ),
    Entry(
        "`window is not defined`, `document is not defined`",
        r"(?:window|document|localStorage|navigator\.\w+) is not defined",
        "the code is meant for a browser",
        "use globalThis, or the package's server entry point",
        "from-deno.md",
    ),
    Entry(
        "`No such built-in module: node:…`",
        r"[Nn]o such built-in module|Unknown built-in \"node:|"
        r"ERR_UNKNOWN_BUILTIN_MODULE|Not implemented: |ERR_NOT_IMPLEMENTED",
        "Deno does not have this part of Node.js",
        "use another package, or a newer Deno (`layer build --deno VERSION`)",
        "compatibility.md",
    ),
    Entry(
        "`Runtime.UserCodeSyntaxError`, `The module's source code could not be parsed`",
        r"Runtime\.UserCodeSyntaxError|source code could not be parsed|"
        r"SyntaxError: (?:Unexpected|Invalid or|Identifier)(?![^\n]*JSON)",
        "the module cannot be parsed",
        "look at the line that the message names",
        "handlers.md",
    ),
    Entry(
        "`Runtime.HandlerNotFound`",
        r"Runtime\.HandlerNotFound",
        "the module has no export with the name in `handler`",
        "correct the name; the message lists the module's exports",
        "configuration.md#the-handler",
        "handler",
    ),
    Entry(
        "`Runtime.MalformedHandlerName`",
        r"Runtime\.MalformedHandlerName",
        "the handler's name does not have the form `file.export`",
        "correct it, for example to `src/api.handler`",
        "configuration.md#the-handler",
        "handler",
    ),
    Entry(
        "`Runtime.ImportModuleError`, `ERR_MODULE_NOT_FOUND`, "
        "`Cannot find module './x'`",
        r"Runtime\.ImportModuleError|ERR_MODULE_NOT_FOUND|Module not found|"
        r"Cannot find (?:module|package) |ERR_PACKAGE_PATH_NOT_EXPORTED|"
        r"ERR_UNSUPPORTED_DIR_IMPORT",
        "the handler's file, or a module that it imports, is not in the package",
        "look for the import that the message names, and see what `build` packages",
        "build.md#contents",
        "include",
    ),
    Entry(
        "`Top-level await promise never resolved`",
        r"[Tt]op-level await promise never resolved",
        "a top-level await waits for a promise that nothing can resolve",
        "move the work into the handler, or look for a missing resolve call",
        "handlers.md",
    ),
    # Files and permissions.
    Entry(
        "`EROFS`, `Read-only file system`",
        r"EROFS|[Rr]ead-only file system",
        "on Lambda, only the event's private folder is writable",
        "write to Deno.env.get('TMPDIR') or os.tmpdir()",
        "from-node.md#temporary-files",
    ),
    Entry(
        '`Requires write access to "/tmp/…"`',
        r"Requires write access to \"?/tmp",
        "each event has its own folder below /tmp and may not write elsewhere",
        "write to Deno.env.get('TMPDIR') or os.tmpdir()",
        "from-node.md#temporary-files",
    ),
    Entry(
        '`Requires run access to "git"`, `spawn ffmpeg ENOENT`, `Command failed: git`',
        r"Requires run access|spawn \S+ ENOENT|Failed to spawn|"
        r"Failed to launch the browser|Command failed:? ",
        "by default, handlers may not start programs, and Lambda has few installed",
        "allow this program, and package it or add a layer that contains it",
        "from-node.md#what-a-handler-may-do",
        'permissions = "default --allow-run=PROGRAM"',
    ),
    Entry(
        "`NotCapable`, `Requires net access to …`",
        r"NotCapable|Requires (?:net|env|read|write|sys|import) access",
        "Deno's permissions do not allow it",
        "add the permission that the message names",
        "configuration.md#permissions",
        "permissions",
    ),
    Entry(
        "`EACCES: permission denied`",
        r"EACCES|EPERM|PermissionDenied|[Pp]ermission denied \(os error 13\)",
        "the system or Deno's permissions do not allow it",
        "look in the log for the missing permission; files are read-only on Lambda",
        "configuration.md#permissions",
        "permissions",
    ),
    Entry(
        "`ENOENT: no such file or directory`, `No such file or directory (os error 2)`",
        r"ENOENT|NotFound: |No such file or directory \(os error 2\)",
        "the file is not in the package, or the function may not read it",
        "package or allow it; relative paths start at LAMBDA_TASK_ROOT",
        "configuration.md#permissions",
        "include, or permissions",
    ),
    # The network, and services.
    Entry(
        "`CredentialsProviderError`, `Could not load credentials from any providers`",
        r"CredentialsProviderError|[Cc]ould not load credentials|"
        r"Region is missing|NoCredentialsError|Unable to locate credentials",
        "the process or the command found no AWS credentials, or no region",
        "pass them to the handler, or set them for the command",
        "configuration.md#variables",
        "LAMBDA_DENO_ENV=@credentials …",
    ),
    Entry(
        "`ExpiredTokenException`, `The security token included in the request is`",
        r"ExpiredToken|security token included in the request is|"
        r"UnrecognizedClientException|InvalidClientTokenId|SignatureDoesNotMatch|"
        r"InvalidSignatureException",
        "AWS rejected the credentials, for example because they have expired",
        "renew them (`aws sso login`), or choose another --profile",
        "deploy.md#permissions",
    ),
    Entry(
        "`these credentials lack the permission`",
        r"these credentials lack the permission",
        "the deploying user's policy does not allow the call",
        "add the statement from the message to that policy",
        "deploy.md#permissions",
    ),
    Entry(
        '`{"Message":"Forbidden"}` from a function URL',
        r"\"?Message\"?: ?\"?Forbidden|AccessDeniedException[^\n]*InvokeFunction",
        "the URL accepts only signed requests, or its two permissions are missing",
        "sign the request, or deploy with --function-url-auth NONE",
        "deploy.md#deploy",
        "url.auth",
    ),
    Entry(
        "`is not authorized to perform: dynamodb:PutItem`",
        r"is not authorized to perform|AccessDenied|"
        r"does not have permissions? to call",
        "the policy of the function's role, or of your user, does not allow the call",
        "add the action and resource from the message to the policy",
        "guides/least-privilege.md",
        "role",
    ),
    Entry(
        "`TooManyRequestsException`, `Rate Exceeded`",
        r"TooManyRequestsException|Rate Exceeded|ReservedFunctionConcurrent|"
        r"ThrottlingException",
        "AWS throttles invocations or calls",
        "try again later, or raise the concurrency",
        "project.md#keys",
        "reserved_concurrency",
    ),
    Entry(
        "`invalid peer certificate: UnknownIssuer`, "
        "`unable to verify the first certificate`",
        r"invalid peer certificate|unable to (?:verify the first|get local issuer)|"
        r"self[- ]signed certificate|CERT_HAS_EXPIRED|DEPTH_ZERO_SELF_SIGNED",
        "the server's certificate is not signed by a known authority",
        "package the authority's certificate and set the path to it",
        "configuration.md#the-process",
        "env.NODE_EXTRA_CA_CERTS, or env.DENO_CERT",
    ),
    Entry(
        "`too many connections`, `remaining connection slots are reserved`",
        r"[Tt]oo many connections|remaining connection slots|"
        r"max_user_connections|Too many clients|too many clients already",
        "each process opens its own connections, and the database's limit is reached",
        "close them in the handler, or put a proxy in front of the database",
        "guides/databases.md",
        "LAMBDA_DENO_MAX_INVOCATIONS",
    ),
    Entry(
        "`EADDRINUSE`, `Address already in use (os error 98)`",
        r"EADDRINUSE|AddrInUse|Address already in use",
        "another program, or another event's process, listens on this port",
        "listen on port 0, or stop the other process; `dev` takes --port",
        "handlers.md#any-web-app",
    ),
    Entry(
        "`getaddrinfo ENOTFOUND`, `failed to lookup address information`, "
        "`connect ETIMEDOUT`, `error sending request for url`, `fetch failed`",
        r"ENOTFOUND|EAI_AGAIN|failed to lookup address|dns error|ETIMEDOUT|"
        r"ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|socket hang up|"
        r"[Cc]onnection (?:refused|timed out|reset)|EPIPE|Broken pipe|"
        r"error sending request|fetch failed|"
        r"Network is unreachable|Connect Timeout Error|Connect timeout on endpoint",
        "the host cannot be reached: a wrong name, or a VPC without internet access",
        "check the address; add a NAT gateway or a VPC endpoint for the service",
        "project.md#tables-for-aws",
        "vpc.subnets",
    ),
    # Packages and deployment.
    Entry(
        "`Unzipped size must be smaller than 262144000 bytes`, "
        "`RequestEntityTooLargeException`",
        r"[Uu]nzipped size must be smaller|RequestEntityTooLarge|"
        r"consume more than the available size|CodeStorageExceeded",
        "the function and its layers are larger than Lambda accepts",
        "bundle the function, and exclude files that it does not load",
        "build.md#contents",
        "exclude",
    ),
    Entry(
        "`The role defined for the function cannot be assumed by Lambda`",
        r"cannot be assumed by Lambda",
        "the role does not trust lambda.amazonaws.com, or is only seconds old",
        "let `deploy` create a role, or add the trust policy to yours",
        "deploy.md#the-role",
        "role",
    ),
    Entry(
        "`no such CPython is on PATH`",
        r"no such CPython is on PATH",
        "byte code has to be compiled by the Python version that will run it",
        "install that version, or build for the one you have",
        "layers.md#byte-code",
        "runtime",
    ),
    Entry(
        "`exceeded the 4KB limit`",
        r"exceeded the 4KB limit",
        "Lambda accepts at most 4 KB of environment variables",
        "let variables refer to parameters or secrets, or package a file",
        "secrets.md",
        "env",
    ),
    Entry(
        "`ResourceConflictException`, `An update is in progress`",
        r"ResourceConflictException|[Aa]n update is in progress",
        "another deployment is changing this function",
        "run the command again; in a pipeline, do not run deployments in parallel",
        "ci.md#github-actions",
    ),
    # How an invocation ended.
    Entry(
        "`Failed to create cache storage directory`, `Not a directory (os error 20)`",
        r"Failed to create cache storage directory|Not a directory \(os error 20\)",
        "the Cache API and Deno.openKv() have no storage here",
        "store data in a service, or for one event in a file below TMPDIR",
        "configuration.md#the-process",
    ),
    Entry(
        "`INIT_REPORT … Status: timeout`",
        r"INIT_REPORT[^\n]*Status: timeout",
        "loading the module took longer than the ten seconds that Lambda allows",
        "package all modules so that nothing is downloaded; do less at module level",
        "build.md#the-cache",
        "memory",
    ),
    Entry(
        "`Runtime.HandlerNeverSettled`",
        r"Runtime\.HandlerNeverSettled|Promise resolution is still pending",
        "the handler returned a promise that can no longer settle",
        "look for a missing await, or a callback that is never called",
        "handlers.md#callbacks",
    ),
    Entry(
        "`Runtime.InvokeTimeout`, `Sandbox.Timedout`, `Task timed out`, "
        "`Endpoint request timed out`",
        r"Runtime\.InvokeTimeout|Task timed out|Sandbox\.Timedout|"
        r"Endpoint request timed out|Signal timed out|"
        r"The (?:operation|signal) (?:was|has been) aborted",
        "the handler was still running shortly before the timeout of the function, or "
        "of the API in front of it",
        "raise the timeout, or pass context.signal to fetch so that it stops in time",
        "handlers.md#the-context",
        "timeout",
    ),
    Entry(
        "`Runtime.OutOfMemory`, `JavaScript heap out of memory`, `signal: killed`",
        r"Runtime\.OutOfMemory|heap limit|signal: killed|[Oo]ut of memory|ENOMEM|"
        r"Cannot allocate memory",
        "V8's heap or the environment's memory was full",
        "raise the memory; LAMBDA_DENO_METRICS=json shows each event's peak",
        "metrics.md",
        "memory",
    ),
    Entry(
        "`Runtime.ResourceExhausted`, `Too many open files`, `No space left on device`",
        r"Runtime\.ResourceExhausted|[Tt]oo many open files|EMFILE|ENOSPC|EAGAIN|"
        r"[Nn]o space left|Resource temporarily unavailable",
        "processes, file descriptors or space in /tmp ran out",
        "close files and sockets, and wait for the programs that the handler starts",
        "configuration.md#the-process",
        "storage",
    ),
    Entry(
        "`Runtime.UnsupportedEvent`",
        r"Runtime\.UnsupportedEvent",
        "a web app received an event that is not an HTTP request",
        "export a `handler` for other events",
        "handlers.md#web-standard-fetch",
    ),
    Entry(
        "`Runtime.InvalidResponse`",
        r"Runtime\.InvalidResponse\b",
        "a web app's `fetch` did not return a `Response`",
        "return one in every branch, including those for errors",
        "handlers.md#web-standard-fetch",
    ),
    Entry(
        "`Runtime.ServerClosed`",
        r"Runtime\.ServerClosed",
        "the module has closed the server that handles its events",
        "keep it open until the process ends",
        "handlers.md#any-web-app",
    ),
    Entry(
        "`Malformed Lambda proxy response`",
        r"[Mm]alformed Lambda proxy response",
        "API Gateway expects statusCode, headers and a body that is text",
        "return these, or export `fetch`, whose Response is translated",
        "handlers.md#web-standard-fetch",
    ),
    Entry(
        '`{"message":"Internal Server Error"}` from a URL',
        r"\"?[Mm]essage\"?: ?\"?Internal [Ss]erver [Ee]rror",
        "the function failed; its log has the reason, the caller does not get it",
        "run `lambda-deno-spawn explain --logs FUNCTION`",
        "deploy.md#logs",
    ),
    Entry(
        "`Function.ResponseSizeTooLarge`",
        r"ResponseSizeTooLarge",
        "the response is larger than the 6 MB that Lambda accepts",
        "stream it, or store it and return its address",
        "guides/streaming.md",
        "response_mode",
    ),
    Entry(
        "`Runtime.TruncatedResponse`",
        r"Runtime\.TruncatedResponse",
        "a streamed response ended before it was complete",
        "look in the log for the handler's error, or for a timeout",
        "handlers.md#streamed-responses",
    ),
    Entry(
        "`Runtime.InvalidStreamingOperation`",
        r"Runtime\.InvalidStreamingOperation",
        "a chunk of the stream is neither text nor bytes, or the content type is not a "
        "valid header value",
        "encode the chunk; the message has its type",
        "handlers.md#streamed-responses",
    ),
    Entry(
        "`Runtime.StreamUnavailable`",
        r"Runtime\.StreamUnavailable",
        "the connection for a streamed response could not be opened; nothing was sent",
        "try again; the message has the reason",
        "handlers.md#streamed-responses",
    ),
    Entry(
        "`Runtime.JSONStringifyError`, `Converting circular structure to JSON`",
        r"Runtime\.JSONStringifyError|Do not know how to serialize a BigInt|"
        r"Converting circular structure",
        "the result cannot be written as JSON",
        "convert BigInt values, circular objects and the like before returning",
        "handlers.md#a-function",
    ),
    Entry(
        "`Runtime.UnmarshalError`, `Runtime.LambdaContextUnmarshalError`",
        r"Runtime\.(?:UnmarshalError|LambdaContextUnmarshalError)",
        "the event or the client context is not JSON",
        "correct the request that the caller sends",
        "reference/errors.md",
    ),
    Entry(
        "`Runtime.WorkerProtocolError`",
        r"Runtime\.WorkerProtocolError",
        "another program wrote into the response, a part of it was too long, or stdout "
        "was closed",
        "do not let programs that the handler starts inherit stdout",
        "reference/errors.md",
    ),
    Entry(
        "`Runtime.LambdaRuntimeClientError`",
        r"Runtime\.LambdaRuntimeClientError|Cannot complete Runtime API call",
        "Lambda's Runtime API refused or aborted the call that posts the outcome",
        "check the status in the message; a size or a name may exceed a limit",
        "reference/errors.md",
    ),
    Entry(
        "`Runtime.BeforeSnapshotError`",
        r"Runtime\.BeforeSnapshotError",
        "SnapStart: the environment could not be made ready for its snapshot",
        "read the message, which gives the reason",
        "layers.md#snapstart",
    ),
    Entry(
        "`Runtime.AfterRestoreError`",
        r"Runtime\.AfterRestoreError",
        "SnapStart: the module could not be loaded after a restore",
        "correct the error that the message names",
        "layers.md#snapstart",
    ),
    Entry(
        "`Runtime.Unknown`, `Function.Unknown`",
        r"(?:Runtime|Function)\.Unknown\b",
        "the error's name is not a valid error type for Lambda",
        "read the message and the log; use only letters in names of error classes",
        "reference/errors.md",
    ),
    Entry(
        "`Runtime.SecretUnavailable`",
        r"Runtime\.SecretUnavailable",
        "a secret that a variable refers to could not be fetched during init",
        "check its name, the role's policy, and the VPC's access to the service",
        "secrets.md#what-the-role-has-to-allow",
        "env",
    ),
    Entry(
        "`Runtime.InvalidConfiguration`, `Cannot use LAMBDA_DENO_…`",
        r"Runtime\.InvalidConfiguration|Cannot use LAMBDA_DENO_|"
        r"Deno refuses to start|Failed to load config file|unexpected argument '--",
        "a setting or deno.json has a value that cannot be used",
        "correct the value that the message names",
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
        "`there is no library to fork with`",
        r"there is no library to fork with",
        "this package, or the one that built the layer, was installed from source "
        "without the compiler; events work, but each loads the module",
        "run `pip install ziglang`, then `make native` in the checkout, and install "
        "from it again; then run `layer build` and `layer publish`",
        "native.md",
    ),
    Entry(
        "`Events are served by processes of their own start`",
        r"Events are served by processes of their own start",
        "this function cannot be forked safely; the same line gives the reason",
        "nothing, unless the cost matters; then remove the cause",
        "fork.md#when-a-process-is-started-instead",
        "start",
    ),
    Entry(
        "`Runtime.UnhandledPromiseRejection`, `Uncaught (in promise)`",
        r"Runtime\.UnhandledPromiseRejection|Uncaught \(in promise\)|"
        r"ERR_UNHANDLED_REJECTION",
        "a promise was rejected, and no code awaited it",
        "await it, or pass it to context.waitUntil",
        "handlers.md#the-context",
    ),
    Entry(
        "`Maximum call stack size exceeded`",
        r"Maximum call stack size exceeded",
        "a function recurses without end, or data is nested very deeply",
        "look for repeated frames in the log's stack trace",
        "handlers.md#logs",
        "env.NODE_OPTIONS=--stack-trace-limit=50",
    ),
    Entry(
        "`Runtime.ExitError`, `Runtime exited`",
        r"Runtime\.ExitError|Runtime exited|Runtime\.NodeJsExit|"
        r"Process exited before completing",
        "the process ended before it sent a response",
        "return or throw instead of calling Deno.exit or process.exit",
        "reference/errors.md",
    ),
)
# The part of Deno's messages that says which permission is missing.
DENIED = re.compile(
    r"Requires (?P<kind>net|env|read|write|run|sys|import|ffi) access"
    r"(?: to \"(?P<what>[^\"]+)\")?"
)
# The runtime's own advice, which knows the present setting.
NAMED = re.compile(r"set LAMBDA_DENO_PERMISSIONS=(\"[^\"]+\")")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def explain(text: str) -> list[Explanation]:
    """Return explanations of the errors in a text, in the order of the text."""
    found: dict[Entry, Explanation] = {}
    for line in ESCAPES.sub("", text).splitlines():
        # In a log of JSON, the quotes of a message are escaped, and so are its lines.
        for part in line.replace('\\"', '"').split("\\n"):
            for entry in ENTRIES:
                match = re.search(entry.pattern, part)
                if match is None:
                    continue
                if entry not in found:
                    seen = _shortened(part.strip(), match[0])
                    found[entry] = Explanation(seen, entry, _setting(entry, part))
                break
    return list(found.values())


def _shortened(line: str, around: str) -> str:
    if len(line) <= SEEN_LIMIT:
        return line
    start = max(0, line.index(around.strip()) - SEEN_LIMIT // 2)
    return f"…{line[start : start + SEEN_LIMIT].strip()}…"


def _setting(entry: Entry, line: str) -> str:
    """Return what to set; for a missing permission, with the flag that grants it."""
    if "permissions" not in entry.setting:
        return entry.setting
    if "address of the Runtime API" in line:
        return ""  # no permission opens it
    if (named := NAMED.search(line)) is not None:
        return f"permissions = {named[1]}"
    denied = DENIED.search(line)
    if denied is None:
        return entry.setting
    what = f"={denied['what']}" if denied["what"] else ""
    return f'permissions = "default --allow-{denied["kind"]}{what}"'


def table() -> str:
    """Return the entries that show no error type, for docs/troubleshooting.md."""
    rows = []
    for entry in ENTRIES:
        if entry.error_types:
            continue
        setting = f"`{entry.setting}`" if entry.setting else ""
        more = f"[more]({entry.page})"
        cells = (entry.shown, entry.why, entry.do, setting, more)
        rows.append(f"| {' | '.join(cells)} |")
    head = ["| Text | Why | What to do | Setting | |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])

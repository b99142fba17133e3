"""``explain``: which entry an error text leads to."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lambda_deno_spawn.config import KNOWN_VARIABLES
from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.dev.doctor.explain import ENTRIES, Entry, explain
from lambda_deno_spawn.dev.recording.store import folder, write
from lambda_deno_spawn.recording.form import KIND, VERSION

DOCS = Path(__file__).parents[4] / "docs"
# Error texts as Deno, packages, AWS and this runtime write them; the page that has to
# be named, and a part of the setting.
CASES = [
    (
        '{"errorType":"Runtime.HandlerNotFound","errorMessage":"x"}',
        "configuration.md#the-handler",
        "handler",
    ),
    (
        'NotCapable: Requires net access to "a.test:443", run again',
        "configuration.md#permissions",
        'permissions = "default --allow-net=a.test:443"',
    ),
    (
        'Error: EACCES: Requires read access to "/etc/hosts" (denied); '
        'set LAMBDA_DENO_PERMISSIONS="--allow-net --allow-read=/etc/hosts", or list',
        "configuration.md#permissions",
        'permissions = "--allow-net --allow-read=/etc/hosts"',
    ),
    (
        'NotCapable: Requires net access to "127.0.0.1:9001": this is the address of '
        "the Runtime API, which no permission opens",
        "configuration.md#permissions",
        "",
    ),
    (
        'NotCapable: Requires write access to "/tmp/x"',
        "from-node.md#temporary-files",
        "",
    ),
    (
        'NotCapable: Requires run access to "git", run again with the --allow-run flag',
        "from-node.md#what-a-handler-may-do",
        'permissions = "default --allow-run=git"',
    ),
    (
        "INFO Events are served by processes of their own start: there is no library "
        "to fork with for x86_64",
        "native.md",
        "",
    ),
    (
        "Error: Cannot find module 'aws-sdk'",
        "compatibility.md#how-to-provide-packages",
        "imports",
    ),
    (
        '{"errorMessage":"Relative import path \\"@aws-sdk/client-s3\\" not prefixed"}',
        "compatibility.md#how-to-provide-packages",
        "imports",
    ),
    (
        'error: Relative import path "lodash" not prefixed with / or ./ or ../',
        "compatibility.md#how-to-provide-packages",
        "imports",
    ),
    (
        'error: Import "@/lib/db.ts" not a dependency and not in import map',
        "compatibility.md#how-to-provide-packages",
        "imports",
    ),
    (
        "[ERR_MODULE_NOT_FOUND]: Cannot find module './util' imported from 'file:///x'",
        "build.md#contents",
        "include",
    ),
    ("Error: Cannot find package 'left-pad' from '/x'", "build.md#contents", "include"),
    (
        'error: Specifier not found in cache: "npm:hono", --cached-only is specified.',
        "build.md#the-cache",
        "bundle",
    ),
    (
        "error: Could not find npm package 'hono' matching '^99.0.0'.",
        "build.md#the-cache",
        "bundle",
    ),
    (
        "error: The lockfile is out of date. Run `deno install --frozen=false`",
        "configuration.md#project-files",
        "deno.lock",
    ),
    (
        "SyntaxError: The requested module 'x' does not provide an export named 'y'",
        "from-node.md",
        "",
    ),
    ("ReferenceError: require is not defined", "compatibility.md", "package.json"),
    (
        "SyntaxError: Cannot use import statement outside a module",
        "compatibility.md",
        "package.json",
    ),
    (
        "TypeError: Expected a JavaScript or TypeScript module, but identified a Json "
        "module. Consider importing Json modules with an import attribute",
        "from-node.md",
        "",
    ),
    ("SyntaxError: Unexpected token '}' at file:///f.js:1:2", "handlers.md", ""),
    (
        "error: Decorators are not valid here",
        "compatibility.md",
        "experimentalDecorators",
    ),
    ("ReferenceError: React is not defined", "configuration.md", "jsxImportSource"),
    (
        'error: Relative import path "react/jsx-runtime" not prefixed with /',
        "configuration.md",
        "jsxImportSource",
    ),
    ("TypeError: Deno.openKv is not a function", "from-deno.md", "unstable"),
    ("TypeError: Deno.cron is not a function", "guides/queues", "schedule"),
    ("TypeError: Deno.umask2 is not a function", "configuration.md", "unstable"),
    ("TS2304 [ERROR]: Cannot find name 'x'.", "from-node.md", ""),
    (
        'Error: Could not load the "sharp" module using the linux-x64 runtime',
        "packages.md",
        "--allow-ffi",
    ),
    (
        "Error: Could not locate the bindings file. Tried: build/Release/a.node",
        "packages.md",
        "--allow-ffi",
    ),
    ('NotCapable: Requires ffi access to "/x.node"', "packages.md", "--allow-ffi"),
    (
        "ENOENT: no such file or directory, open './config.json'",
        "configuration.md#permissions",
        "include",
    ),
    (
        "NotFound: No such file or directory (os error 2): readfile 'a'",
        "configuration.md#permissions",
        "include",
    ),
    (
        "CredentialsProviderError: Could not load credentials from any providers",
        "configuration.md#variables",
        "LAMBDA_DENO_ENV",
    ),
    (
        "AccessDeniedException: User: arn:aws:sts::1:role/r is not authorized to "
        "perform: dynamodb:PutItem on resource: t",
        "guides/least-privilege.md",
        "role",
    ),
    (
        "TypeError: error sending request for url (https://a.test/): dns error: failed "
        "to lookup address information",
        "project.md#tables-for-aws",
        "vpc",
    ),
    ("Error: connect ECONNREFUSED 10.0.0.1:5432", "project.md", "vpc"),
    ("error: sorry, too many clients already", "guides/databases.md", "INVOCATIONS"),
    ("invalid peer certificate: UnknownIssuer", "configuration.md", "CERT"),
    ("AddrInUse: Address already in use (os error 98)", "handlers.md", ""),
    ("TypeError: Converting circular structure to JSON", "handlers.md", ""),
    ("2026 x Task timed out after 3.00 seconds", "handlers.md", "timeout"),
    (
        "INIT_REPORT Init Duration: 9999.1 ms\tPhase: init\tStatus: timeout",
        "build.md",
        "memory",
    ),
    (
        "REPORT … Status: error Error Type: Runtime.OutOfMemory",
        "metrics.md",
        "memory",
    ),
    ("#  Fatal JavaScript out of memory: Reached heap limit", "metrics.md", "memory"),
    (
        "RequestId: 1 Error: Runtime exited with error: signal: killed",
        "metrics.md",
        "memory",
    ),
    (
        "[ERROR] Runtime.ImportModuleError: Unable to import module 'function': No "
        "module named 'function'",
        "layers.md",
        "AWS_LAMBDA_EXEC_WRAPPER",
    ),
    (
        "Error: Cannot find module 'function' Require stack: - /var/runtime/index.mjs",
        "layers.md",
        "runtime",
    ),
    (
        "Unzipped size must be smaller than 262144000 bytes",
        "build.md",
        "exclude",
    ),
    (
        "Cannot use LAMBDA_DENO_WARM: its value is 'x'; expected ready",
        "configuration.md",
        "",
    ),
    ("Error: spawn ffmpeg ENOENT", "from-node.md#what-a-handler", "--allow-run"),
    (
        "NotFound: Failed to spawn 'git': entity not found",
        "from-node.md",
        "--allow-run",
    ),
    ("error: Unsupported lockfile version '6'.", "configuration.md", "deno.lock"),
    ('Error: Dynamic require of "fs" is not supported', "compatibility.md", "type"),
    (
        "error: JSR package manifest for '@x/y' failed to load. Import 'https://j' "
        "failed: error sending request for url",
        "build.md#the-cache",
        "bundle",
    ),
    ("TimeoutError: Signal timed out.", "handlers.md#the-context", "timeout"),
    ('{"message":"Internal Server Error"}', "deploy.md#logs", ""),
    ("ResourceConflictException: An update is in progress", "ci.md", ""),
    ("variables you have provided exceeded the 4KB limit", "secrets.md", "env"),
    ("\x1b[31merror\x1b[0m: Uncaught (in promise) Error: x", "handlers.md", ""),
]


@pytest.mark.parametrize(("text", "page", "setting"), CASES)
def test_a_text_leads_to_its_page_and_setting(
    text: str, page: str, setting: str
) -> None:
    [found] = explain(text)
    assert found.entry.page.startswith(page)
    assert setting in found.setting
    assert bool(setting) == bool(found.setting)


@pytest.mark.parametrize(
    "text",
    [
        "TypeError: x is not a function",
        "TypeError: Cannot read properties of undefined (reading 'value')",
        "    at renderToString (npm:react@19/jsx-runtime.js:3:1)",
        "REPORT RequestId: 1 Duration: 3.00 ms Billed Duration: 4 ms",
        '{"level":"INFO","message":"module loaded"}',
        "SyntaxError: Unexpected token 'a', \"abc\" is not valid JSON",
    ],
)
def test_a_text_without_a_known_error_is_not_explained(text: str) -> None:
    assert explain(text) == []


def test_each_error_is_explained_once_in_the_order_of_the_text() -> None:
    text = "Runtime.ExitError\nall is well\nNotCapable\nRuntime.ExitError again\n"
    assert [found.seen for found in explain(text)] == [
        "Runtime.ExitError",
        "NotCapable",
    ]


def test_errors_inside_one_record_of_json_are_told_apart() -> None:
    record = json.dumps({"errorMessage": 'Cannot find module "aws-sdk"\nEROFS: x'})
    assert len(explain(record)) == 2


def test_a_long_line_is_shown_around_the_error() -> None:
    [found] = explain("a" * 5000 + " NotCapable " + "b" * 5000)
    assert "NotCapable" in found.seen
    assert len(found.seen) < 200


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.shown)
def test_an_entry_finds_what_it_shows_and_names_a_page(entry: Entry) -> None:
    assert (DOCS / entry.page.partition("#")[0]).is_file()
    for text in re.findall(r"`([^`]+)`", entry.shown):
        found = explain(text.replace("…", "x"))
        assert [each.entry for each in found] == [entry], text


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.shown)
def test_a_setting_exists(entry: Entry) -> None:
    keys = (DOCS / "project.md").read_text(encoding="utf-8")
    documented = {*re.findall(r"`\[*([a-z_.]+)\]*`", keys), *KNOWN_VARIABLES}
    documented |= {"AWS_LAMBDA_EXEC_WRAPPER"}
    for setting in filter(None, re.split(", or ", entry.setting)):
        name = re.split(r"[ =]", setting)[0]
        in_json = re.search(r" in (?:deno|package)\.json$|^deno\.lock$", setting)
        first = name.partition(".")[0]  # a variable of the function, [env]
        assert in_json or name in documented or first in documented, setting


def test_the_command_explains_a_log_from_stdin() -> None:
    done = CliRunner().invoke(app, ["explain"], input="x\nRuntime.OutOfMemory\n")
    assert done.exit_code == 0
    assert done.stdout.startswith("Runtime.OutOfMemory\n  why: ")
    assert "\n  set: memory\n" in done.stdout
    assert "/metrics/" in done.stdout


@pytest.mark.parametrize("prefix", ["", "@"])
def test_the_command_fails_if_it_knows_no_error(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "log"
    file.write_text("all is well", encoding="utf-8")
    done = CliRunner().invoke(app, ["explain", f"{prefix}{file}", "-o", "json"])
    assert (done.exit_code, done.stdout) == (1, '{"ok": false, "explanations": []}\n')


def test_the_address_of_a_page_has_its_section() -> None:
    done = CliRunner().invoke(app, ["explain", "NotCapable"])
    assert "/configuration/#permissions\n" in done.stdout


def test_the_last_failure_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert (
        "no failure is recorded" in CliRunner().invoke(app, ["explain", "last"]).stderr
    )
    form: dict[str, Any] = {
        **dict.fromkeys(("origin", "code"), ""),
        **{name: {} for name in ("function", "settings", "context")},
        **{name: [] for name in ("redacted", "cut")},
        **{"type": KIND, "version": VERSION, "requestId": "1234", "log": None},
    }
    times = ("2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z")
    answered = {"kind": "response", "status": "success"}
    failed = {
        "kind": "error",
        "status": "error",
        "payload": {"text": "Runtime.OutOfMemory"},
    }
    for time, outcome in zip(times, (failed, answered), strict=True):
        write({**form, "time": time, "outcome": outcome}, folder(os.environ))
    done = CliRunner().invoke(app, ["explain", "last"])
    assert done.stdout.startswith("Runtime.OutOfMemory\n")
    assert "20260101T" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["x", "--logs", "orders"], "Cannot use TEXT with --logs"),
        (["x", "--since", "1h"], "add --logs FUNCTION"),
        ([" "], "Cannot explain an empty text"),
        (["/"], "it is a folder"),
    ],
)
def test_sources_that_cannot_be_used_are_refused(
    arguments: list[str], what: str
) -> None:
    done = CliRunner().invoke(app, ["explain", *arguments])
    assert done.exit_code == 2
    assert what in done.stderr

"""A debugger for an invocation: settings, how to attach, and the command of Deno."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_deno_spawn.dev.local.inspected import with_inspector
from lambda_deno_spawn.dev.local.inspector import how_to_attach, inspected
from lambda_deno_spawn.dev.local.runtime import lambda_environ
from lambda_deno_spawn.dev.project.function import Function, Inspect, InvokeOptions
from lambda_deno_spawn.launch.command import DenoCommand
from lambda_deno_spawn.launch.entry import entry_source
from lambda_deno_spawn.launch.node_options import Preload

FUNCTION = Function(Path("/srv/f"), "function.handler")


def options(**variables: str) -> InvokeOptions:
    return InvokeOptions(FUNCTION, variables=variables, inspect=Inspect(), warm="ready")


def command(*permissions: str, preloads: tuple[Preload, ...] = ()) -> DenoCommand:
    return DenoCommand(
        binary="deno",
        arguments=("run",),
        permissions=permissions,
        private_permissions=(),
        permission_set=None,
        entry="/s/entry.mjs",
        entry_text=entry_source("/srv/f/function.ts", preloads=preloads),
        given_cache=None,
        environ={},
        cwd="/srv/f",
        facts={},
        sources="",
    )


def test_one_process_at_a_time_begins_with_its_event_and_is_no_fork() -> None:
    variables = inspected(options(LAMBDA_DENO_START="fork")).variables
    assert variables["LAMBDA_DENO_START"] == "exec"
    assert variables["LAMBDA_DENO_WARM"] == "off"
    environ = lambda_environ(inspected(options()), "127.0.0.1:1", "/tmp/t", {})
    assert environ["LAMBDA_DENO_WARM"] == "off"


def test_timeout_is_suspended_for_less_than_a_timer_can_take() -> None:
    assert 24 * 3600 < inspected(options()).timeout_s < 2**31 / 1000


@pytest.mark.parametrize(("start", "count"), [("fork", 1), ("auto", 1), ("exec", 0)])
def test_a_fork_that_gives_way_is_told_once(start: str, count: int) -> None:
    text = how_to_attach(options(LAMBDA_DENO_START=start), {})
    assert text.count("begins as a `deno run`") == count
    text = how_to_attach(options(), {"LAMBDA_DENO_START": start})
    assert text.count("begins as a `deno run`") == count


def test_another_port_has_to_be_told_to_chrome() -> None:
    assert "Configure" not in how_to_attach(options(), {})
    other = InvokeOptions(FUNCTION, inspect=Inspect(9300))
    assert "add 127.0.0.1:9300" in how_to_attach(other, {})


@pytest.mark.parametrize("breaks", [False, True])
def test_process_waits_for_a_debugger_on_the_loopback_address(breaks: bool) -> None:
    found = with_inspector("127.0.0.1:9", command("--allow-net"), breaks=breaks)
    assert "--inspect-wait=127.0.0.1:9" in found.arguments
    assert "import { start as begin } from" in found.entry_text
    assert 'import("file:///srv/f/function.ts")' in found.entry_text
    assert ("node:inspector" in found.entry_text) is breaks


@pytest.mark.parametrize(
    ("flag", "is_added"),
    [("--allow-net", True), ("--allow-sys", False), ("--allow-all", False)],
)
def test_the_session_in_the_process_gets_its_permission(
    flag: str,
    is_added: bool,
) -> None:
    found = with_inspector("127.0.0.1:9", command(flag), breaks=True)
    assert ("--allow-sys=inspector" in found.arguments) is is_added
    found = with_inspector("127.0.0.1:9", command(flag), breaks=False)
    assert "--allow-sys=inspector" not in found.arguments


def test_what_vs_code_tells_every_node_program_is_not_for_the_function() -> None:
    given = {"NODE_OPTIONS": "--require /x/bootloader.js", "PATH": "/bin"}
    environ = lambda_environ(options(), "127.0.0.1:1", "/tmp/t", given)
    assert environ["NODE_OPTIONS"] == given["NODE_OPTIONS"]
    given["VSCODE_INSPECTOR_OPTIONS"] = ":::{}"
    environ = lambda_environ(options(), "127.0.0.1:1", "/tmp/t", given)
    assert not {"NODE_OPTIONS", "VSCODE_INSPECTOR_OPTIONS"} & environ.keys()

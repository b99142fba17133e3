"""The command ``doctor``: parses its options, and prints what it found.

Knows the options and the output. Does not know how a machine, a function or the
isolation of events is checked. Exit codes: see ``console``. Specification:
docs/doctor.md and the help texts below.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.config import Strategy
from lambda_deno_spawn.dev.cli.console import EXIT_FAILED, Output, exit_codes
from lambda_deno_spawn.dev.cli.modes import Mode, refuse_ignored
from lambda_deno_spawn.dev.cli.options import (
    EnvFileOption,
    EnvOption,
    HandlerOption,
    StageOption,
    VerboseOption,
)
from lambda_deno_spawn.dev.cli.tables import write_checks, write_isolation
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.function import InvokeOptions
from lambda_deno_spawn.dev.project.project import load_project
from lambda_deno_spawn.dev.project.quotas import DEFAULT_MEMORY_MB
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.doctor.checks import Check
    from lambda_deno_spawn.dev.doctor.isolation import IsolationReport
    from lambda_deno_spawn.dev.project.project import Project

# A parameter names the modes that do not ignore it.
CHECKS = Mode("without --isolation", "the checks of a machine and a function")
ISOLATION = Mode(
    "with --isolation", "the isolation test", "leave {} out, or add --isolation"
)


def doctor(
    context: typer.Context,
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="FUNCTION",
            help="Also check this function: the handler's file, or its folder.",
        ),
        CHECKS,
    ] = None,
    *,
    stage: Annotated[StageOption, CHECKS] = None,
    handler: Annotated[HandlerOption, CHECKS] = None,
    env: Annotated[EnvOption, CHECKS] = None,
    env_file: Annotated[EnvFileOption, CHECKS] = None,
    isolation: Annotated[
        bool,
        typer.Option(
            "--isolation",
            help="Instead, run pairs of events, the first of them hostile, and show "
            "what leaks to the second.",
        ),
        ISOLATION,
    ] = False,
    strategy: Annotated[
        Strategy | None,
        typer.Option(help="With --isolation: how events reach the handler."),
        ISOLATION,
    ] = None,
    verbose: Annotated[VerboseOption, CHECKS, ISOLATION] = False,
    output: Annotated[
        Output,
        typer.Option("-o", "--output", help="text: a table; json: an object."),
        CHECKS,
        ISOLATION,
    ] = Output.TEXT,
) -> None:
    """Check this machine and a function for problems.

    To understand an error message, use `explain`. Exit code 0: no problem; 1: a problem
    or a leak.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.doctor.checks import examine
        from lambda_deno_spawn.dev.doctor.isolation import examine_isolation
        from lambda_deno_spawn.dev.local.runtime import run_until_signalled

        if isolation:
            refuse_ignored(context, ISOLATION)
            work = examine_isolation(strategy or Strategy.FRESH, os.environ)
            _show_isolation(run_until_signalled(work), output)
        else:
            refuse_ignored(context, CHECKS)
            options, project = _doctor_options(function, stage, handler, env, env_file)
            _show_checks(examine(os.environ, options, project), output)


def _doctor_options(
    function: str | None,
    stage: str | None,
    handler: str | None,
    env: list[str] | None,
    env_file: list[Path] | None,
) -> tuple[InvokeOptions | None, Project | None]:
    if function is not None:
        project = load_project(Path(function), handler, stage=stage)
        variables = project.variables_with(given_variables(env_file, env))
        memory_mb = project.memory_mb or DEFAULT_MEMORY_MB
        options = InvokeOptions(
            project.function, memory_mb=memory_mb, variables=variables
        )
        return options, project
    given = {
        "--handler": handler, "--stage": stage, "--env": env, "--env-file": env_file,
    }  # fmt: skip
    if names := [name for name, value in given.items() if value]:
        raise UsageError(
            f"Cannot use {' and '.join(names)}: no function is given; give its folder "
            "or its file"
        )
    return None, None


def _show_checks(checks: list[Check], output: Output) -> None:
    """Print the checks; exit with 1 if there is a problem."""
    from lambda_deno_spawn.dev.doctor.checks import Status

    is_ok = not any(check.status is Status.PROBLEM for check in checks)
    if output is Output.JSON:
        fields = [asdict(check) for check in checks]
        print(json.dumps({"ok": is_ok, "checks": fields}))
    else:
        write_checks(checks, sys.stdout)
    sys.stdout.flush()
    is_fine = all(check.status is Status.OK for check in checks)
    if output is Output.TEXT and not is_fine:
        why = "if a function has failed, `lambda-deno-spawn explain` says why"
        print(f"Note: {why}", file=sys.stderr)
    if not is_ok:
        raise typer.Exit(EXIT_FAILED)


def _show_isolation(report: IsolationReport, output: Output) -> None:
    """Print the leaks; exit with 1 if there are any."""
    if output is Output.JSON:
        counts = {"ok": report.is_ok, "leaked": report.leaked}
        print(json.dumps({**asdict(report), **counts}))
    else:
        write_isolation(report, sys.stdout)
    sys.stdout.flush()
    if not report.is_ok:
        raise typer.Exit(EXIT_FAILED)

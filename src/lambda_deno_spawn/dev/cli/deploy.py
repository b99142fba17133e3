"""The commands ``deploy`` and ``delete``: their options, prompts and output.

Knows the options, when to ask for confirmation, and the output: the result on stdout,
all else on stderr. Does not know how a plan is made or carried out. Modules that are
slow to import are imported by the command that needs them. Specification:
docs/deploy.md and the help texts below.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lambda_deno_spawn.config import ResponseMode
from lambda_deno_spawn.dev.cli.console import (
    EXIT_CHANGES,
    Output,
    confirm,
    exit_codes,
)
from lambda_deno_spawn.dev.cli.image import (
    BaseOption,
    ImageRequest,
    PythonDirOption,
    built_image,
)
from lambda_deno_spawn.dev.cli.layer import build_missing
from lambda_deno_spawn.dev.cli.options import (
    BucketOption,
    DryRunOption,
    EnvFileOption,
    FunctionArgument,
    HandlerOption,
    NameOption,
    OutOption,
    OutputOption,
    ProfileOption,
    ProjectArgument,
    RegionOption,
    StageOption,
    VerboseOption,
    YesOption,
    layer_zips,
    whole_function,
)
from lambda_deno_spawn.dev.project.aws_keys import check_aws_options
from lambda_deno_spawn.dev.project.env_file import given_variables
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.quotas import (
    MB,
    MEMORY_MAX_MB,
    MEMORY_MIN_MB,
    TIMEOUT_LIMIT_S,
    UNZIPPED_LIMIT_BYTES,
)
from lambda_deno_spawn.dev.project.target import find_project, find_target
from lambda_deno_spawn.errors import UsageError
from lambda_deno_spawn.launch.handler import HANDLER_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.aws.execute import Executor
    from lambda_deno_spawn.dev.aws.image import Repository
    from lambda_deno_spawn.dev.aws.plan import Plan
    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.aws.wanted import Current, PackageZip, Wanted
    from lambda_deno_spawn.dev.package.build import BuildOptions, Package
    from lambda_deno_spawn.dev.project.project import Project


class UrlAuth(StrEnum):
    """Who may call a function URL."""

    AWS_IAM = "AWS_IAM"
    NONE = "NONE"


class Tenancy(StrEnum):
    """Whether tenants share execution environments."""

    PER_TENANT = "per-tenant"


class Tracing(StrEnum):
    """Whether Lambda traces invocations."""

    ACTIVE = "active"
    PASS_THROUGH = "pass-through"


class LogFormat(StrEnum):
    """How Lambda and the runtime write their logs."""

    JSON = "json"
    TEXT = "text"


def deploy(
    function: ProjectArgument = ".",
    *,
    stage: StageOption = None,
    package: Annotated[
        Path | None,
        typer.Option(metavar="ZIP", help="Package to deploy.  [default: build it]"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name in Lambda.  [default: from lambda.toml or the folder]",
        ),
    ] = None,
    handler: HandlerOption = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME",
            help="python3.12, python3.13, python3.14 or provided.al2023.",
        ),
    ] = None,
    arch: Annotated[
        Arch | None,
        typer.Option(help="Instruction set.  [default: lambda.toml's, else x86_64]"),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            min=MEMORY_MIN_MB,
            max=MEMORY_MAX_MB,
            help="Memory size.  [default: unchanged; 512 for a new function]",
        ),
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            max=TIMEOUT_LIMIT_S,
            help="Function timeout.  [default: unchanged; 3 for a new function]",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ARN|NAME",
            help="Execution role.  [default: unchanged; a new function gets a new one]",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARN",
            help="Layer version, in order; may be repeated.  [default: the newest of "
            "the runtime]",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Environment variable; may be repeated."
        ),
    ] = None,
    env_file: EnvFileOption = None,
    replace_env: Annotated[
        bool,
        typer.Option(
            "--replace-env",
            help="Remove all other variables.  [default: keep them]",
        ),
    ] = False,
    alias: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Publish a version, and point this alias to it.  [default: "
            "lambda.toml's, else none]",
        ),
    ] = None,
    function_url: Annotated[
        bool | None,
        typer.Option(
            "--function-url/--no-function-url",
            help="Add or remove the function URL.  [default: unchanged]",
            show_default=False,
        ),
    ] = None,
    function_url_auth: Annotated[
        UrlAuth | None,
        typer.Option(
            help="Who may call the URL; NONE: everyone.  "
            "[default: unchanged; AWS_IAM for a new URL]",
            show_default=False,
        ),
    ] = None,
    log_retention: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS",
            help="How long logs are kept.  [default: unchanged; 30 for new logs]",
        ),
    ] = None,
    tenancy: Annotated[
        Tenancy | None,
        typer.Option(
            help="Give each tenant its own execution environments; only for a new "
            "function.",
            show_default=False,
        ),
    ] = None,
    snapstart: Annotated[
        bool | None,
        typer.Option(
            "--snapstart/--no-snapstart",
            help="Start versions from a snapshot.  [default: lambda.toml's, else "
            "unchanged]",
            show_default=False,
        ),
    ] = None,
    tracing: Annotated[
        Tracing | None,
        typer.Option(
            help="Trace with X-Ray.  [default: lambda.toml's, else unchanged]",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            help="Format of logs.  [default: lambda.toml's, else unchanged]",
            show_default=False,
        ),
    ] = None,
    subnet: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Subnet of a VPC; may be repeated."),
    ] = None,
    security_group: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Security group; may be repeated."),
    ] = None,
    reserved_concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Most invocations at a time; 0 stops the function."
        ),
    ] = None,
    provisioned_concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Environments kept ready for the alias."),
    ] = None,
    change_runtime: Annotated[
        bool,
        typer.Option(
            "--change-runtime",
            help="Replace a function that another tool created, or that a stack owns.",
        ),
    ] = False,
    image: Annotated[
        bool,
        typer.Option(
            "--image",
            help="Create it from a container image, and push the image to ECR.  "
            "[default: if lambda.toml has an image table]",
            show_default=False,
        ),
    ] = False,
    repository: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --image: repository in ECR.  [default: lambda.toml's, else the "
            "function's name, created if it does not exist]",
        ),
    ] = None,
    create_repository: Annotated[
        bool,
        typer.Option(
            "--create-repository",
            help="With --image: also create a repository that you name.",
        ),
    ] = False,
    base: BaseOption = None,
    python_dir: PythonDirOption = None,
    bucket: BucketOption = None,
    out: OutOption = Path("dist"),
    region: RegionOption = None,
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
    plan_only: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Like --dry-run, but exit with 4 if something would change, else 0.",
        ),
    ] = False,
    yes: YesOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Create or update a function in AWS.

    Prints the changes before it makes them. Run it again to finish an interrupted
    deployment; it changes nothing if the function is up to date.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.aws.deploy import check_package_type, plan_deploy
        from lambda_deno_spawn.dev.aws.deploy_layers import unpublished_layers
        from lambda_deno_spawn.dev.aws.image import find_repository
        from lambda_deno_spawn.dev.aws.publish import check_zip
        from lambda_deno_spawn.dev.aws.read import read_current, read_function
        from lambda_deno_spawn.dev.aws.session import Aws
        from lambda_deno_spawn.dev.aws.target import check_account, check_ambiguity
        from lambda_deno_spawn.dev.aws.wanted import check_wanted

        target = find_target(function, handler, stage)
        target.refuse_qualifier("deploy")
        project = find_project(target, handler, name)
        if function_url is False and function_url_auth is not None:
            raise UsageError(
                "Cannot use --function-url-auth with --no-function-url: one sets up a "
                "URL, the other removes it; leave out one of them"
            )
        if (subnet is None) != (security_group is None):
            given, missing = "--subnet", "--security-group"
            if subnet is None:
                given, missing = missing, given
            raise UsageError(
                f"Cannot use {given} without {missing}: a VPC needs both; give both"
            )
        keys = check_aws_options(
            _without_none(
                tenancy=None if tenancy is None else tenancy.value,
                snapstart=snapstart,
                tracing=None if tracing is None else tracing.value,
                reserved_concurrency=reserved_concurrency,
                provisioned_concurrency=provisioned_concurrency,
                logs=None if log_format is None else {"format": log_format.value},
                vpc=_without_none(subnets=subnet, security_groups=security_group)
                or None,
                image=_without_none(repository=repository) if image else None,
            )
        )
        wanted = _wanted(
            project,
            _without_none(
                name=name,
                runtime=runtime,
                arch=None if arch is None else arch.value,
                memory_mb=memory,
                timeout_s=timeout,
                role=role,
                layers=tuple(layer) if layer else None,
                alias=alias,
                url=True
                if function_url_auth and function_url is None
                else function_url,
                url_auth=None if function_url_auth is None else function_url_auth.value,
                retention_days=log_retention,
                bucket=bucket,
            ),
            keys=keys,
            variables=given_variables(env_file, env),
            replaces_env=replace_env,
            changes_runtime=change_runtime,
        )
        aws = Aws(target.choose_region(region), profile)
        check_wanted(wanted, aws.region)
        _ = aws.place  # reports invalid credentials before a long build
        check_account(aws, target)
        if name is None:
            check_ambiguity(aws, target)
        if wanted.is_image:
            if package is not None:
                raise UsageError(
                    "Cannot use --package for a container image: the image is made "
                    "from a package that is built now; leave it out"
                )
            place = find_repository(
                repository or wanted.keys.get("image.repository"),
                wanted.name,
                aws.place,
                may_create=create_repository,
            )
            there = read_function(aws, wanted.name)
            if there is not None:
                check_package_type(wanted, there)  # before a long build
            options = _build_options(project, Arch(wanted.arch), out)
            request = ImageRequest(
                options, base=base, python_dir=python_dir, profile=profile
            )
            wanted = _with_image(wanted, request, place)
        else:
            _refuse_without_image(
                {
                    "--repository": repository,
                    "--create-repository": create_repository or None,
                    "--base": base,
                    "--python-dir": python_dir,
                }
            )
            wanted = _with_package(wanted, project, package, out)
        current = read_current(aws, wanted, _built_layers(out, wanted))
        current = build_missing(wanted, current, out)
        for built in unpublished_layers(wanted, current):
            check_zip(built)
        _note_other_builds(current, out)
        plan = plan_deploy(wanted, current)
        if plan_only:
            _show_plan(plan, output, _plan_facts(wanted, current, plan))
            raise typer.Exit(EXIT_CHANGES if plan.steps else 0)
        executor = carry_out(
            aws, plan, f"deploy {wanted.name!r}", output, is_dry=dry_run, is_sure=yes
        )
        if executor is not None:
            _show_deployed(wanted, current, plan, executor, output)


def delete(
    function: FunctionArgument = None,
    *,
    name: NameOption = None,
    stage: StageOption = None,
    keep_role: Annotated[
        bool,
        typer.Option("--keep-role", help="Keep the role that `deploy` created for it."),
    ] = False,
    keep_logs: Annotated[
        bool,
        typer.Option("--keep-logs/--delete-logs", help="Keep or delete its log."),
    ] = True,
    region: RegionOption = None,
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete a function with its versions, aliases, URL and role.

    The role is deleted only if `deploy` created it.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.aws.read import plan_delete, read_leftovers
        from lambda_deno_spawn.dev.aws.session import Aws
        from lambda_deno_spawn.dev.aws.target import check_account, check_ambiguity

        target = whole_function("delete", function, name, stage)
        aws = Aws(target.choose_region(region), profile)
        check_account(aws, target)
        check_ambiguity(aws, target, has_name_option=True)
        found = read_leftovers(
            aws, target.name, keeps_role=keep_role, keeps_logs=keep_logs
        )
        plan = plan_delete(target.name, found, aws.place)
        executor = carry_out(
            aws, plan, f"delete {target.name!r}", output, is_dry=dry_run, is_sure=yes
        )
        if executor is None:
            return
        if output is Output.JSON:
            print(json.dumps({"deleted": executor.done}))
        else:
            for change in plan.changes:
                print(f"deleted {change.what}: {change.before}")
        sys.stdout.flush()


# The wanted state


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _wanted(
    project: Project,
    given: Mapping[str, Any],
    *,
    keys: Mapping[str, Any],
    variables: Mapping[str, str],
    replaces_env: bool,
    changes_runtime: bool,
) -> Wanted:
    """Return the wanted state from project file and options, without the package."""
    from lambda_deno_spawn.dev.aws.wanted import PackageZip, Wanted

    # With a table [url] the file decides, so what it does not set is Lambda's default.
    has_url = project.aws.get("url.enabled") is True
    invoke_mode = None
    if project.response_mode is ResponseMode.STREAM:
        invoke_mode = "RESPONSE_STREAM"
    elif has_url or project.response_mode is not None:
        invoke_mode = "BUFFERED"
    fields: dict[str, Any] = {
        "name": project.name,
        "handler": project.function.handler,
        "runtime": project.runtime,
        "arch": project.arch.value,
        "role": project.role,
        "layers": project.layers,
        "memory_mb": project.memory_mb,
        "timeout_s": project.timeout_s,
        "storage_mb": project.storage_mb,
        "description": project.description,
        "tags": project.tags,
        "invoke_mode": invoke_mode,
        "alias": project.aws.get("alias"),
        "bucket": project.aws.get("bucket"),
        "retention_days": project.aws.get("logs.retention"),
        "url": project.aws.get("url.enabled"),
        "url_auth": project.aws.get("url.auth") or ("AWS_IAM" if has_url else None),
        "recorded": (*project.aws, *(["image"] if "image.enabled" in keys else [])),
    }
    return Wanted(
        **{**fields, **given},
        package=PackageZip(Path(), "", 0),
        variables=project.variables_with(variables),
        replaces_env=replaces_env,
        changes_runtime=changes_runtime,
        keys={**project.aws, **keys},
    )


def _with_package(
    wanted: Wanted, project: Project, package: Path | None, out: Path
) -> Wanted:
    if package is not None:
        given = _given_package(package, project.function.handler)
        return dataclasses.replace(wanted, package=given)
    built, handler = _build_package(project, Arch(wanted.arch), out)
    return dataclasses.replace(wanted, package=built, handler=handler)


def _with_image(wanted: Wanted, request: ImageRequest, place: Repository) -> Wanted:
    from lambda_deno_spawn.dev.aws.image import FunctionImage

    package, built = built_image(request)
    image = FunctionImage(built.image, built.path, built.size_bytes, place)
    return dataclasses.replace(
        wanted, package=_zip_of(package), handler=package.handler, image=image
    )


def _build_options(project: Project, arch: Arch, out: Path) -> BuildOptions:
    from lambda_deno_spawn.dev.package.build import BuildOptions

    return BuildOptions(project=project, arch=arch, out=out)


def _build_package(project: Project, arch: Arch, out: Path) -> tuple[PackageZip, str]:
    """Build the package; return it and the handler."""
    from lambda_deno_spawn.dev.package.build import build

    package = build(_build_options(project, arch, out), os.environ)
    for note in package.notes:
        print(f"Note: {note}", file=sys.stderr)
    return _zip_of(package), package.handler


def _zip_of(package: Package) -> PackageZip:
    from lambda_deno_spawn.dev.aws.wanted import PackageZip

    return PackageZip(
        package.path, package.sha256, package.zipped_bytes, package.unzipped_bytes
    )


def _refuse_without_image(given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UsageError(
            f"Cannot use {' and '.join(names)} without --image: "
            f"{'it applies' if len(names) == 1 else 'they apply'} only to container "
            "images; add --image, or [image] in lambda.toml"
        )


def _given_package(path: Path, handler: str) -> PackageZip:
    """Check a zip before it is sent.

    Raises:
        UsageError: It is not a zip, is too large, or does not contain the handler.
    """
    from lambda_deno_spawn.dev.aws.wanted import PackageZip

    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            unzipped_bytes = sum(item.file_size for item in archive.infolist())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        zipped_bytes = path.stat().st_size
    except (OSError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "it is not a zip"
        raise UsageError(
            f"Cannot use the package {str(path)!r}: {str(reason).lower()}; give one "
            "from `lambda-deno-spawn build`"
        ) from error
    if unzipped_bytes > UNZIPPED_LIMIT_BYTES:
        raise UsageError(
            f"Cannot use the package {str(path)!r}: it has "
            f"{unzipped_bytes / MB:.1f} MB unzipped, and Lambda accepts 250 MB with "
            "all layers; leave out what the handler does not need"
        )
    words = handler.split(".")
    stems = [".".join(words[:count]) for count in range(1, len(words))]
    if not any(stem + end in names for stem in stems for end in HANDLER_SUFFIXES):
        raise UsageError(
            f"Cannot use the package {str(path)!r}: no file in it is the handler "
            f"{handler!r}; give the package of this function, or set --handler"
        )
    return PackageZip(path, digest, zipped_bytes, unzipped_bytes)


def _built_layers(out: Path, wanted: Wanted) -> list[LayerZip]:
    """Return the local layers that can be published if the function needs them."""
    if wanted.layers or wanted.is_image:
        return []
    return [layer for layer in layer_zips(out) if layer.path.is_file()]


def _note_other_builds(current: Current, out: Path) -> None:
    """Note local layers that differ from the published version in use."""
    from lambda_deno_spawn.dev.aws.publish import base64_digest

    for name, version in current.layers.items():
        built = current.built.get(name)
        if built is None or version is None:
            continue
        if version.code_sha256 != base64_digest(built.sha256):
            print(
                f"Note: {out} contains another build of {name} than version "
                f"{version.version}, which is used; publish it with "
                "`lambda-deno-spawn layer publish` to use it",
                file=sys.stderr,
            )


# Carrying out


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def carry_out(
    aws: Aws, plan: Plan, what: str, output: Output, *, is_dry: bool, is_sure: bool
) -> Executor | None:
    """Show a plan, ask for confirmation if it removes something, and carry it out.

    Returns:
        The executor that has run the plan; None after a dry run.

    Raises:
        UsageError: The plan removes something, and is not confirmed.
    """
    from lambda_deno_spawn.dev.aws.execute import Executor

    if is_dry:
        _show_plan(plan, output)
        return None
    _show_changes(plan)
    if plan.loses and not is_sure:
        _ask(plan, what)
    executor = Executor(aws, sys.stderr)
    executor.run(plan)
    return executor


def _ask(plan: Plan, what: str) -> None:
    if not _is_terminal():
        gone = dict.fromkeys(change.what for change in plan.changes if change.loses)
        raise UsageError(
            f"Cannot {what}: it would remove or replace {', '.join(gone)}, and there "
            "is no terminal to ask on; nothing was changed; use --yes"
        )
    if not confirm("Continue?"):
        raise UsageError("Cannot continue: the answer was no; nothing was changed")


# Output


def _show_changes(plan: Plan) -> None:
    for change in plan.changes:
        print(change, file=sys.stderr)
    _show_notes(plan)


def _show_notes(plan: Plan) -> None:
    for note in plan.notes:
        print(f"Note: {note}", file=sys.stderr)
    sys.stderr.flush()


def _plan_facts(wanted: Wanted, current: Current, plan: Plan) -> dict[str, Any]:
    """Return what a pipeline asks about a plan, beside its changes and calls."""
    return {
        "function": current.place.function(wanted.name),
        "region": current.place.region,
        "isNew": current.function is None,
        "changed": bool(plan.steps),
        "needsConfirmation": plan.loses,
        "notes": list(plan.notes),
        "sha256": wanted.package.sha256,
        "imageDigest": None if wanted.image is None else wanted.image.digest,
    }


def _show_plan(
    plan: Plan, output: Output, facts: Mapping[str, Any] | None = None
) -> None:
    _show_notes(plan)
    calls = [str(step.action) for step in plan.steps]
    if output is Output.JSON:
        changes = [dataclasses.asdict(change) for change in plan.changes]
        shown = {"dryRun": True, "changes": changes, "calls": calls, **(facts or {})}
        print(json.dumps(shown))
    elif not plan.steps:
        print("Nothing to do.")
    else:
        for change in plan.changes:
            print(change)
        print("\nCalls:")
        for call in calls:
            print(f"  {call}")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class _Deployed:
    """A deployed function, for the output.

    Attributes:
        version: The version that the alias points to.
        alias: ARN of the alias.
        layers: ARNs, in order.
        image: Name of the image with its digest; None for a zip.
    """

    arn: str
    version: str | None
    alias: str | None
    url: str | None
    layers: tuple[str, ...]
    image: str | None = None


def _deployed(wanted: Wanted, current: Current, executor: Executor) -> _Deployed:
    from lambda_deno_spawn.dev.aws.deploy_layers import planned_layers
    from lambda_deno_spawn.dev.aws.plan import resolve

    responses = executor.responses
    arn = current.place.function(wanted.name)
    version = current.alias.version if current.alias else None
    if "version" in responses:
        version = str(responses["version"]["Version"])
    url = current.url.url if current.url and wanted.url else None
    if "url" in responses:
        url = str(responses["url"]["FunctionUrl"])
    layers = resolve(planned_layers(wanted, current), responses)
    alias = None if wanted.alias is None else f"{arn}:{wanted.alias}"
    image = None
    if wanted.is_image:
        image = current.function.image_uri if current.function else None
        if "image" in responses:
            image = str(responses["image"]["ImageUri"])
    return _Deployed(arn, version, alias, url, tuple(layers), image)


def _show_deployed(
    wanted: Wanted, current: Current, plan: Plan, executor: Executor, output: Output
) -> None:
    deployed = _deployed(wanted, current, executor)
    size_bytes = wanted.package.zipped_bytes
    if output is Output.JSON:
        changes = [dataclasses.asdict(change) for change in plan.changes]
        fields = {
            "function": deployed.arn,
            "region": current.place.region,
            "version": deployed.version,
            "alias": deployed.alias,
            "url": deployed.url,
            "package": str(wanted.package.path),
            "packageBytes": size_bytes,
            "sha256": wanted.package.sha256,
            "layers": list(deployed.layers),
            "image": deployed.image,
            "changed": bool(plan.steps),
            "changes": changes,
        }
        print(json.dumps(fields))
        sys.stdout.flush()
        return
    if not plan.steps:
        print("Nothing to do.", file=sys.stderr)
    rows = [
        ("function", deployed.arn),
        ("version", deployed.version),
        ("alias", deployed.alias),
        ("url", deployed.url),
        ("package", f"{wanted.package.path}, {size_bytes / MB:.2f} MB"),
        ("image", deployed.image),
        *(("layer", arn) for arn in deployed.layers),
    ]
    for label, value in rows:
        if value is not None:
            print(f"{label + ':':<10}{value}")
    sys.stdout.flush()

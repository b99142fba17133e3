"""The commands ``layer publish`` and ``layer list``.

Knows the options, that a failure in one region does not stop the others, and the
output: the result on stdout, all else on stderr. Does not know how a layer is
published. Specification: docs/deploy.md, "Layers", and the help texts below.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lambda_deno_spawn.dev.cli.console import EXIT_BUILD, Output, exit_codes
from lambda_deno_spawn.dev.cli.options import (
    BucketOption,
    DryRunOption,
    OutOption,
    OutputOption,
    ProfileOption,
    RegionOption,
    VerboseOption,
    layer_zips,
)
from lambda_deno_spawn.dev.cli.tables import write_table
from lambda_deno_spawn.dev.package.layer import Kind
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.dev.aws.publish import LayerVersion, LayerZip, Published
    from lambda_deno_spawn.dev.aws.session import Aws


def publish(
    *,
    out: OutOption = Path("dist"),
    kind: Annotated[
        list[Kind] | None,
        typer.Option(help="Publish only these; may be repeated.  [default: all]"),
    ] = None,
    arch: Annotated[
        list[Arch] | None,
        typer.Option(help="Publish only these; may be repeated.  [default: all]"),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION",
            help="AWS region, or several with commas; may be repeated.  "
            "[default: that of the profile]",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Allow every AWS account to use them.")
    ] = False,
    bucket: BucketOption = None,
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Publish the layers that `layer build` built.

    A layer is not published again if its newest version has the same content.
    """
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.aws.publish import choose_layers

        regions = _regions(region)
        if bucket is not None and len(regions) > 1:
            raise UsageError(
                f"Cannot publish to {', '.join(map(str, regions))} with the bucket "
                f"{bucket!r}: it is in one region, and Lambda accepts zips only from a "
                "bucket in its own; publish to one region at a time, or leave out "
                "--bucket"
            )
        kinds = [item.value for item in kind or []]
        archs = [item.value for item in arch or []]
        layers = choose_layers(layer_zips(out), out, kinds, archs)
        results = [
            result
            for name in regions
            for result in _publish_in_region(
                name, profile, layers, bucket, is_public=public, is_dry=dry_run
            )
        ]
        _show_published(results, output, is_dry=dry_run)


def list_layers(
    *,
    region: RegionOption = None,
    profile: ProfileOption = None,
    verbose: VerboseOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the published versions of the layers."""
    with exit_codes(is_verbose=verbose):
        from lambda_deno_spawn.dev.aws.publish import list_versions
        from lambda_deno_spawn.dev.aws.session import Aws

        aws = Aws(region, profile)
        versions = list_versions(aws)
        if output is Output.JSON:
            print(json.dumps([_version_fields(version) for version in versions]))
        elif versions:
            rows = [
                [v.arn, ", ".join(v.archs), v.created, v.description] for v in versions
            ]
            write_table(["layer", "for", "created", "content"], rows, sys.stdout)
        else:
            print(
                f"There are no layers in {aws.region}; publish them with "
                "`lambda-deno-spawn layer publish`",
                file=sys.stderr,
            )
        sys.stdout.flush()


def _regions(given: Sequence[str] | None) -> list[str | None]:
    if not given:
        return [None]
    names = [name.strip() for item in given for name in item.split(",")]
    found = list(dict.fromkeys(name for name in names if name))
    if not found:
        raise UsageError(
            f"Cannot use --region {given[0]!r}: it names no region; give one such as "
            "eu-central-1, or leave it out"
        )
    return [*found]


def _publish_in_region(
    region: str | None,
    profile: str | None,
    layers: Sequence[LayerZip],
    bucket: str | None,
    *,
    is_public: bool,
    is_dry: bool,
) -> list[Published]:
    """Publish to one region; failures are returned, so that other regions continue."""
    from lambda_deno_spawn.dev.aws.publish import Published
    from lambda_deno_spawn.dev.aws.session import Aws

    results: list[Published] = []
    try:
        aws = Aws(region, profile)
        _ = aws.place
    except DeployError as error:
        print(str(error), file=sys.stderr)
        shown = region or "region of the profile"
        return [
            Published(layer.name, shown, None, error=str(error)) for layer in layers
        ]
    for layer in layers:
        try:
            results.append(
                _publish_layer(aws, layer, bucket, is_public=is_public, is_dry=is_dry)
            )
        except DeployError as error:
            print(str(error), file=sys.stderr)
            results.append(Published(layer.name, aws.region, None, error=str(error)))
    return results


def _publish_layer(
    aws: Aws, layer: LayerZip, bucket: str | None, *, is_public: bool, is_dry: bool
) -> Published:
    from lambda_deno_spawn.dev.aws.execute import Executor
    from lambda_deno_spawn.dev.aws.publish import (
        Published,
        base64_digest,
        is_shared,
        newest_version,
        plan_publish,
    )

    newest = newest_version(aws, layer.name)
    is_same = newest is not None and newest.code_sha256 == base64_digest(layer.sha256)
    plan = plan_publish(
        layer,
        newest,
        aws.place,
        bucket=bucket,
        is_public=is_public,
        is_shared=bool(is_public and is_same and newest and is_shared(aws, newest)),
    )
    known = newest.arn if newest is not None and is_same else None
    if is_dry:
        for step in plan.steps:
            print(step.action, file=sys.stderr)
        return Published(layer.name, aws.region, known, is_new=not is_same)
    executor = Executor(aws, sys.stderr)
    executor.run(plan)
    response = executor.responses.get(layer.name)
    arn = known if response is None else str(response["LayerVersionArn"])
    return Published(layer.name, aws.region, arn, is_new=not is_same)


def _show_published(
    results: Sequence[Published], output: Output, *, is_dry: bool
) -> None:
    """Print the result for each layer; exit with 3 if one failed."""
    states = {
        (True, True): "would be published",
        (True, False): "published",
        (False, True): "unchanged",
        (False, False): "unchanged",
    }
    if output is Output.JSON:
        fields = [
            {
                "name": result.name,
                "region": result.region,
                "arn": result.arn,
                "isNew": result.is_new,
                "error": result.error,
            }
            for result in results
        ]
        print(json.dumps(fields))
    else:
        rows = [
            [
                result.region,
                result.arn or result.name,
                "failed" if result.error else states[result.is_new, is_dry],
            ]
            for result in results
        ]
        write_table(["region", "layer", ""], rows, sys.stdout)
    sys.stdout.flush()
    if any(result.error for result in results):
        raise typer.Exit(EXIT_BUILD)


def _version_fields(version: LayerVersion) -> dict[str, object]:
    return {
        "name": version.name,
        "version": version.version,
        "arn": version.arn,
        "archs": list(version.archs),
        "runtimes": list(version.runtimes),
        "description": version.description,
        "created": version.created,
    }

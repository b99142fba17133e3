"""Deleting versions of the runtime's layers: which ones are meant, and which are used.

Knows how versions are named and chosen, and which functions prevent a deletion. Does
not know the command line. Specification: docs/layers.md, "Deleting"; Lambda API
reference, DeleteLayerVersion: functions that use a deleted version continue to run,
but can no longer be updated with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.aws.plan import Call, Change, Plan, Step
from lambda_deno_spawn.dev.aws.publish import LAYER_PREFIX, LayerVersion, list_versions
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lambda_deno_spawn.dev.aws.session import Aws

LAYER = re.compile(
    r"(?:arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:)?"
    r"(?P<name>[\w-]+)(?::(?P<version>\d+))?"
)
USERS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LayerName:
    """A layer, or one version of it, as a user names it.

    Attributes:
        text: As the user wrote it.
        name: Name of the layer.
        version: Number of the version; None: those that ``keep`` leaves.
        region: Region in an ARN.
        account: Account in an ARN.
    """

    text: str
    name: str
    version: int | None
    region: str | None
    account: str | None = None


def parse_layer_name(text: str) -> LayerName:
    """Read ``NAME``, ``NAME:VERSION``, or an ARN with or without a version.

    Raises:
        UsageError: It is none of them, or a layer that this tool did not publish.
    """
    match = LAYER.fullmatch(text)
    if match is None:
        raise UsageError(
            f"Cannot delete {text!r}: it is not the name of a layer; give NAME, "
            "NAME:VERSION, or an ARN, as in `lambda-deno-spawn layer list`"
        )
    name = match["name"]
    if not name.startswith(LAYER_PREFIX):
        raise UsageError(
            f"Cannot delete {text!r}: it is not a layer of this tool, whose names "
            f"begin with {LAYER_PREFIX}; delete it with AWS's tools if you are sure"
        )
    version = match["version"]
    return LayerName(
        text,
        name,
        None if version is None else int(version),
        match["region"],
        match["account"],
    )


def region_of(names: Iterable[LayerName], given: str | None) -> str | None:
    """Return the region of some layers; None: that of the profile.

    Raises:
        UsageError: They are in different regions.
    """
    regions = {item.region: item.text for item in names if item.region is not None}
    if given is not None:
        regions.setdefault(given, f"--region {given}")
    if len(regions) > 1:
        raise UsageError(
            f"Cannot delete in one step: {' and '.join(regions.values())} name "
            "different regions; delete in one region at a time"
        )
    return next(iter(regions), None)


def read_removal(aws: Aws, names: Sequence[LayerName], keep: int | None) -> Plan:
    """Read what AWS has, and plan the deletion.

    Args:
        aws: Region and account.
        names: The layers; none: all of the runtime's layers.
        keep: How many of the newest versions stay, where no version is named.

    Raises:
        UsageError: A layer without a version is named, and ``keep`` is None; or an ARN
            is of another account, which may have a layer of the same name.
        DeployError: A named version does not exist, or a function uses it.
    """
    unclear = [item.text for item in names if item.version is None]
    if keep is None and (unclear or not names):
        layer = unclear[0] if unclear else f"{LAYER_PREFIX}runtime-arm64"
        raise UsageError(
            f"Cannot delete {repr(layer) if unclear else 'layers'}: no version is "
            f"given; name one, as in {layer}:1, or use --keep N to delete all but the "
            "newest N"
        )
    for item in names:
        if item.account not in (None, aws.place.account):
            raise UsageError(
                f"Cannot delete {item.text!r}: it belongs to the account "
                f"{item.account}, and these credentials to {aws.place.account}; choose "
                "another --profile"
            )
    return plan_removal(names, keep, list_versions(aws), read_users(aws))


def read_users(aws: Aws) -> dict[str, list[str]]:
    """Return the functions of a region that use a layer, by the version's ARN.

    Published versions of a function count, too, as aliases may point to them.
    """
    users: dict[str, list[str]] = {}
    every = Call("lambda", "ListFunctions", "*", {"FunctionVersion": "ALL"})
    for function in aws.items(every, "Functions"):
        name, version = function["FunctionName"], function.get("Version", "$LATEST")
        shown = name if version == "$LATEST" else f"{name}:{version}"
        for layer in function.get("Layers") or ():
            users.setdefault(layer["Arn"], []).append(shown)
    return users


def plan_removal(
    names: Sequence[LayerName],
    keep: int | None,
    versions: Sequence[LayerVersion],
    users: Mapping[str, Sequence[str]],
) -> Plan:
    """Plan the deletion of versions; the same state always gives the same plan.

    A used version that is named is refused. One that ``keep`` would delete stays, and
    a note says which functions use it.

    Raises:
        DeployError: A named version does not exist, or a function uses it.
    """
    chosen: dict[str, LayerVersion] = {}
    notes: list[str] = []
    layers = sorted({version.name for version in versions})
    items = names or [LayerName(name, name, None, None) for name in layers]
    for item in items:
        there = sorted(
            (version for version in versions if version.name == item.name),
            key=lambda version: -version.version,
        )
        if item.version is not None:
            found = _named(item, there)
            if found.arn in users:
                raise DeployError(
                    f"Cannot delete {item.text!r}: {_shown(users[found.arn])} still "
                    "uses it; deploy with another version of the layer first, or "
                    "delete the function or its old versions"
                )
            chosen[found.arn] = found
            continue
        if not there:
            raise DeployError(_missing(item, layers))
        for version in there[keep:]:
            if version.arn in users:
                used = _shown(users[version.arn])
                notes.append(f"{version.arn} stays: {used} still uses it")
            else:
                chosen[version.arn] = version
    return Plan(
        tuple(
            Change("layer version", version.arn, None, loses=True)
            for version in chosen.values()
        ),
        tuple(_step(version) for version in chosen.values()),
        tuple(notes),
    )


def _named(item: LayerName, there: Sequence[LayerVersion]) -> LayerVersion:
    for version in there:
        if version.version == item.version:
            return version
    known = ", ".join(str(version.version) for version in there)
    state = f"version, its versions are {known}" if known else "layer"
    raise DeployError(
        f"Cannot delete {item.text!r}: there is no such {state}; see "
        "`lambda-deno-spawn layer list`"
    )


def _missing(item: LayerName, layers: Sequence[str]) -> str:
    known = f"the layers are {', '.join(layers)}" if layers else "there are no layers"
    return f"Cannot delete {item.text!r}: it does not exist, {known}; check --region"


def _shown(users: Sequence[str]) -> str:
    rest = len(users) - USERS_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(users[:USERS_SHOWN]) + more


def _step(version: LayerVersion) -> Step:
    parameters = {"LayerName": version.name, "VersionNumber": version.version}
    return Step(Call("lambda", "DeleteLayerVersion", version.arn, parameters))

"""Layers in AWS: publishing what was built, and which versions there are.

Knows what a layer is called there, when a new version is needed, and how it is shared.
Refuses to know how layers are built: their list, ``layers.json``, says it all.
Specification: docs/deploy.md, "Layers"; Lambda API reference, PublishLayerVersion.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.plan import (
    Call,
    Change,
    FileContent,
    Plan,
    ResultOf,
    Step,
    Upload,
)
from lambda_deno_spawn.dev.project.quotas import UPLOAD_LIMIT_BYTES
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lambda_deno_spawn.dev.aws.plan import Place
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.package.layer import BuiltLayer

LAYER_PREFIX = "lambda-deno-spawn-"
PUBLIC_STATEMENT = "public"


@dataclass(frozen=True, slots=True)
class LayerZip:
    """A layer that was built and can be published.

    Attributes:
        name: What it is published as.
        sha256: Of the zip, in hexadecimal.
        runtimes: Lambda's names of the runtimes that it fits.
    """

    name: str
    arch: str
    path: Path
    sha256: str
    zipped_bytes: int
    runtimes: tuple[str, ...]
    description: str
    licenses: str

    @classmethod
    def from_built(cls, built: BuiltLayer, out: Path) -> LayerZip:
        """Take what publishing needs from an entry of ``layers.json``."""
        content = [f"Deno {built.deno}"] if built.deno else []
        content += [f"Python {python}" for python in built.pythons]
        return cls(
            name=built.name,
            arch=built.arch.value,
            path=out / built.file,
            sha256=built.sha256,
            zipped_bytes=built.zipped_bytes,
            runtimes=built.compatible_runtimes,
            description=f"lambda-deno-spawn {built.version}: {', '.join(content)}",
            licenses=built.licenses,
        )


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """A version of a layer in AWS.

    Attributes:
        code_sha256: Of the zip, in base64; empty in a list.
        created: As AWS spells it, ISO 8601.
    """

    name: str
    arn: str
    version: int
    description: str
    archs: tuple[str, ...]
    runtimes: tuple[str, ...]
    code_sha256: str
    created: str

    @classmethod
    def from_response(cls, name: str, response: Mapping[str, Any]) -> LayerVersion:
        """Read an response of GetLayerVersion, or an item of ListLayerVersions."""
        return cls(
            name=name,
            arn=response["LayerVersionArn"],
            version=int(response["Version"]),
            description=response.get("Description") or "",
            archs=tuple(response.get("CompatibleArchitectures") or ()),
            runtimes=tuple(response.get("CompatibleRuntimes") or ()),
            code_sha256=response.get("Content", {}).get("CodeSha256", ""),
            created=response.get("CreatedDate", ""),
        )


@dataclass(frozen=True, slots=True)
class Published:
    """What came of one layer in one region.

    Attributes:
        arn: None if it failed, or if nothing was to be changed yet.
        is_new: A version was published; False: there was one with the same bytes.
        error: Why it failed.
    """

    name: str
    region: str
    arn: str | None
    is_new: bool = False
    error: str | None = None


def base64_digest(sha256: str) -> str:
    """Return a digest as Lambda spells it.

    Args:
        sha256: In hexadecimal.
    """
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def own_bucket(place: Place) -> str:
    """Return the name of the bucket that is made where none is given."""
    return f"lambda-deno-spawn-{place.account}-{place.region}"


def content_steps(
    path: Path, sha256: str, size_bytes: int, place: Place, bucket: str | None
) -> tuple[tuple[Step, ...], dict[str, Any]]:
    """Return how a zip gets to Lambda: steps before the call, and its parameters."""
    if bucket is None and size_bytes <= UPLOAD_LIMIT_BYTES:
        return (), {"ZipFile": FileContent(path)}
    target = bucket or own_bucket(place)
    key = f"lambda-deno-spawn/{sha256}.zip"
    upload = Upload(path, target, key, place, is_ours=bucket is None)
    return (Step(upload),), {"S3Bucket": target, "S3Key": key}


def publish_steps(
    layer: LayerZip, place: Place, bucket: str | None = None
) -> tuple[Step, ...]:
    """Return the steps that publish a layer; the last one's key is its name."""
    before, content = content_steps(
        layer.path, layer.sha256, layer.zipped_bytes, place, bucket
    )
    call = Call(
        "lambda",
        "PublishLayerVersion",
        place.layer(layer.name),
        {
            "LayerName": layer.name,
            "Description": layer.description[:256],
            "Content": content,
            "CompatibleArchitectures": [layer.arch],
            "CompatibleRuntimes": list(layer.runtimes),
            "LicenseInfo": layer.licenses[:512],
        },
    )
    digest = ("Content.CodeSha256", base64_digest(layer.sha256))
    return (*before, Step(call, key=layer.name, digest=digest))


def plan_publish(
    layer: LayerZip,
    newest: LayerVersion | None,
    place: Place,
    *,
    bucket: str | None = None,
    is_public: bool = False,
    is_shared: bool = False,
) -> Plan:
    """Plan what makes a layer be there.

    Args:
        layer: What was built.
        newest: The newest version that is there, None if there is none.
        place: Where.
        bucket: For the upload; None: only if it is large, and ours.
        is_public: Everybody may use it.
        is_shared: Everybody may use the newest version already.
    """
    is_same = newest is not None and newest.code_sha256 == base64_digest(layer.sha256)
    steps = () if is_same else publish_steps(layer, place, bucket)
    version: object = ResultOf(layer.name, "Version")
    changes = []
    if newest is None:
        changes.append(Change(layer.name, None, "version 1"))
    elif is_same:
        version = newest.version
    else:
        before = f"version {newest.version}"
        changes.append(Change(layer.name, before, "a new version"))
    if is_public and not (is_same and is_shared):
        share = Call(
            "lambda",
            "AddLayerVersionPermission",
            f"{place.layer(layer.name)}:{version if is_same else '*'}",
            {
                "LayerName": layer.name,
                "VersionNumber": version,
                "StatementId": PUBLIC_STATEMENT,
                "Action": "lambda:GetLayerVersion",
                "Principal": "*",
            },
        )
        steps = (*steps, Step(share))
        changes.append(Change(f"{layer.name} may be used by", None, "everybody"))
    return Plan(tuple(changes), steps)


def newest_version(aws: Aws, name: str) -> LayerVersion | None:
    """Return the newest version of a layer of this account, None if there is none."""
    arn = aws.place.layer(name)
    answer = aws.find(Call("lambda", "ListLayerVersions", arn, {"LayerName": name}))
    # The newest is on the first page: they are listed from the newest on.
    versions = [item["Version"] for item in (answer or {}).get("LayerVersions", [])]
    if not versions:
        return None
    return find_version(aws, name, max(versions))


def find_version(aws: Aws, name: str, version: int) -> LayerVersion | None:
    """Return a version of a layer, None if there is none.

    Args:
        aws: Where to look.
        name: The layer's name, or its ARN without a version.
        version: Its number.
    """
    arn = name if name.startswith("arn:") else aws.place.layer(name)
    parameters = {"LayerName": name, "VersionNumber": version}
    # Lambda checks the permission with the version in the ARN.
    call = Call("lambda", "GetLayerVersion", f"{arn}:{version}", parameters)
    answer = aws.find(call)
    if answer is None:
        return None
    return LayerVersion.from_response(arn.rpartition(":")[2], answer)


def is_shared(aws: Aws, version: LayerVersion) -> bool:
    """True if everybody may use a version."""
    parameters = {"LayerName": version.name, "VersionNumber": version.version}
    call = Call("lambda", "GetLayerVersionPolicy", version.arn, parameters)
    policy = aws.find(call)
    statements = [] if policy is None else json.loads(policy["Policy"])["Statement"]
    return any(
        item.get("Effect") == "Allow"
        and item.get("Principal") in ("*", {"AWS": "*"})
        and not item.get("Condition")  # such as aws:PrincipalOrgID: one organization
        for item in statements
    )


def list_versions(aws: Aws) -> list[LayerVersion]:
    """Return all versions of our layers in a region."""
    every = Call("lambda", "ListLayers", "*")
    names = sorted(
        layer["LayerName"]
        for layer in aws.pages(every, "Layers")
        if layer["LayerName"].startswith(LAYER_PREFIX)
    )
    return [
        LayerVersion.from_response(name, item)
        for name in names
        for item in aws.pages(
            Call(
                "lambda",
                "ListLayerVersions",
                aws.place.layer(name),
                {"LayerName": name},
            ),
            "LayerVersions",
        )
    ]


def choose_layers(
    zips: Sequence[LayerZip], out: Path, kinds: Sequence[str], archs: Sequence[str]
) -> list[LayerZip]:
    """Return the layers that were built and are asked for.

    Raises:
        UsageError: None was built, or none of what is asked for.
        DeployError: A zip is not there, or is not the one that was built.
    """
    if not zips:
        raise UsageError(
            f"Cannot publish layers from {str(out)!r}: there is no layers.json; run "
            "`lambda-deno-spawn layer build` first, or use --out"
        )
    chosen = [
        layer
        for layer in zips
        if (not archs or layer.arch in archs)
        and (
            not kinds
            or any(layer.name.startswith(f"{LAYER_PREFIX}{kind}-") for kind in kinds)
        )
    ]
    if not chosen:
        built = ", ".join(layer.name for layer in zips)
        raise UsageError(
            f"Cannot publish layers from {str(out)!r}: none is of that kind and "
            f"architecture; there are {built}"
        )
    for layer in chosen:
        check_zip(layer)
    return chosen


def check_zip(layer: LayerZip) -> None:
    """Refuse a zip that is not what ``layers.json`` says.

    Raises:
        DeployError: It is not there, or another one.
    """
    try:
        with layer.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DeployError(
            f"Cannot read the layer {str(layer.path)!r}: {error.strerror}; build it "
            "again with `lambda-deno-spawn layer build`"
        ) from error
    if found != layer.sha256:
        raise DeployError(
            f"Cannot publish {str(layer.path)!r}: it is not what layers.json "
            "describes; build it again with `lambda-deno-spawn layer build`"
        )

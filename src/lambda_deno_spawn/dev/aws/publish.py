"""Layers in AWS: publishing local layers, and listing the published versions.

Knows the names of layers in AWS, when a new version is needed, and how it is shared.
Does not know how layers are built: ``layers.json`` describes them. Specification:
docs/deploy.md, "Layers"; Lambda API reference, PublishLayerVersion.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.errors import AwsError
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
UNZIPPED = re.compile(r"; (\d{1,12}) bytes unzipped")


@dataclass(frozen=True, slots=True)
class LayerZip:
    """A local layer that can be published.

    Attributes:
        name: Name of the layer in AWS.
        sha256: Digest of the zip, in hexadecimal.
        runtimes: Compatible runtimes, by Lambda's names.
        unzipped_bytes: Size of its files; 0: unknown.
    """

    name: str
    arch: str
    path: Path
    sha256: str
    zipped_bytes: int
    runtimes: tuple[str, ...]
    description: str
    licenses: str
    unzipped_bytes: int = 0

    @classmethod
    def from_built(cls, built: BuiltLayer, out: Path) -> LayerZip:
        """Create from an entry of ``layers.json``.

        Args:
            built: The entry.
            out: Folder that contains the zip.
        """
        content = [f"Deno {built.deno}"] if built.deno else []
        content += [f"Python {python}" for python in built.pythons]
        return cls(
            name=built.name,
            arch=built.arch.value,
            path=out / built.file,
            sha256=built.sha256,
            zipped_bytes=built.zipped_bytes,
            runtimes=built.compatible_runtimes,
            description=f"lambda-deno-spawn {built.version}: {', '.join(content)}; "
            f"{built.unzipped_bytes} bytes unzipped",
            licenses=built.licenses,
            unzipped_bytes=built.unzipped_bytes,
        )


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """A version of a layer in AWS.

    Attributes:
        code_sha256: Digest of the zip, in base64; empty if read from a list.
        created: Time in ISO 8601, as AWS formats it.
        least_bytes: It has at least this size unzipped: AWS says only how large the
            zip is, but the descriptions of our layers have the true size.
    """

    name: str
    arn: str
    version: int
    description: str
    archs: tuple[str, ...]
    runtimes: tuple[str, ...]
    code_sha256: str
    created: str
    least_bytes: int = 0

    @classmethod
    def from_response(cls, name: str, response: Mapping[str, Any]) -> LayerVersion:
        """Read a response of GetLayerVersion, or an item of ListLayerVersions."""
        return cls(
            name=name,
            arn=response["LayerVersionArn"],
            version=int(response["Version"]),
            description=response.get("Description") or "",
            archs=tuple(response.get("CompatibleArchitectures") or ()),
            runtimes=tuple(response.get("CompatibleRuntimes") or ()),
            code_sha256=response.get("Content", {}).get("CodeSha256", ""),
            created=response.get("CreatedDate", ""),
            least_bytes=int(size[1])
            if (size := UNZIPPED.search(response.get("Description") or ""))
            else int(response.get("Content", {}).get("CodeSize") or 0),
        )


@dataclass(frozen=True, slots=True)
class Published:
    """The result of publishing one layer in one region.

    Attributes:
        arn: ARN of the version; None if publishing failed, or in a dry run.
        is_new: A version was published; False: the newest one has the same content.
        error: Why publishing failed.
    """

    name: str
    region: str
    arn: str | None
    is_new: bool = False
    error: str | None = None


def base64_digest(sha256: str) -> str:
    """Return a digest in base64, as Lambda returns it.

    Args:
        sha256: The digest in hexadecimal.
    """
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def own_bucket(place: Place) -> str:
    """Return the name of the bucket that is created if the user names none."""
    return f"lambda-deno-spawn-{place.account}-{place.region}"


def content_steps(
    path: Path, sha256: str, size_bytes: int, place: Place, bucket: str | None
) -> tuple[tuple[Step, ...], dict[str, Any]]:
    """Return the steps that upload a zip, and the parameters that refer to it."""
    if bucket is None and size_bytes <= UPLOAD_LIMIT_BYTES:
        return (), {"ZipFile": FileContent(path, sha256)}
    target = bucket or own_bucket(place)
    upload = Upload(path, target, sha256, place, is_ours=bucket is None)
    return (Step(upload),), {"S3Bucket": target, "S3Key": upload.key}


def publish_steps(
    layer: LayerZip, place: Place, bucket: str | None = None
) -> tuple[Step, ...]:
    """Return the steps that publish a layer; the key of the last one is its name."""
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
    """Plan the publication of a layer.

    Args:
        layer: The local layer.
        newest: Its newest version in AWS, None if there is none.
        place: Region and account.
        bucket: Bucket for the upload; None: only for a large zip, and our own.
        is_public: Allow everyone to use the layer.
        is_shared: Everyone may use the newest version already.
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
        changes.append(Change(f"{layer.name} may be used by", None, "everyone"))
    return Plan(tuple(changes), steps)


def newest_version(aws: Aws, name: str) -> LayerVersion | None:
    """Return the newest version of a layer in this account, None if there is none."""
    arn = aws.place.layer(name)
    call = Call("lambda", "ListLayerVersions", arn, {"LayerName": name})
    try:
        # The list begins with the newest version, so the first page is enough. It may
        # be preceded by empty ones.
        page = next(filter(None, aws.pages(call, "LayerVersions")), [])
    except AwsError as error:
        if error.is_not_found:
            return None
        raise
    if not page:
        return None
    return find_version(aws, name, max(item["Version"] for item in page))


def find_version(aws: Aws, name: str, version: int) -> LayerVersion | None:
    """Return a version of a layer, None if there is none.

    Args:
        aws: Region and account.
        name: Name of the layer, or its ARN without a version.
        version: Number of the version.
    """
    arn = name if name.startswith("arn:") else aws.place.layer(name)
    parameters = {"LayerName": name, "VersionNumber": version}
    # IAM checks the permission on the ARN with the version.
    call = Call("lambda", "GetLayerVersion", f"{arn}:{version}", parameters)
    answer = aws.find(call)
    if answer is None:
        return None
    return LayerVersion.from_response(arn.rpartition(":")[2], answer)


def is_shared(aws: Aws, version: LayerVersion) -> bool:
    """Return whether everyone may use a version."""
    parameters = {"LayerName": version.name, "VersionNumber": version.version}
    call = Call("lambda", "GetLayerVersionPolicy", version.arn, parameters)
    policy = aws.find(call)
    statements = [] if policy is None else json.loads(policy["Policy"])["Statement"]
    return any(
        item.get("Effect") == "Allow"
        and item.get("Principal") in ("*", {"AWS": "*"})
        and not item.get("Condition")  # e.g. aws:PrincipalOrgID: one organization only
        for item in statements
    )


def list_versions(aws: Aws) -> list[LayerVersion]:
    """Return all versions of the runtime's layers in a region."""
    every = Call("lambda", "ListLayers", "*")
    names = sorted(
        layer["LayerName"]
        for layer in aws.items(every, "Layers")
        if layer["LayerName"].startswith(LAYER_PREFIX)
    )
    return [
        LayerVersion.from_response(name, item)
        for name in names
        for item in aws.items(
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
    """Return the local layers with one of the kinds and architectures.

    Raises:
        UsageError: There are no local layers, or none that matches.
        DeployError: A zip is missing, or has changed since it was built.
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
            f"Cannot publish layers from {str(out)!r}: none has that kind and "
            f"architecture; build it, or publish one of {built}"
        )
    for layer in chosen:
        check_zip(layer)
    return chosen


def check_zip(layer: LayerZip) -> None:
    """Compare a zip with its digest in ``layers.json``.

    Raises:
        DeployError: It is missing, or has another digest.
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
            f"Cannot publish {str(layer.path)!r}: it differs from its digest in "
            "layers.json; build it again with `lambda-deno-spawn layer build`"
        )

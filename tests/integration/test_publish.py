"""Publishing layers, against moto's server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures.cloud import (
    ACCOUNT,
    OTHER_REGION,
    REGION,
    Cloud,
    Reply,
)

if TYPE_CHECKING:
    pass

DENO = "lambda-deno-spawn-deno-x86_64"
RUNTIME = "lambda-deno-spawn-runtime-x86_64"
BOTH = f"{REGION},{OTHER_REGION}"


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    empty_cloud.build_layers()
    return empty_cloud


def published(cloud: Cloud, *arguments: str) -> Any:
    finished = cloud.run("publish", *arguments, "-o", "json")
    assert finished.exit_code == 0, finished.stderr
    return finished.json


def test_layers_are_published_to_two_regions(cloud: Cloud) -> None:
    results = published(cloud, "--region", BOTH)
    assert [result["arn"] for result in results] == [
        f"arn:aws:lambda:{region}:{ACCOUNT}:layer:{name}:1"
        for region in (REGION, OTHER_REGION)
        for name in (DENO, RUNTIME)
    ]
    assert {result["isNew"] for result in results} == {True}
    version = cloud.client("lambda", OTHER_REGION).get_layer_version(
        LayerName=DENO, VersionNumber=1
    )
    assert version["CompatibleArchitectures"] == ["x86_64"]
    assert "python3.13" in version["CompatibleRuntimes"]
    assert (
        version["Description"]
        == "lambda-deno-spawn 0.1.0: Deno 2.9.8; 10 bytes unzipped"
    )


def test_the_same_bytes_are_published_once(cloud: Cloud) -> None:
    first = published(cloud, "--kind", "deno")
    again = published(cloud, "--kind", "deno")
    assert [result["arn"] for result in again] == [result["arn"] for result in first]
    assert [result["isNew"] for result in again] == [False]
    cloud.build_layers(content="2")
    (result,) = published(cloud, "--kind", "deno")
    assert result["arn"].endswith(":2")


def test_a_public_layer_is_made_public_once(cloud: Cloud) -> None:
    published(cloud, "--public", "--kind", "deno")
    with cloud.relay() as relay:
        published(cloud, "--public", "--kind", "deno")
    assert relay.writes == []
    policy = cloud.client("lambda").get_layer_version_policy(
        LayerName=DENO, VersionNumber=1
    )
    (statement,) = json.loads(policy["Policy"])["Statement"]
    assert statement["Principal"] == "*"
    assert statement["Action"] == "lambda:GetLayerVersion"


@pytest.mark.parametrize(
    ("statement", "is_public"),
    [
        ({"Effect": "Allow", "Principal": "*"}, True),
        ({"Effect": "Allow", "Principal": {"AWS": "*"}}, True),
        (
            {
                "Effect": "Allow",
                "Principal": "*",
                "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}},
            },
            False,
        ),
        ({"Effect": "Deny", "Principal": "*"}, False),
        ({"Effect": "Allow", "Principal": {"AWS": "111122223333"}}, False),
    ],
    ids=["everybody", "every-aws-account", "an-organization", "nobody", "an-account"],
)
def test_a_layer_is_public_only_if_everybody_may_use_it(
    cloud: Cloud, statement: dict[str, Any], is_public: bool
) -> None:
    published(cloud, "--kind", "deno")
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    with cloud.relay() as relay:
        relay.answers("GET .*/policy", Reply(200, {"Policy": json.dumps(policy)}))
        published(cloud, "--public", "--kind", "deno")
    assert (relay.writes == []) == is_public


@pytest.mark.long
def test_a_zip_just_below_the_limit_fits_into_a_request(cloud: Cloud) -> None:
    """Base64 makes 50 MB of zip 69,905,068 bytes, and the request has more in it."""
    cloud.build_layers(padding_bytes=50 * 1024 * 1024 - 64 * 1024 - 1024)
    with cloud.relay() as relay:
        published(cloud, "--kind", "deno")
        (body,) = (
            len(body) for line, body in relay.seen if line.startswith("POST /20")
        )
        assert 69_000_000 < body < 69_905_067
    cloud.build_layers(padding_bytes=50 * 1024 * 1024 - 1024)
    with cloud.relay() as relay:
        published(cloud, "--kind", "deno")
    assert any(line.startswith("PUT /lambda-deno-spawn-") for line, _ in relay.seen)


def test_a_region_that_fails_does_not_hide_the_others(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        relay.refuses(
            f"POST .*/layers/{DENO}/versions",
            "CodeStorageExceededException",
            "Code storage limit exceeded.",
        )
        finished = cloud.run("publish", "--region", BOTH, "--kind", "deno")
    assert finished.exit_code == 3
    assert "the region's storage for code and layers is full" in finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[1].split() == [REGION, DENO, "failed"]
    assert lines[2].split()[-1] == "published"


@pytest.mark.long
def test_a_large_layer_goes_over_a_private_bucket(cloud: Cloud) -> None:
    cloud.build_layers(padding_bytes=50 * 1024 * 1024)
    (result,) = published(cloud, "--kind", "deno")
    assert result["arn"].endswith(":1")
    bucket = f"lambda-deno-spawn-{ACCOUNT}-{REGION}"
    found = cloud.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert len(found) == 1


def test_an_upload_that_breaks_off_publishes_nothing(cloud: Cloud) -> None:
    cloud.client("s3").create_bucket(
        Bucket="mine", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    arguments = ("publish", "--kind", "deno", "--bucket", "mine")
    with cloud.relay() as relay:
        relay.answers("PUT /mine/", Reply(status=0, times=99))
        finished = cloud.run(*arguments)
    assert finished.exit_code == 3
    assert "the connection broke" in finished.stderr
    assert cloud.client("lambda").list_layers()["Layers"] == []
    with cloud.relay():
        assert cloud.run(*arguments).exit_code == 0


def test_a_denied_upload_names_the_statement_for_the_object(cloud: Cloud) -> None:
    cloud.client("s3").create_bucket(
        Bucket="mine", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    with cloud.relay() as relay:
        relay.answers("PUT /mine/", Reply(403, denied))
        finished = cloud.run("publish", "--kind", "deno", "--bucket", "mine")
    assert finished.exit_code == 3
    last = finished.stderr.splitlines()[-1]
    added = json.loads(last.partition("their policy: ")[2])
    assert added["Action"] == "s3:PutObject"
    assert added["Resource"].startswith("arn:aws:s3:::mine/lambda-deno-spawn/")


def test_a_dry_run_publishes_nothing(cloud: Cloud) -> None:
    finished = cloud.run("publish", "--dry-run", "--public")
    assert finished.exit_code == 0
    assert "would be published" in finished.stdout
    assert f"lambda:PublishLayerVersion arn:aws:lambda:{REGION}" in finished.stderr
    assert cloud.client("lambda").list_layers()["Layers"] == []


def test_versions_are_listed_with_what_they_hold(cloud: Cloud) -> None:
    published(cloud)
    cloud.client("lambda").publish_layer_version(
        LayerName="somebody-s", Content={"ZipFile": b"x"}
    )
    versions = cloud.run("list", "-o", "json").json
    assert [version["name"] for version in versions] == [DENO, RUNTIME]
    assert (
        versions[0]["description"]
        == "lambda-deno-spawn 0.1.0: Deno 2.9.8; 10 bytes unzipped"
    )
    table = cloud.run("list").stdout.splitlines()
    assert table[0].split() == ["layer", "for", "created", "content"]
    assert table[1].startswith(f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:{DENO}:1 ")
    nothing = cloud.run("list", "--region", OTHER_REGION)
    assert nothing.exit_code == 0
    assert f"There are no layers in {OTHER_REGION}" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "part"),
    [
        (("--out", "nowhere"), 2, "run `lambda-deno-spawn layer build` first"),
        (("--arch", "arm64"), 2, f"publish one of {DENO}, {RUNTIME}"),
        (
            ("--region", BOTH, "--bucket", "mine"),
            2,
            f"Cannot publish to {REGION}, {OTHER_REGION} with the bucket 'mine': it is",
        ),
        (("--profile", "nobody"), 3, "Cannot use the profile 'nobody'"),
        (("--region", ""), 2, "Cannot use --region '': it names no region"),
    ],
)
def test_what_cannot_be_published_is_one_sentence(
    cloud: Cloud, arguments: tuple[str, ...], exit_code: int, part: str
) -> None:
    finished = cloud.run("publish", *arguments)
    assert finished.exit_code == exit_code
    assert part in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_zip_that_is_not_the_one_that_was_built_is_refused(cloud: Cloud) -> None:
    path = cloud.folder / "dist" / f"{DENO}.zip"
    path.write_bytes(b"other")
    finished = cloud.run("publish")
    assert finished.exit_code == 3
    assert (
        "it differs from its digest in layers.json; build it again" in finished.stderr
    )
    path.unlink()
    assert "no such file or directory" in cloud.run("publish").stderr.lower()

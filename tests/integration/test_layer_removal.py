"""``layer delete``: which versions go and which stay, against moto's server."""

from __future__ import annotations

import pytest

from tests.fixtures.cloud import ACCOUNT, OTHER_REGION, REGION, Cloud, Reply

DENO = "lambda-deno-spawn-deno-x86_64"
RUNTIME = "lambda-deno-spawn-runtime-x86_64"
VERSIONS = 4
EMPTY_ZIP = b"PK\5\6" + bytes(18)


OTHER_ACCOUNT = "999999999999"


def arn(name: str, version: int, region: str = REGION, account: str = ACCOUNT) -> str:
    return f"arn:aws:lambda:{region}:{account}:layer:{name}:{version}"


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    """Publish four versions of both layers; the function ``fn`` uses the second."""
    client = empty_cloud.client("lambda")
    for number in range(1, VERSIONS + 1):
        for name in (DENO, RUNTIME):
            content = {"ZipFile": EMPTY_ZIP + str(number).encode()}
            client.publish_layer_version(LayerName=name, Content=content)
    role = empty_cloud.client("iam").create_role(
        RoleName="fn-role", AssumeRolePolicyDocument="{}"
    )
    client.create_function(
        FunctionName="fn",
        Runtime="python3.13",
        Role=role["Role"]["Arn"],
        Handler="function.handler",
        Code={"ZipFile": EMPTY_ZIP},
        Layers=[arn(RUNTIME, 2), arn(DENO, 2)],
    )
    return empty_cloud


def versions(cloud: Cloud, name: str) -> list[int]:
    pages = cloud.client("lambda").get_paginator("list_layer_versions")
    found = pages.paginate(LayerName=name)
    return sorted(item["Version"] for page in found for item in page["LayerVersions"])


def test_named_versions_are_deleted_and_no_others(cloud: Cloud) -> None:
    done = cloud.run("delete-layers", f"{RUNTIME}:1", arn(DENO, 3), "--yes")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"deleted {arn(RUNTIME, 1)}",
        f"deleted {arn(DENO, 3)}",
    ]
    assert versions(cloud, RUNTIME) == [2, 3, 4]
    assert versions(cloud, DENO) == [1, 2, 4]


def test_newest_versions_and_used_ones_stay(cloud: Cloud) -> None:
    done = cloud.run("delete-layers", RUNTIME, "--keep", "1", "--yes", "-o", "json")
    assert done.exit_code == 0, done.stderr
    assert done.json == {
        "deleted": [arn(RUNTIME, 3), arn(RUNTIME, 1)],
        "notes": [f"{arn(RUNTIME, 2)} stays: fn still uses it"],
    }
    assert versions(cloud, RUNTIME) == [2, 4]
    assert versions(cloud, DENO) == [1, 2, 3, 4]


def test_without_a_name_all_layers_of_the_runtime_are_meant(cloud: Cloud) -> None:
    other = cloud.client("lambda").publish_layer_version(
        LayerName="certificates", Content={"ZipFile": EMPTY_ZIP}
    )
    done = cloud.run("delete-layers", "--keep", "0", "--yes")
    assert done.exit_code == 0, done.stderr
    assert versions(cloud, RUNTIME) == versions(cloud, DENO) == [2]
    assert versions(cloud, "certificates") == [other["Version"]]
    again = cloud.run("delete-layers", "--keep", "0", "--yes")
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr.endswith("Nothing to do.\n")


def test_used_version_that_is_named_is_refused_with_the_function(cloud: Cloud) -> None:
    done = cloud.run("delete-layers", f"{RUNTIME}:1", f"{RUNTIME}:2", "--yes")
    assert done.exit_code == 3
    assert f"Cannot delete '{RUNTIME}:2': fn still uses it" in done.stderr
    assert versions(cloud, RUNTIME) == [1, 2, 3, 4]


def test_published_version_of_a_function_is_a_user_too(cloud: Cloud) -> None:
    client = cloud.client("lambda")
    client.publish_version(FunctionName="fn")
    client.update_function_configuration(
        FunctionName="fn", Layers=[arn(RUNTIME, 4), arn(DENO, 4)]
    )
    done = cloud.run("delete-layers", f"{RUNTIME}:2", "--yes")
    assert done.exit_code == 3
    assert "fn:1 still uses it" in done.stderr


def test_users_on_later_pages_are_found(cloud: Cloud) -> None:
    """The first page is empty, which does not mean that there are no others."""
    with cloud.relay() as relay:
        first = {"Functions": [], "NextMarker": "2"}
        relay.answers("GET .*/functions/?\\?FunctionVersion=ALL$", Reply(200, first))
        done = cloud.run("delete-layers", f"{RUNTIME}:2", "--yes")
    assert done.exit_code == 3
    assert "fn still uses it" in done.stderr
    assert versions(cloud, RUNTIME) == [1, 2, 3, 4]


def test_nothing_is_deleted_if_functions_cannot_be_listed(cloud: Cloud) -> None:
    with cloud.relay() as relay:
        denied = Reply(403, {"Message": "no"}, error="AccessDeniedException")
        relay.answers("GET .*/functions/?\\?", denied)
        done = cloud.run("delete-layers", "--keep", "0", "--yes")
    assert done.exit_code == 3
    assert "lambda:ListFunctions" in done.stderr
    assert versions(cloud, RUNTIME) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("answer", "exit_code", "left"),
    [("y\n", 0, [2, 4]), ("n\n", 2, [1, 2, 3, 4]), ("", 130, [1, 2, 3, 4])],
    ids=["yes", "no", "end-of-input"],
)
def test_deletion_is_confirmed_on_a_terminal(
    cloud: Cloud, answer: str, exit_code: int, left: list[int]
) -> None:
    done = cloud.run("delete-layers", RUNTIME, "--keep", "1", answer=answer)
    assert done.exit_code == exit_code, done.stderr
    assert f"- layer version: {arn(RUNTIME, 1)}" in done.stderr
    assert versions(cloud, RUNTIME) == left


REFUSED = [
    ([RUNTIME, "--keep", "1"], 2, "there is no terminal to ask on"),
    ([RUNTIME], 2, f"no version is given; name one, as in {RUNTIME}:1"),
    ([], 2, "Cannot delete layers: no version is given"),
    (["certificates:1"], 2, "it is not a layer of this tool"),
    (["a b"], 2, "it is not the name of a layer"),
    ([f"{RUNTIME}:9"], 3, "its versions are 4, 3, 2, 1"),
    ([f"{RUNTIME}-old:9"], 3, "there is no such layer"),
    ([f"{RUNTIME}-old", "--keep", "1"], 3, f"the layers are {DENO}, {RUNTIME}"),
    ([arn(RUNTIME, 1, OTHER_REGION), arn(RUNTIME, 1)], 2, "different regions"),
    (
        [arn(RUNTIME, 1), "--region", OTHER_REGION],
        2,
        f"--region {OTHER_REGION} name different regions",
    ),
    # There is a layer of this name here too, which it used to delete.
    (
        [arn(RUNTIME, 1, account=OTHER_ACCOUNT), "--yes"],
        2,
        f"it belongs to the account {OTHER_ACCOUNT}, and these credentials to",
    ),
]


def test_what_cannot_be_deleted_is_told_and_all_stays(cloud: Cloud) -> None:
    for arguments, exit_code, reason in REFUSED:
        done = cloud.run("delete-layers", *arguments)
        assert done.exit_code == exit_code, arguments
        assert reason in done.stderr
    assert versions(cloud, RUNTIME) == versions(cloud, DENO) == [1, 2, 3, 4]


def test_dry_run_prints_the_calls(cloud: Cloud) -> None:
    done = cloud.run("delete-layers", RUNTIME, "--keep", "3", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert f"lambda:DeleteLayerVersion {arn(RUNTIME, 1)}" in done.stdout
    assert versions(cloud, RUNTIME) == [1, 2, 3, 4]


def test_region_of_an_arn_is_used(cloud: Cloud) -> None:
    cloud.client("lambda", OTHER_REGION).publish_layer_version(
        LayerName=RUNTIME, Content={"ZipFile": EMPTY_ZIP}
    )
    done = cloud.run("delete-layers", arn(RUNTIME, 1, OTHER_REGION), "--yes")
    assert done.exit_code == 0, done.stderr
    assert versions(cloud, RUNTIME) == [1, 2, 3, 4]
    left = cloud.client("lambda", OTHER_REGION).list_layer_versions(LayerName=RUNTIME)
    assert left["LayerVersions"] == []

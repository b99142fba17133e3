"""Plans for functions from container images, and their repositories, without AWS."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambda_deno_spawn.dev.aws.deploy import plan_deploy
from lambda_deno_spawn.dev.aws.image import (
    FunctionImage,
    Repository,
    RepositoryState,
    find_repository,
)
from lambda_deno_spawn.dev.aws.plan import Call, Place, Plan, Push, ResultOf
from lambda_deno_spawn.dev.aws.read import Leftovers, plan_delete
from lambda_deno_spawn.dev.aws.settings import read_settings
from lambda_deno_spawn.dev.aws.wanted import (
    AliasState,
    Current,
    FunctionState,
    PackageZip,
    Wanted,
    check_wanted,
)
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import DeployError, UsageError
from tests.fixtures.images import empty_image

PLACE = Place("eu-central-1", "123456789012")
HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
REPOSITORY = Repository("orders", may_create=True)
IMAGE = FunctionImage(empty_image(Arch.X86_64), Path("fn.oci"), 10, REPOSITORY)
PACKAGE = PackageZip(Path("fn.zip"), "ab" * 32, 1000)
WANTED = Wanted(
    "fn", "function.handler", "python3.13", "x86_64", PACKAGE,
    keys={"image.enabled": True}, recorded=("image",), image=IMAGE,
)  # fmt: skip
FUNCTION = FunctionState(
    arn=PLACE.function("fn"), runtime="", handler="", role=PLACE.role("fn-role"),
    memory_mb=512, timeout_s=3, storage_mb=512, description="", arch="x86_64",
    layers=(), variables={}, code_sha256="c0de", package_type="Image",
    log_group="/aws/lambda/fn", tags={"lambda-deno-spawn-keys": "image"},
    image_uri=f"{HOST}/orders@{IMAGE.digest}", settings=read_settings({}),
)  # fmt: skip
EXISTS = RepositoryState({})
THERE = Current(PLACE, FUNCTION, log_retention_days=30, repository=EXISTS)
OTHER = replace(FUNCTION, image_uri=f"{HOST}/orders@sha256:{'0' * 64}")


def operations(plan: Plan) -> list[str]:
    return [str(step.action).split(" ")[0] for step in plan.steps]


def parameters(plan: Plan, operation: str) -> Any:
    return next(
        step.action.parameters
        for step in plan.steps
        if isinstance(step.action, Call) and step.action.operation == operation
    )


def test_new_function_gets_a_repository_that_lambda_may_read() -> None:
    plan = plan_deploy(WANTED, Current(PLACE))
    assert [name for name in operations(plan) if name.startswith(("ecr", "p"))] == [
        "ecr:CreateRepository", "ecr:SetRepositoryPolicy", "push",
    ]  # fmt: skip
    created = parameters(plan, "CreateFunction")
    assert created["PackageType"] == "Image"
    assert created["Code"] == {"ImageUri": ResultOf("image", "ImageUri")}
    assert created["Architectures"] == ["x86_64"]
    # Lambda accepts none of them for an image, nor is the wrapper used there.
    assert not {"Runtime", "Handler", "Layers"} & set(created)
    assert created["Environment"] == {"Variables": {}}
    policy = json.loads(parameters(plan, "SetRepositoryPolicy")["policyText"])
    (statement,) = policy["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert statement["Condition"] == {
        "StringLike": {"aws:sourceArn": PLACE.function("*")}
    }


def test_same_digest_means_nothing_to_do() -> None:
    assert plan_deploy(WANTED, THERE).steps == ()


def test_another_digest_is_pushed_before_the_function_changes() -> None:
    wanted = replace(WANTED, alias="live", memory_mb=1024)
    alias = AliasState("1", OTHER)
    plan = plan_deploy(wanted, replace(THERE, function=OTHER, alias=alias))
    assert operations(plan) == [
        "ecr:SetRepositoryPolicy", "push", "lambda:UpdateFunctionConfiguration",
        "wait", "lambda:UpdateFunctionCode", "wait", "lambda:PublishVersion", "wait",
        "lambda:UpdateAlias",
    ]  # fmt: skip
    assert parameters(plan, "PublishVersion")["CodeSha256"] == (
        ResultOf("code", "CodeSha256")
    )
    assert parameters(plan, "UpdateFunctionCode")["Architectures"] == ["x86_64"]
    assert not plan.loses


def test_failed_update_is_repeated_without_layers() -> None:
    plan = plan_deploy(
        WANTED, replace(THERE, function=replace(FUNCTION, failure="no access"))
    )
    assert "lambda:UpdateFunctionCode" in operations(plan)
    given = parameters(plan, "UpdateFunctionConfiguration")
    assert not {"Layers", "Runtime", "Handler"} & set(given)


def test_statements_of_others_stay_in_a_repository_s_policy() -> None:
    other = {"Sid": "ci", "Effect": "Allow", "Principal": "*", "Action": "ecr:*"}
    reads = {
        "Sid": "mine", "Effect": "Allow",
        "Principal": {"Service": ["lambda.amazonaws.com", "x.amazonaws.com"]},
        "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
    }  # fmt: skip
    denies = {**reads, "Effect": "Deny"}
    for found, is_set in (
        ([other, denies], True), ([other, reads], False), (None, False),
    ):  # fmt: skip
        state = RepositoryState(None if found is None else {"Statement": found})
        plan = plan_deploy(WANTED, replace(THERE, function=OTHER, repository=state))
        assert ("ecr:SetRepositoryPolicy" in operations(plan)) is is_set
        if is_set and found is not None:
            text = parameters(plan, "SetRepositoryPolicy")["policyText"]
            assert json.loads(text)["Statement"][:2] == found


def test_image_settings_keep_their_order_and_are_reset() -> None:
    keys = {
        "image.enabled": True, "image.command": ("b", "a", "a"),
        "image.entry_point": ("/x",), "image.working_directory": "/srv",
    }  # fmt: skip
    wanted = replace(WANTED, keys=keys, recorded=tuple(keys))
    created = parameters(plan_deploy(wanted, Current(PLACE)), "CreateFunction")
    assert created["ImageConfig"] == {
        "Command": ["b", "a", "a"], "EntryPoint": ["/x"], "WorkingDirectory": "/srv",
    }  # fmt: skip
    described = {"ImageConfigResponse": {"ImageConfig": created["ImageConfig"]}}
    there = replace(FUNCTION, settings=read_settings(described), tags=created["Tags"])
    same = plan_deploy(wanted, replace(THERE, function=there))
    assert same.steps == ()
    reset = plan_deploy(WANTED, replace(THERE, function=there))
    given = parameters(reset, "UpdateFunctionConfiguration")
    assert given["ImageConfig"] == {"Command": [], "EntryPoint": []}


@pytest.mark.parametrize("is_image", [True, False])
def test_neither_becomes_the_other(is_image: bool) -> None:
    function = FUNCTION if not is_image else replace(FUNCTION, package_type="Zip")
    keys = {"image.enabled": True} if is_image else {}
    wanted = replace(WANTED, keys=keys, image=IMAGE if is_image else None)
    with pytest.raises(UsageError, match=r"Lambda never takes an? (zip|image) for it"):
        plan_deploy(wanted, replace(THERE, function=function))


def test_another_image_is_replaced_only_when_asked_to() -> None:
    function = replace(OTHER, tags={})
    with pytest.raises(UsageError, match="it is another container image"):
        plan_deploy(WANTED, replace(THERE, function=function))
    plan = plan_deploy(
        replace(WANTED, changes_runtime=True), replace(THERE, function=function)
    )
    assert plan.loses
    # From now on it is known as ours.
    tag = parameters(plan, "TagResource")["Tags"]
    assert replace(function, tags=tag).is_ours


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, Repository("fn", may_create=True)),
        ("team/orders", Repository("team/orders")),
        (f"{HOST}/orders", Repository("orders")),
        (f"{HOST.replace('123', '999')}/orders", Repository("orders", "999456789012")),
    ],
)
def test_repository_is_named(given: str | None, found: Repository) -> None:
    assert find_repository(given, "fn", PLACE, may_create=False) == found


@pytest.mark.parametrize(
    ("given", "name", "problem"),
    [
        ("ghcr.io/me/orders", "fn", "only from Amazon ECR, such as 123456789012.dkr"),
        ("127.0.0.1:5000/orders", "fn", "only from Amazon ECR"),
        (f"{HOST.replace('central', 'west')}/xy", "fn", "region, eu-central-1"),
        ("Orders", "fn", "ECR accepts 2 to 256 lowercase letters"),
        ("x", "fn", "ECR accepts 2 to 256 lowercase letters"),
        (None, "x", "set `repository` in"),
        (None, "a--b", "set `repository` in"),
        (None, "_", "set `repository` in"),
    ],
)
def test_repository_that_lambda_cannot_use_is_refused(
    given: str | None, name: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        find_repository(given, name, PLACE, may_create=True)


def test_repository_that_was_named_has_to_exist() -> None:
    for account, advice in ((None, "--create-repository"), ("9" * 12, "own account")):
        image = replace(IMAGE, repository=Repository("typo", account))
        with pytest.raises(DeployError, match=f"it does not exist; .*{advice}"):
            plan_deploy(replace(WANTED, image=image), Current(PLACE))


def test_what_an_image_excludes_is_said_before_anything_is_made() -> None:
    layer = "arn:aws:lambda:eu-central-1:123456789012:layer:x:1"
    keys = {"image.enabled": True, "snapstart": True}
    for wanted, problem in (
        (replace(WANTED, layers=(layer,)), "layers cannot be used with a container"),
        (replace(WANTED, keys=keys), "snapstart cannot be used with a container image"),
    ):
        with pytest.raises(UsageError, match=problem):
            check_wanted(wanted, "eu-central-1")
    durable = {"image.enabled": True, "durable.timeout": 60}
    wanted = replace(WANTED, keys=durable, runtime="provided.al2023")
    check_wanted(wanted, "eu-central-1")  # a zip needs a newer Python for it


def test_image_that_is_too_large_is_refused() -> None:
    image = replace(IMAGE, size_bytes=11 * 1024**3)
    with pytest.raises(UsageError, match="11264 MB compressed, and Lambda accepts"):
        plan_deploy(replace(WANTED, image=image), Current(PLACE))


def test_deletion_says_what_stays() -> None:
    plan = plan_delete("fn", Leftovers(FUNCTION), PLACE)
    assert operations(plan) == ["lambda:DeleteFunction"]
    assert f"the image {FUNCTION.image_uri} stays in ECR" in plan.notes[0]


def test_digest_of_a_function_is_read_from_where_aws_has_it() -> None:
    by_tag = {"ImageUri": f"{HOST}/x:v1", "ResolvedImageUri": f"{HOST}/x@sha256:1"}
    by_digest = {"ImageUri": f"{HOST}/x@sha256:2", "ResolvedImageUri": ""}
    described = {"FunctionName": "fn", "FunctionArn": "arn", "PackageType": "Image"}
    for code, digest in ((by_tag, "sha256:1"), (by_digest, "sha256:2"), ({}, "")):
        found = FunctionState.from_response(described, code=code)
        assert found.image_digest == digest


def test_push_is_shown_by_repository_and_digest() -> None:
    push = Push(IMAGE.image, "orders", PLACE)
    assert str(push) == f"push {PLACE.repository('orders')}@{IMAGE.digest}"

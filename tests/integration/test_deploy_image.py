"""Functions from container images: moto is AWS, a registry of Docker's is ECR."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.project.project import Arch
from tests.fixtures.cloud import Reply
from tests.fixtures.images import write_base, write_small_layers
from tests.fixtures.packages import DENO_DIR, fetch_bundler
from tests.fixtures.registry import Front, skopeo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.cloud import AtRegistry, Cloud, Finished

pytestmark = pytest.mark.deno
ARCH = Arch.here()
HEAD = f'name = "fn"\nruntime = "provided.al2023"\narch = "{ARCH}"\n'
IMAGE = f"{HEAD}[image]\n"


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    """A project that is built without the network."""
    fetch_bundler()
    write_small_layers(empty_cloud.folder / "dist", ARCH)
    write_base(empty_cloud.folder / "base", [Member("etc/x", b"x")], ARCH)
    empty_cloud.monkeypatch.setenv("DENO_DIR", str(DENO_DIR))
    empty_cloud.monkeypatch.setenv("XDG_CACHE_HOME", str(empty_cloud.folder / "cache"))
    return empty_cloud


def run(cloud: Cloud, *arguments: str) -> Finished:
    return cloud.run("deploy", "project", "--base", "base", *arguments)


def deployed(cloud: Cloud, *arguments: str) -> Any:
    finished = run(cloud, *arguments, "-o", "json")
    assert finished.exit_code == 0, finished.stderr
    return finished.json


def digest_in(relay: AtRegistry, registry_tools: Path, folder: Path, tag: str) -> str:
    name = f"docker://{relay.registry}/fn:{tag}"
    found: str = skopeo(registry_tools, folder, "inspect", "--tls-verify=false", name)[
        "Digest"
    ]
    return found


def test_image_is_pushed_and_the_function_runs_its_digest(
    cloud: Cloud, registry_tools: Path, registry_port: int
) -> None:
    settings = (
        f'{HEAD}storage = 1024\nmemory = 256\nalias = "live"\n'
        '[image]\ncommand = ["other.handler"]\nworking_directory = "/srv"\n'
    )
    cloud.write_project(settings)
    with (
        Front(registry_port, has_login=True) as front,
        cloud.at_registry(front.port) as relay,
    ):
        plan = run(cloud, "--plan", "-o", "json")
        assert (plan.exit_code, plan.json["isNew"]) == (4, True)
        assert [call.split(" ")[0] for call in plan.json["calls"]][5:9] == [
            "ecr:CreateRepository", "ecr:SetRepositoryPolicy", "push",
            "lambda:CreateFunction",
        ]  # fmt: skip
        assert relay.operations == []
        assert front.seen == []
        first = deployed(cloud)
        name, _, digest = first["image"].partition("@")
        assert name == f"127.0.0.1:{front.port}/fn"
        assert digest == plan.json["imageDigest"]
        found = cloud.function()
        assert found["PackageType"] == "Image"
        assert [found.get(name) for name in ("Runtime", "Handler", "Layers")] == [
            None, None, [],
        ]  # fmt: skip
        assert (found["MemorySize"], found["Architectures"]) == (256, [ARCH.value])
        assert relay.settings["EphemeralStorage"] == {"Size": 1024}
        config = relay.settings["ImageConfig"]
        assert config["Command"] == ["other.handler"]
        assert config["WorkingDirectory"] == "/srv"
        relay.registry = f"127.0.0.1:{registry_port}"
        tag = digest.partition(":")[2][:16]
        assert digest_in(relay, registry_tools, cloud.folder, tag) == digest
        relay.registry = f"127.0.0.1:{front.port}"

        pushed, asked = len(front.seen), len(relay.asked)
        again = run(cloud)
        assert again.exit_code == 0, again.stderr
        assert again.stderr.endswith("Nothing to do.\n")
        assert (len(front.seen), len(relay.asked)) == (pushed, asked)
        assert f"image:    {first['image']}\n" in again.stdout

        (cloud.folder / "project" / "function.js").write_text(
            "export const handler = () => 2;\n"
        )
        second = deployed(cloud)
        assert second["image"] != first["image"]
        assert (first["version"], second["version"]) == ("1", "2")
        # Base and layers are there, only package and configuration are new.
        assert len([line for line in front.seen[pushed:] if "PATCH" in line]) == 2
        assert relay.operations == ["CreateRepository", "SetRepositoryPolicy"]

        gone = cloud.run("delete", "project", "--yes")
        assert gone.exit_code == 0, gone.stderr
        assert f"the image {second['image']} stays in ECR" in gone.stderr
    ecr = cloud.client("ecr")
    assert ecr.describe_repositories()["repositories"][0]["repositoryName"] == "fn"
    policy = json.loads(ecr.get_repository_policy(repositoryName="fn")["policyText"])
    assert policy["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_what_lambda_would_refuse_is_said_before_the_build(
    cloud: Cloud, registry_port: int
) -> None:
    with cloud.at_registry(registry_port) as relay:
        cases = [
            (("--repository", "ghcr.io/x/y"), "Lambda takes images only from Amazon"),
            (("--package", "x.zip"), "Cannot use --package for a container image"),
            (("--layer", "arn:aws:lambda:eu-central-1:123456789012:layer:x:1"),
             "layers cannot be used with a container image"),
            (("--snapstart",), "snapstart cannot be used with a container image"),
        ]  # fmt: skip
        cloud.write_project(IMAGE)
        (cloud.folder / "project" / "function.js").write_text("this is no module {")
        for options, problem in cases:
            finished = run(cloud, *options)
            assert finished.exit_code == 2, finished.stderr
            assert problem in finished.stderr
        cloud.write_project(HEAD)
        refused = run(cloud, "--repository", "fn")
        assert refused.exit_code == 2
        assert "Cannot use --repository and --base without --image" in refused.stderr
        assert relay.operations == relay.writes == []


def test_a_zip_does_not_become_an_image(cloud: Cloud, registry_port: int) -> None:
    cloud.build_layers(arch=ARCH.value)
    with cloud.at_registry(registry_port) as relay:
        cloud.write_project('name = "fn"\n')
        cloud.deployed("--arch", ARCH.value)
        cloud.write_project(IMAGE)
        (cloud.folder / "project" / "function.js").write_text("this is no module {")
        before = list(relay.writes)
        refused = run(cloud)
        assert refused.exit_code == 2
        assert "was created from a zip, and Lambda never takes an image" in (
            refused.stderr
        )
        assert relay.writes == before


def test_a_named_repository_is_created_only_when_asked_to(
    cloud: Cloud, registry_port: int
) -> None:
    # The base is found beside the file, and from the folder of the command.
    cloud.write_project(f'{IMAGE}repository = "team/orders"\nbase = "../base"\n')
    with cloud.at_registry(registry_port) as relay:
        refused = cloud.run("deploy", "project")
        assert refused.exit_code == 3
        assert "it does not exist; use --create-repository" in refused.stderr
        assert relay.operations == relay.writes == []
        name = deployed(cloud, "--create-repository")["image"].partition("@")[0]
        assert name == f"127.0.0.1:{registry_port}/team/orders"


def test_a_push_that_fails_leaves_the_function_and_is_finished_later(
    cloud: Cloud, registry_port: int
) -> None:
    cloud.write_project(IMAGE)
    with Front(registry_port) as front, cloud.at_registry(front.port) as relay:
        front.faults = [("PUT /v2/fn/manifests", 403)]
        failed = run(cloud)
        assert failed.exit_code == 3
        assert "the registry answers 403; log in to" in failed.stderr
        assert not any("/functions" in line for line in relay.writes)
        # Lambda does not know the new policy of the repository for some seconds.
        relay.answers(
            "POST /2015-03-31/functions$",
            Reply(
                400,
                {"Message": "Lambda does not have permission to access the ECR image."},
                "InvalidParameterValueException",
            ),
        )
        cloud.client("ecr").delete_repository_policy(repositoryName="fn")
        finished = run(cloud)
        assert finished.exit_code == 0, finished.stderr
        assert "access the ECR image; retrying in 1 s" in finished.stderr
        assert finished.stderr.count(" pushed\n") == 0
        assert run(cloud).stderr.endswith("Nothing to do.\n")


@pytest.mark.long
def test_two_deployments_of_images_at_once(cloud: Cloud, registry_port: int) -> None:
    cloud.write_project(f"{IMAGE}")
    command = [
        sys.executable, "-m", "lambda_deno_spawn", "deploy", "project", "--yes",
        "--base", "base",
    ]  # fmt: skip
    with cloud.at_registry(registry_port):
        running = [
            subprocess.Popen(
                command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.DEVNULL, env=os.environ,
            )
            for _ in range(2)
        ]  # fmt: skip
        ended = [(process.communicate(timeout=400)[1], process) for process in running]
        for stderr, process in ended:
            assert process.returncode in (0, 3), stderr
            if process.returncode == 3:
                assert "run the command again" in stderr.splitlines()[-1]
        assert run(cloud, "--yes").exit_code == 0
        assert run(cloud).stderr.endswith("Nothing to do.\n")
        assert [path.name for path in (cloud.folder / "dist").glob(".*.partial")] == []

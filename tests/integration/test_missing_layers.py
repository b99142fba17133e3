"""``deploy`` builds the layers that exist nowhere, against moto's server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.layer import read_layers

if TYPE_CHECKING:
    from tests.fixtures.cloud import Cloud

DENO = "lambda-deno-spawn-deno-x86_64"
RUNTIME = "lambda-deno-spawn-runtime-x86_64"


def forget(cloud: Cloud, name: str) -> None:
    """Remove a layer from the local ones."""
    path = cloud.folder / "dist" / "layers.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([one for one in entries if one["name"] != name]))


def published(cloud: Cloud) -> list[str]:
    layers = cloud.client("lambda").list_layers()["Layers"]
    return sorted(layer["LayerName"] for layer in layers)


def test_missing_layer_is_built_and_published(empty_cloud: Cloud) -> None:
    cloud = empty_cloud
    cloud.build_layers()
    forget(cloud, RUNTIME)
    said = (
        f"Building the layers {RUNTIME} in dist, as they are neither published in "
        "eu-central-1 nor built\n"
    )
    planned = cloud.deploy("--runtime", "python3.12", "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert said in planned.stderr
    assert "lambda:PublishLayerVersion" in planned.stdout
    assert published(cloud) == []
    done = cloud.deploy("--runtime", "python3.12")
    assert done.exit_code == 0, done.stderr
    assert said not in done.stderr  # it is built now
    assert published(cloud) == [DENO, RUNTIME]
    [built] = [one for one in read_layers(cloud.folder / "dist") if one.name == RUNTIME]
    assert built.pythons == ("3.12",)
    used = [layer["Arn"].split(":")[6] for layer in cloud.function()["Layers"]]
    assert used == [DENO, RUNTIME]


def test_published_layer_is_not_built(empty_cloud: Cloud) -> None:
    cloud = empty_cloud
    cloud.build_layers()
    assert cloud.run("publish").exit_code == 0
    (cloud.folder / "dist" / "layers.json").unlink()
    done = cloud.deploy()
    assert done.exit_code == 0, done.stderr
    assert "Building" not in done.stderr
    assert not (cloud.folder / "dist" / "layers.json").exists()


def test_layer_that_cannot_be_built_stops_before_anything_is_made(
    empty_cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = empty_cloud
    monkeypatch.setenv("XDG_CACHE_HOME", str(cloud.folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cloud.folder))
    with cloud.relay() as relay:
        done = cloud.deploy()
    assert done.exit_code == 3
    assert "Cannot fetch deno==" in done.stderr
    assert relay.writes == []

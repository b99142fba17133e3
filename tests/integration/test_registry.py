"""Pushing and fetching images: a real registry, a real client, and faults between."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.package.oci import (
    Image,
    read_layout,
    write_layout,
    write_tar,
)
from lambda_deno_spawn.dev.package.registry import Reference, Registry
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.errors import BuildError, DeployError
from tests.fixtures.images import write_base
from tests.fixtures.registry import LOGIN, Front, lines, skopeo

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_deno_spawn.dev.package.oci import Blob


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image of this test's own."""
    members = [
        Member("bin/sh", b"#!" + str(tmp_path).encode(), 0o755),
        Member("large", os.urandom(300_000)),
        Member("bin/link", b"sh", 0o120777),
    ]
    folder = write_base(tmp_path / "image", members, Arch.ARM64, NAME="value")
    return read_layout(folder, Arch.ARM64)


def push(text: str, image: Image, login: tuple[str, str] | None = None) -> list[bool]:
    """Push an image; return which of its files were sent."""
    sent: list[bool] = []

    def on_blob(_: Blob, is_sent: bool) -> None:
        sent.append(is_sent)

    with Registry(Reference.parse(text), login, sleep=lambda _: None) as found:
        name = found.push(image, on_blob)
    assert name == f"{text.rpartition(':')[0]}@{image.manifest.digest}"
    return sent


def fetch(text: str, cache: Path, arch: Arch = Arch.ARM64) -> Image:
    with Registry(Reference.parse(text), sleep=lambda _: None) as found:
        fetched, _ = found.fetch(arch, cache)
    return fetched


def test_another_client_reads_what_was_pushed(
    registry_tools: Path, registry_port: int, image: Image, tmp_path: Path
) -> None:
    name = f"127.0.0.1:{registry_port}/orders/api:v1"
    assert push(name, image) == [True, True]
    found = skopeo(
        registry_tools, tmp_path, "inspect", "--tls-verify=false", f"docker://{name}"
    )
    assert found["Digest"] == image.manifest.digest
    assert (found["Os"], found["Architecture"]) == ("linux", "arm64")
    assert found["Layers"] == [layer.blob.digest for layer in image.layers]
    assert found["Env"] == ["NAME=value"]
    copy = tmp_path / "copy"
    options = ("--src-tls-verify=false", "--override-arch=arm64")
    skopeo(
        registry_tools, tmp_path, "copy", *options, f"docker://{name}", f"oci:{copy}"
    )
    assert read_layout(copy, Arch.ARM64).manifest.digest == image.manifest.digest
    assert push(name, image) == [False, False], "it is there already"


def test_other_programs_read_the_image_as_one_file(
    registry_tools: Path, image: Image, tmp_path: Path
) -> None:
    """As ``docker load`` does, by Docker's list; and Podman, by OCI's index."""
    write_tar(tmp_path / "image.tar", tmp_path / "image", image, "Image")
    for form in ("oci-archive", "docker-archive"):
        source = f"{form}:{tmp_path / 'image.tar'}"
        found = skopeo(
            registry_tools, tmp_path, "--override-arch=arm64", "inspect", source
        )
        assert (found["Os"], found["Architecture"]) == ("linux", "arm64")
        assert found["Env"] == ["NAME=value"]
        copy = tmp_path / form
        skopeo(
            registry_tools,
            tmp_path,
            "--override-arch=arm64",
            "copy",
            source,
            f"oci:{copy}:x",
        )
        copied = read_layout(copy, Arch.ARM64)
        # Docker's form has no compression, so only what is in the layers is the same.
        assert [layer.diff_id for layer in copied.layers] == [
            layer.diff_id for layer in image.layers
        ]
        if form == "oci-archive":
            assert copied.manifest.digest == image.manifest.digest


def test_another_client_s_image_can_be_fetched(
    registry_tools: Path, registry_port: int, image: Image, tmp_path: Path
) -> None:
    layout, cache = tmp_path / "image", tmp_path / "cache"
    name = f"127.0.0.1:{registry_port}/by-skopeo:v2"
    for form in ("oci", "v2s2"):  # Docker's names for everything
        skopeo(
            registry_tools, tmp_path, "copy",
            "--dest-tls-verify=false", f"--format={form}",
            f"oci:{layout}", f"docker://{name}",
        )  # fmt: skip
        fetched = fetch(name, cache)
        assert fetched.config["config"]["Env"] == ["NAME=value"]
        assert fetched.layers == tuple(
            type(layer)(
                type(layer.blob)(
                    layer.blob.media_type,
                    layer.blob.digest,
                    layer.blob.size_bytes,
                    cache / layer.blob.digest.partition(":")[2],
                ),
                layer.diff_id,
            )
            for layer in image.layers
        )
    write_layout(tmp_path / "again", fetched, "again")
    assert read_layout(tmp_path / "again", Arch.ARM64).layers
    with pytest.raises(BuildError, match="for x86_64: it has arm64"):
        fetch(name, cache, Arch.X86_64)


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_passing_faults_are_overcome(
    registry_port: int, image: Image, tmp_path: Path, status: int
) -> None:
    with Front(registry_port) as front:
        front.faults = [
            (method, status)
            for method in ("HEAD", "POST", "PATCH", "PUT", "PUT", "GET")
            # No body is in an answer to these, so none can be cut in half.
            if status or method == "GET"
        ]
        name = f"127.0.0.1:{front.port}/faults-{status}:v1"
        assert push(name, image) == [True, True]
        assert front.faults == []
        front.faults = [("GET", status)] * 3
        assert fetch(name, tmp_path / "cache").layers[0].diff_id == (
            image.layers[0].diff_id
        )
        assert front.faults == []


def test_lasting_fault_is_reported_and_the_next_push_goes_on(
    registry_port: int, image: Image
) -> None:
    with Front(registry_port) as front:
        front.faults = [("PUT /v2/lasting/manifests", 503)] * 5
        name = f"127.0.0.1:{front.port}/lasting:v1"
        with pytest.raises(
            DeployError, match="5 attempts: status 503; run the command"
        ):
            push(name, image)
        assert push(name, image) == [False, False]
        front.faults = [("HEAD", 403)]
        with pytest.raises(DeployError, match="the registry answers 403; log in to"):
            push(name, image)


def test_token_is_fetched_with_the_login_and_used(
    registry_port: int, image: Image, tmp_path: Path
) -> None:
    with Front(registry_port, has_login=True) as front:
        name = f"127.0.0.1:{front.port}/closed:v1"
        assert push(name, image, LOGIN) == [True, True]
        assert "service=s" in lines(front.seen, "/token")[0]
        assert len(lines(front.seen, "/token")) == 1
        assert fetch(name, tmp_path / "cache").layers


def test_content_with_another_digest_is_refused(
    registry_port: int, image: Image, tmp_path: Path
) -> None:
    name = f"127.0.0.1:{registry_port}/damaged:v1"
    push(name, image)
    with Registry(Reference.parse(name), sleep=lambda _: None) as found:
        digest = image.layers[0].blob.digest
        real = found._url
        other = image.config_blob.digest
        found._url = lambda path: real(path.replace(digest, other))  # type: ignore[method-assign]
        with pytest.raises(
            BuildError, match="5 attempts: the content has another digest"
        ):
            found.fetch(Arch.ARM64, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*")) == [
        tmp_path / "cache" / other.partition(":")[2]
    ]


def test_image_that_is_not_there_is_named(registry_port: int, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"answers 404 .*check its name and tag"):
        fetch(f"127.0.0.1:{registry_port}/nowhere:v1", tmp_path)


def test_layout_whose_file_was_changed_is_refused(image: Image, tmp_path: Path) -> None:
    blob = image.layers[0].blob
    path = tmp_path / "image" / "blobs" / "sha256" / blob.digest.partition(":")[2]
    path.write_bytes(b"x")
    with pytest.raises(BuildError, match="has other content; copy the image again"):
        read_layout(tmp_path / "image", Arch.ARM64)
    index = json.loads((tmp_path / "image" / "index.json").read_bytes())
    assert index["manifests"][0]["platform"]["architecture"] == "arm64"

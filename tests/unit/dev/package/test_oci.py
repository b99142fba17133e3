"""Images as files: names, layers and what is refused of a base."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.aws.registry import ecr_region
from lambda_deno_spawn.dev.package.archive import Member
from lambda_deno_spawn.dev.package.oci import (
    LAYER,
    Blob,
    Layer,
    check_layers,
    compressed,
    digest_of,
    names_in,
    read_layout,
    write_layer,
    write_layout,
    write_tar,
)
from lambda_deno_spawn.dev.package.registry import Reference, docker_login
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.selection import is_own_image
from lambda_deno_spawn.errors import BuildError, UsageError
from tests.fixtures.images import empty_image

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("public.ecr.aws/lambda/python:3.13",
         ("public.ecr.aws", "lambda/python", "3.13")),
        ("localhost/x", ("localhost", "x", "latest")),
        ("127.0.0.1:5000/a/b-c_d", ("127.0.0.1:5000", "a/b-c_d", "latest")),
        (f"ghcr.io/a/b@{DIGEST}", ("ghcr.io", "a/b", DIGEST)),
    ],
)  # fmt: skip
def test_name_of_an_image_has_three_parts(
    text: str, parts: tuple[str, str, str]
) -> None:
    found = Reference.parse(text)
    assert (found.host, found.name, found.version) == parts
    assert str(Reference.parse(str(found))) == str(found)


@pytest.mark.parametrize(
    "text",
    [
        "python", "library/python:3", "x.y/A", "x.y/a:", "x.y/a:b/c", "x.y/a@sha256:0",
        "x.y/../a", "x.y/a b", "https://x.y/a", "x.y/", "x.y/a@md5:1", "u:p@x.y/a", "",
    ],
)  # fmt: skip
def test_what_is_not_the_name_of_an_image_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST/NAME:TAG"):
        Reference.parse(text)


def test_region_is_in_the_name_of_aws_s_registry() -> None:
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert ecr_region(host) == "eu-central-1"
    assert ecr_region("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn") == (
        "cn-north-1"
    )
    for other in ("public.ecr.aws", f"{host}.example.com", f"x{host}", "ghcr.io"):
        assert ecr_region(other) is None


def test_login_is_that_of_docker(tmp_path: Path) -> None:
    assert docker_login("x.y", tmp_path) is None
    (tmp_path / ".docker").mkdir()
    config = tmp_path / ".docker" / "config.json"
    config.write_text('{"auths": {"x.y": {"auth": "YWRhOmE6Yg=="}, "z": {}}}')
    assert docker_login("x.y", tmp_path) == ("ada", "a:b")
    assert docker_login("z", tmp_path) is None
    config.write_text("[]")
    assert docker_login("x.y", tmp_path) is None


MEMBERS = [
    Member("b/c.txt", b"c", 0o644),
    Member("a", b"a", 0o755),
    Member("b/link", b"c.txt", 0o120777),
    Member("empty", b"", 0o40755),
    Member("long/" + "x" * 90 + "/" + "ü" * 60, b"l"),
]


def test_layer_depends_on_its_members_only(tmp_path: Path) -> None:
    first = write_layer(tmp_path / "1", "opt", MEMBERS)
    second = write_layer(tmp_path / "2", "opt", reversed(MEMBERS))
    assert (first.diff_id, first.blob.digest) == (second.diff_id, second.blob.digest)
    assert list(names_in(first))[:6] == [
        "opt", "opt/a", "opt/b", "opt/b/c.txt", "opt/b/link", "opt/empty"
    ]  # fmt: skip
    assert isinstance(first.blob.content, type(tmp_path))
    with tarfile.open(fileobj=io.BytesIO(first.blob.content.read_bytes())) as tar:
        infos = {info.name: info for info in tar}
    assert {(i.uid, i.gid, i.uname, i.mtime) for i in infos.values()} == {(0, 0, "", 0)}
    assert infos["opt/a"].mode == 0o755
    assert infos["opt/b"].isdir()
    assert infos["opt/b"].mode == 0o755
    assert infos["opt/b/link"].linkname == "c.txt"


def test_layout_is_read_as_it_was_written(tmp_path: Path) -> None:
    layer = write_layer(tmp_path / "layer", "opt", MEMBERS)
    image = empty_image(Arch.X86_64).with_layers([layer, layer], "twice")
    for _ in range(2):
        write_layout(tmp_path / "out" / "image", image, "name")
    found = read_layout(tmp_path / "out" / "image", Arch.X86_64)
    assert found.manifest.digest == image.manifest.digest
    assert len(found.config["history"]) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image"]
    with pytest.raises(BuildError, match="for arm64: it has amd64"):
        read_layout(tmp_path / "out" / "image", Arch.ARM64)


def test_own_image_is_known_and_no_other(tmp_path: Path) -> None:
    for name in ("a.oci", "b.oci", "c"):
        write_layout(tmp_path / name, empty_image(Arch.ARM64), "name")
    (tmp_path / "b.oci" / "index.json").write_text('{"manifests": []}')
    assert [is_own_image(path) for path in sorted(tmp_path.iterdir())] == [
        True, False, False
    ]  # fmt: skip


def test_folder_that_is_not_an_image_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(BuildError, match="there is something that is not an image"):
        write_layout(tmp_path, empty_image(Arch.ARM64), "name")
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.parametrize("text", ["{}", "[]", '{"manifests": [{}]}', "x", "null"])
def test_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "oci-layout").touch()
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(BuildError, match=r"Cannot (read|use) the base"):
        read_layout(tmp_path, Arch.ARM64)


def test_layer_that_is_not_a_tar_is_named(tmp_path: Path) -> None:
    layer = write_layer(tmp_path / "layer", "opt", MEMBERS)
    (tmp_path / "layer").write_bytes(b"\x28\xb5\x2f\xfd")  # zstd
    with pytest.raises(BuildError, match=f"Cannot read the layer {layer.blob.digest}"):
        list(names_in(layer))


def test_layout_as_one_file_is_reproducible_and_has_docker_s_list(
    tmp_path: Path,
) -> None:
    members = [Member("a", b"1"), Member("b", b"2" * 5000, 0o755)]
    layer = write_layer(tmp_path / "layer", "var/task", members)
    image = empty_image(Arch.X86_64).with_layers([layer], "a test")
    tars = []
    for name in ("one", "two"):
        layout = tmp_path / name / "Orders_API.oci"
        write_layout(layout, image, "Orders_API")
        write_tar(tmp_path / name / "x.tar", layout, image, "Orders_API")
        tars.append((tmp_path / name / "x.tar").read_bytes())
        os.utime(layout / "index.json", (1, 1))
        assert [path.name for path in (tmp_path / name).glob(".*")] == []
    assert tars[0] == tars[1]
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as tar:
        names = tar.getnames()

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        (listed,) = json.loads(read("manifest.json"))
        assert listed["RepoTags"] == ["orders-api:latest"]
        assert {listed["Config"], *listed["Layers"], "oci-layout"} <= set(names)
        assert (
            hashlib.sha256(read(listed["Layers"][0])).hexdigest()
            in (listed["Layers"][0])
        )
        (entry,) = json.loads(read("index.json"))["manifests"]
        assert entry["digest"] == image.manifest.digest
        assert entry["annotations"]["io.containerd.image.name"] == (
            "docker.io/library/orders-api:latest"
        )


def test_layer_without_compression_is_compressed(tmp_path: Path) -> None:
    packed = write_layer(tmp_path / "packed", "", [Member("a", b"1")])
    assert isinstance(packed.blob.content, Path)
    content = gzip.decompress(packed.blob.content.read_bytes())
    plain = Layer(
        Blob(LAYER, digest_of(content), len(content), content), packed.diff_id
    )
    assert compressed(plain, tmp_path / "again").blob.digest == packed.blob.digest
    damaged = replace(plain, diff_id=DIGEST)
    with pytest.raises(BuildError, match="its configuration says sha256:0000"):
        compressed(damaged, tmp_path / "damaged")


@pytest.mark.parametrize("form", [f"{LAYER}+zstd", "application/x-unknown"])
def test_layer_in_a_form_that_lambda_does_not_take_is_refused(form: str) -> None:
    image = empty_image(Arch.X86_64).with_layers(
        [Layer(Blob(form, DIGEST, 1, b"x"), DIGEST)], "a test"
    )
    with pytest.raises(BuildError, match="--dest-compress-format gzip"):
        check_layers(image, "base")

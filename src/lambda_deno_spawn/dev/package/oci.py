"""Container images as files: reads and writes OCI image layouts.

Knows layouts, manifests, configurations and layers, makes layers whose bytes depend on
their content only, and checks each digest that it relies on. Does not know what is in
an image, nor registries. Specification: OCI Image Format Specification 1.1, "Image
Layout", "Image Manifest", "Image Configuration" and "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import shutil
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from lambda_deno_spawn.dev.package.archive import LEVEL, Member
from lambda_deno_spawn.dev.package.scratch import partial_file, partial_folder
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.selection import OWN_IMAGE
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
# Docker's own names of the same formats, in images that Docker has pushed.
DOCKER = "application/vnd.docker"
OCI_NAMES = {
    f"{DOCKER}.distribution.manifest.list.v2+json": INDEX,
    f"{DOCKER}.distribution.manifest.v2+json": MANIFEST,
    f"{DOCKER}.container.image.v1+json": CONFIG,
    f"{DOCKER}.image.rootfs.diff.tar": LAYER,
    f"{DOCKER}.image.rootfs.diff.tar.gzip": f"{LAYER}+gzip",
}
ARCHITECTURES = {Arch.X86_64: "amd64", Arch.ARM64: "arm64"}
CREATED = "1970-01-01T00:00:00Z"  # fixed, so that equal content gives equal bytes
DOCUMENT_LIMIT_BYTES = 4 * 1024 * 1024  # of a manifest; as registries limit it
CHUNK_BYTES = 1024 * 1024
REPLACE_ATTEMPTS = 5
FOLDER = 0o755


@dataclass(frozen=True, slots=True)
class Blob:
    """A file that is named by its digest.

    Attributes:
        digest: ``sha256:`` and hexadecimal digits.
        content: Its bytes, or the file with them.
    """

    media_type: str
    digest: str
    size_bytes: int
    content: bytes | Path

    @property
    def descriptor(self) -> dict[str, object]:
        """How manifests refer to it."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size_bytes,
        }

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open it for reading."""
        if isinstance(self.content, bytes):
            yield io.BytesIO(self.content)
            return
        with self.content.open("rb") as file:
            yield file


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image.

    Attributes:
        diff_id: Digest of the layer before its compression.
    """

    blob: Blob
    diff_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform.

    Attributes:
        config: Its configuration, with ``config``, ``rootfs`` and ``history``.
        layers: Lowest first.
        annotations: Of its manifest.
    """

    config: Mapping[str, Any]
    layers: tuple[Layer, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def config_blob(self) -> Blob:
        """Its configuration as a file."""
        return document(CONFIG, self.config)

    @property
    def manifest(self) -> Blob:
        """Its manifest, whose digest names the image."""
        config = self.config_blob
        return document(
            MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor,
                "layers": [layer.blob.descriptor for layer in self.layers],
                "annotations": dict(self.annotations),
            },
        )

    @property
    def blobs(self) -> list[Blob]:
        """Everything that its manifest refers to."""
        return [self.config_blob, *(layer.blob for layer in self.layers)]

    def with_layers(self, layers: Iterable[Layer], comment: str) -> Image:
        """Return the image with further layers on top.

        Args:
            layers: Lowest first.
            comment: What made them, for the image's history.
        """
        added = list(layers)
        rootfs = self.config.get("rootfs") or {}
        entries = [{"created": CREATED, "created_by": comment} for _ in added]
        config = {
            **self.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": [
                    *(rootfs.get("diff_ids") or []),
                    *(layer.diff_id for layer in added),
                ],
            },
            "history": [*(self.config.get("history") or []), *entries],
        }
        return Image(config, (*self.layers, *added), self.annotations)


def document(media_type: str, value: object) -> Blob:
    """Return a JSON document as a blob."""
    content = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    return Blob(media_type, digest_of(content), len(content), content)


def digest_of(content: bytes) -> str:
    """Return the digest of bytes, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# --- Layers ----------------------------------------------------------------------


class _Hashed(io.RawIOBase):
    """Passes bytes on, and computes their digest and their number."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size_bytes += len(data)
        self._sink.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write_layer(path: Path, root: str, members: Iterable[Member]) -> Layer:
    """Write files as a layer; equal members give equal bytes.

    Args:
        path: File to write.
        root: Folder of the image that the members' names are below, without a slash
            at the beginning.
        members: The files, in any order.

    Raises:
        BuildError: A file cannot be read, or the layer cannot be written.
    """
    try:
        with path.open("wb") as file:
            packed = _Hashed(file)
            # No name and no time in the header.
            with gzip.GzipFile("", "wb", LEVEL, cast("IO[bytes]", packed), 0) as zipped:
                plain = _Hashed(cast("IO[bytes]", zipped))
                _write_tar(cast("IO[bytes]", plain), root, members)
    except OSError as error:
        raise BuildError(f"Cannot write {str(path)!r}: {error}") from error
    blob = Blob(f"{LAYER}+gzip", packed.digest, packed.size_bytes, path)
    return Layer(blob, plain.digest)


def check_layers(image: Image, shown: str) -> None:
    """Reject an image with layers that Lambda or this program cannot read.

    Raises:
        BuildError: A layer has another format than tar, with or without gzip.
    """
    for layer in image.layers:
        if layer.blob.media_type not in (LAYER, f"{LAYER}+gzip"):
            raise BuildError(
                f"Cannot build on {shown!r}: its layer {layer.blob.digest} is "
                f"{layer.blob.media_type}, and images for Lambda consist of layers "
                "that are compressed by gzip; copy it with `skopeo copy "
                "--dest-compress-format gzip --dest-force-compress-format "
                "docker://NAME oci:FOLDER`, and use --base FOLDER"
            )


def compressed(layer: Layer, path: Path) -> Layer:
    """Return a layer that is not compressed with gzip around it.

    Args:
        layer: The layer.
        path: File to write.

    Raises:
        BuildError: It cannot be read or written, or has other content than it should.
    """
    try:
        with layer.blob.opened() as source, path.open("wb") as file:
            packed = _Hashed(file)
            with gzip.GzipFile("", "wb", LEVEL, cast("IO[bytes]", packed), 0) as zipped:
                plain = _Hashed(cast("IO[bytes]", zipped))
                while chunk := source.read(CHUNK_BYTES):
                    plain.write(chunk)
    except OSError as error:
        raise BuildError(f"Cannot write {str(path)!r}: {error}") from error
    if plain.digest != layer.diff_id:
        raise BuildError(
            f"Cannot use the layer {layer.blob.digest} of the base: it is "
            f"{plain.digest}, and its configuration says {layer.diff_id}"
        )
    blob = Blob(f"{LAYER}+gzip", packed.digest, packed.size_bytes, path)
    return Layer(blob, plain.digest)


def _write_tar(sink: IO[bytes], root: str, members: Iterable[Member]) -> None:
    named = {
        f"{root}/{member.name}".strip("/"): member
        for member in sorted(members, key=lambda member: member.name)
    }
    folders = {
        str(parent): Member(str(parent), b"", stat.S_IFDIR | FOLDER)
        for name in named
        for parent in PurePosixPath(name).parents
        if str(parent) != "."
    }
    everything = {**folders, **named}
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(everything):
            member = everything[name]
            info = tarfile.TarInfo(name)
            info.mode = stat.S_IMODE(member.mode)
            if stat.S_ISDIR(member.mode):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                continue
            content = member.content
            if stat.S_ISLNK(member.mode):
                data = content if isinstance(content, bytes) else content.read_bytes()
                info.type = tarfile.SYMTYPE
                info.mode = 0o777
                info.linkname = data.decode()
                tar.addfile(info)
                continue
            with (
                io.BytesIO(content)
                if isinstance(content, bytes)
                else content.open("rb") as source
            ):
                info.size = source.seek(0, io.SEEK_END)
                source.seek(0)
                tar.addfile(info, source)


def names_in(layer: Layer) -> Iterator[str]:
    """Yield the paths in a layer, without a slash at the beginning.

    Raises:
        BuildError: The layer is damaged, or compressed in another way than by gzip.
    """
    try:
        with layer.blob.opened() as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for info in tar:
                yield info.name.removeprefix("./").strip("/")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BuildError(
            f"Cannot read the layer {layer.blob.digest} of the base "
            f"({layer.blob.media_type}): {error}"
        ) from error


# --- Layouts ---------------------------------------------------------------------


def write_layout(folder: Path, image: Image, name: str) -> None:
    """Write an image as a layout, replacing one that is there.

    It appears under its name when it is complete.

    Args:
        folder: Folder of the layout.
        image: The image.
        name: Name of the image, for tools that copy it.

    Raises:
        BuildError: It cannot be written, or there is something else.
    """
    if folder.exists() and not (folder / "oci-layout").is_file():
        raise BuildError(
            f"Cannot write the image to {str(folder)!r}: there is something that is "
            "not an image; remove it, or name another folder with --out"
        )
    manifest = image.manifest
    platform = {"os": "linux", "architecture": image.config["architecture"]}
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "annotations": dict([OWN_IMAGE]),
        "manifests": [
            {
                **manifest.descriptor,
                "platform": platform,
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        ],
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as partial:
            blobs = partial / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            for blob in (*image.blobs, manifest):
                _place(blob, blobs / blob.digest.partition(":")[2])
            (partial / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
            (partial / "index.json").write_bytes(_json(index))
            partial.chmod(FOLDER)
            _replace(partial, folder)
    except OSError as error:
        raise BuildError(
            f"Cannot write the image to {str(folder)!r}: {error.strerror or error}"
        ) from error


def write_tar(path: Path, layout: Path, image: Image, name: str) -> None:
    """Write a layout as one file, which Docker, Podman and skopeo load; reproducible.

    Beside the layout it has Docker's own ``manifest.json``, which a Docker without the
    image store of containerd reads; it refers to the same files.

    Args:
        path: The file; it appears complete or not at all.
        layout: Folder of the layout.
        image: The image in it.
        name: Name that the image has once it is loaded.

    Raises:
        BuildError: It cannot be written.
    """
    tag = f"{docker_name(name)}:latest"
    layers = [_blob_name(layer.blob) for layer in image.layers]
    listed = [
        {
            "Config": _blob_name(image.config_blob),
            "RepoTags": [tag],
            "Layers": layers,
        }
    ]
    try:
        index = json.loads((layout / "index.json").read_bytes())
        # By this one, containerd and Podman know the whole name.
        entry = index["manifests"][0]["annotations"]
        entry["io.containerd.image.name"] = f"docker.io/library/{tag}"
        documents = {"index.json": _json(index), "manifest.json": _json(listed)}
        members = [
            Member(found.relative_to(layout).as_posix(), found)
            for found in layout.rglob("*")
            if found.is_file() and found.name not in documents
        ]
        members += [Member(key, content) for key, content in documents.items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(path) as partial, partial.open("wb") as file:
            _write_tar(file, "", members)
    except OSError as error:
        raise BuildError(
            f"Cannot write the image to {str(path)!r}: {error.strerror or error}"
        ) from error


def docker_name(name: str) -> str:
    """Return a function's name in the form that Docker accepts for images."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "function"


def _blob_name(blob: Blob) -> str:
    return f"blobs/{blob.digest.replace(':', '/')}"


def _replace(partial: Path, folder: Path) -> None:
    """Give a folder its name, whatever other builds do at the same time."""
    for attempt in range(REPLACE_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.rename(folder)
        except OSError:  # another build has put its own there meanwhile
            if attempt == REPLACE_ATTEMPTS - 1:
                raise
        else:
            return


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _place(blob: Blob, path: Path) -> None:
    if path.exists():  # two layers with the same content
        return
    if isinstance(blob.content, bytes):
        path.write_bytes(blob.content)
        return
    try:
        path.hardlink_to(blob.content)
    except OSError:  # another file system, or one without links
        shutil.copyfile(blob.content, path)


def read_layout(path: Path, arch: Arch) -> Image:
    """Read an image for one instruction set from a layout.

    Args:
        path: Its folder.
        arch: The instruction set.

    Raises:
        BuildError: There is no such image, or it is damaged.
    """
    shown = repr(str(path))
    if not (path / "oci-layout").is_file():
        raise BuildError(
            f"Cannot use the base {shown}: it is not an OCI image layout, which has a "
            "file 'oci-layout'; write one with `skopeo copy docker://NAME oci:FOLDER`"
        )

    def find(digest: str, media_type: str) -> Blob:
        return _read_blob(path, digest, media_type)

    try:
        index = json.loads((path / "index.json").read_bytes())
        manifest = choose(index, arch, find, shown)
        return read_image(manifest, arch, find, shown)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"Cannot read the base {shown}: {error!r}") from error


def choose(
    index: Mapping[str, Any], arch: Arch, find: Any, shown: str
) -> Mapping[str, Any]:
    """Return the manifest for an instruction set, from an index or a manifest.

    Args:
        index: Content of an index, or of a manifest.
        arch: The instruction set.
        find: Returns the blob with a digest and a media type.
        shown: The image, for messages.

    Raises:
        BuildError: There is none.
    """
    if "manifests" not in index:
        return index
    wanted = ARCHITECTURES[arch]
    found = []
    for entry in index["manifests"]:
        platform = entry.get("platform") or {}
        kind = oci_name(entry.get("mediaType") or MANIFEST)
        if platform and platform.get("os") != "linux":
            continue  # also the signatures that some tools put beside images
        if platform.get("architecture") not in (None, wanted):
            found.append(platform.get("architecture"))
            continue
        content = json.loads(_content(find(entry["digest"], kind)))
        manifest = choose(content, arch, find, shown)
        config = json.loads(_content(_config(manifest, find)))
        if config.get("architecture") == wanted:
            return manifest
        found.append(config.get("architecture"))
    raise _other_platform(arch, found, shown)


def _other_platform(arch: Arch, found: Iterable[object], shown: str) -> BuildError:
    there = ", ".join(sorted({str(name) for name in found})) or "no image for Linux"
    return BuildError(
        f"Cannot use the base {shown} for {arch.value}: it has {there}; choose one for "
        f"linux/{ARCHITECTURES[arch]}"
    )


def read_image(manifest: Mapping[str, Any], arch: Arch, find: Any, shown: str) -> Image:
    """Return an image, from its manifest.

    Raises:
        BuildError: It is for another instruction set, or its parts do not belong
            together.
    """
    config = json.loads(_content(_config(manifest, find)))
    if config.get("architecture") != ARCHITECTURES[arch]:
        raise _other_platform(arch, [config.get("architecture")], shown)
    diff_ids = config["rootfs"]["diff_ids"]
    descriptors = manifest["layers"]
    if len(diff_ids) != len(descriptors):
        raise BuildError(
            f"Cannot use the base {shown}: it has {len(descriptors)} layers, and its "
            f"configuration names {len(diff_ids)}"
        )
    layers = [
        Layer(find(entry["digest"], oci_name(entry["mediaType"])), str(diff_id))
        for entry, diff_id in zip(descriptors, diff_ids, strict=True)
    ]
    return Image(config, tuple(layers))


def oci_name(media_type: str) -> str:
    """Return the OCI name of a format that Docker has another name for."""
    return OCI_NAMES.get(media_type, media_type)


def _config(manifest: Mapping[str, Any], find: Any) -> Blob:
    blob: Blob = find(manifest["config"]["digest"], CONFIG)
    return blob


def _content(blob: Blob) -> bytes:
    with blob.opened() as file:
        content = file.read(DOCUMENT_LIMIT_BYTES + 1)
    if len(content) > DOCUMENT_LIMIT_BYTES:
        raise BuildError(f"Cannot read {blob.digest}: it is too large for a document")
    return content


def _read_blob(layout: Path, digest: str, media_type: str) -> Blob:
    """Return a blob of a layout, after a look at its digest."""
    algorithm, _, digits = digest.partition(":")
    is_plain = digits.isascii() and digits.isalnum()
    path = layout / "blobs" / algorithm / digits
    if algorithm != "sha256" or not is_plain or not path.is_file():
        raise BuildError(f"Cannot use the base {str(layout)!r}: it has no {digest}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digits:
        raise BuildError(
            f"Cannot use the base {str(layout)!r}: the file of {digest} has other "
            "content; copy the image again"
        )
    return Blob(media_type, digest, path.stat().st_size, path)

"""The files of a package, and the names of modules in a bundle."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.package.bundle import (
    COMMONJS_EXPORT,
    first_line,
    stable_name,
    with_names,
)
from lambda_deno_spawn.dev.package.request import PATH_LENGTH, folder_of_fixed_length
from lambda_deno_spawn.dev.package.seed import anonymous, new_address
from lambda_deno_spawn.dev.project.function import Function
from lambda_deno_spawn.dev.project.project import Project
from lambda_deno_spawn.dev.project.selection import OWN_ARCHIVE, OWN_IMAGE, Selection

if TYPE_CHECKING:
    from collections.abc import Iterable


def names(
    root: Path,
    files: Iterable[str],
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> list[str]:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    project = Project(
        Function(root, "function.handler"), "name", include=include, exclude=exclude
    )
    return [file.name for file in Selection(project).files()]


def test_data_belongs_to_a_package(tmp_path: Path) -> None:
    files = ["function.ts", "data/a/b.json", "page.html", "logo.png"]
    assert sorted(names(tmp_path, files)) == sorted(files)


@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.production", ".git/config", ".aws/credentials", "lambda.toml",
        "README.md", "README", "notes.md", "lambda.d.ts", "function_test.ts",
        "function.test.ts", "tests/a.json", "events/a.json", "event.json",
        "dist/name.zip", "old.zip", "node_modules/hono/index.js", "deno.json",
        "deno.lock", "package.json", "tsconfig.json", "lib/.env", "lib/prod.env",
        "server.key", "lib/client.pem", "id_rsa", "id_ed25519.pub",
        "terraform.tfstate", "terraform.tfstate.backup", "cdk.out/tree.json",
    ],
)  # fmt: skip
def test_files_for_developers_do_not(tmp_path: Path, name: str) -> None:
    assert names(tmp_path, ["function.ts", name]) == ["function.ts"]


@pytest.mark.parametrize(
    "name", ["prompts/system.md", "lib/events/a.json", "data/dist/a.txt", "a/deno.json"]
)
def test_names_left_out_at_the_top_are_data_in_folders(
    tmp_path: Path, name: str
) -> None:
    assert names(tmp_path, [name]) == [name]


def test_including_a_folder_does_not_include_hidden_files_in_it(tmp_path: Path) -> None:
    files = ["assets/.env", "assets/.aws/credentials", "assets/logo.png"]
    assert names(tmp_path, files, include=("assets",)) == ["assets/logo.png"]


def test_links_are_followed_and_noted_if_they_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "project"
    outside = tmp_path / "shared" / "words.txt"
    outside.parent.mkdir()
    outside.touch()
    (root / "data").mkdir(parents=True)
    (root / "data" / "own.txt").touch()
    (root / "again").symlink_to("data")
    (root / "data" / "loop").symlink_to(root)
    (root / "shared").symlink_to("../shared")
    found = Selection(Project(Function(root, "function.handler"), "name")).files()
    assert [(file.name, file.target) for file in found] == [
        ("again/own.txt", None),
        ("data/own.txt", None),
        ("shared/words.txt", outside),
    ]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("events/*.json", "events/a.json"),
        ("events", "events/deep/a.json"),
        ("*.md", "notes.md"),
        (".config/app.json", ".config/app.json"),
        ("certificates/*.pem", "certificates/a.pem"),
        (".env.defaults", ".env.defaults"),
    ],
)
def test_included_files_do(tmp_path: Path, pattern: str, name: str) -> None:
    assert names(tmp_path, [name], include=(pattern,)) == [name]


@pytest.mark.parametrize("pattern", ["data", "data/*", "*.json", "data/private/*"])
def test_excluded_files_do_not(tmp_path: Path, pattern: str) -> None:
    assert names(tmp_path, ["data/private/a.json"], exclude=(pattern,)) == []


def test_exclusion_wins_over_inclusion(tmp_path: Path) -> None:
    files = ["events/a.json", "events/b.json"]
    found = names(tmp_path, files, include=("events",), exclude=("events/b*",))
    assert found == ["events/a.json"]


def test_of_a_folder_that_is_left_out_only_what_is_included_is_packaged(
    tmp_path: Path,
) -> None:
    files = ["tests/fixtures/a.json", "tests/a_test.ts", "tests/helper.ts"]
    found = names(tmp_path, files, include=("tests/fixtures/*.json",))
    assert found == ["tests/fixtures/a.json"]


def test_an_empty_folder_is_packaged(tmp_path: Path) -> None:
    (tmp_path / "uploads" / "today").mkdir(parents=True)
    (tmp_path / "tests" / "none").mkdir(parents=True)
    assert names(tmp_path, ["kept/.gitkeep"]) == ["kept/", "uploads/today/"]


def test_the_commands_own_zips_are_not_packaged(tmp_path: Path) -> None:
    for name, content in {
        "own": b"PK" + OWN_ARCHIVE,
        "other": b"PK",
        "no": b"",
    }.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.zip").write_bytes(content)
    assert names(tmp_path, []) == ["data/no.zip", "data/other.zip"]


def test_the_commands_own_lists_and_images_are_not_packaged(tmp_path: Path) -> None:
    """They were, in a folder below the project that is not called dist."""
    layer = {"name": "lambda-deno-spawn-deno-arm64", "compatibleRuntimes": []}
    for folder, content in {
        "own": [layer],
        "others": [layer, {"name": "certificates"}],
        "map": {"layers": ["roads"]},
        "words": ["roads"],
        "none": [],
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "layers.json").write_text(json.dumps(content))
    own = {"annotations": {OWN_IMAGE[0]: OWN_IMAGE[1]}}
    for name, index in {"own": own, "other": {}, "empty": None}.items():
        with tarfile.open(tmp_path / "map" / f"{name}.tar", "w") as tar:
            if index is None:
                continue
            blobs = tarfile.TarInfo("blobs")
            blobs.type = tarfile.DIRTYPE
            tar.addfile(blobs)
            text = json.dumps(index).encode()
            info = tarfile.TarInfo("index.json")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    (tmp_path / "map" / "no.tar").touch()
    assert names(tmp_path, []) == [
        "map/empty.tar", "map/layers.json", "map/no.tar", "map/other.tar",
        "none/layers.json", "others/layers.json", "words/layers.json",
    ]  # fmt: skip


def test_what_is_not_a_file_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build read a link to /dev/zero until there was no memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "broken").symlink_to("nowhere")  # is refused by its name, later
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
        server.bind("socket")
    project = Project(Function(tmp_path, "function.handler"), "name")
    selection = Selection(project)
    assert [file.name for file in selection.files()] == ["broken"]
    left_out = "is left out: it is a pipe, a socket or a device, not a file"
    assert selection.notes() == [
        f"{name!r} {left_out}" for name in ("pipe", "socket", "zero")
    ]


def test_an_empty_folder_for_packages_is_no_data(tmp_path: Path) -> None:
    """The first package had it, and the second one had not."""
    for name in ("build", "uploads"):
        (tmp_path / name).mkdir()
    project = Project(Function(tmp_path, "function.handler"), "name")
    found = Selection(project, (), str(tmp_path / "build")).files()
    assert [file.name for file in found] == ["uploads/"]


def test_what_is_written_now_is_not_packaged(tmp_path: Path) -> None:
    of_commands = ("lambda-deno-spawn-a1b2c3d4/task", "lambda-deno-spawn-s-a1b2c3/task")
    for name in ("scratch/task", *of_commands, "data"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").touch()
    project = Project(Function(tmp_path, "function.handler"), "name")
    found = Selection(project, [str(tmp_path / "scratch")]).files()
    assert [file.name for file in found] == ["data/a.txt"]


def test_patterns_that_match_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.json").touch()
    (tmp_path / "notes.txt").touch()
    patterns = ("*.{txt,md}", "./notes.txt", "tests/*.json", "gone/**")
    project = Project(
        Function(tmp_path, "function.handler"), "name", exclude=patterns, include=("x",)
    )
    selection = Selection(project)
    assert selection.files() == []
    first, second, third = selection.notes()
    assert first.startswith("the pattern 'x' in 'include' of lambda.toml matches no")
    assert "'*.{txt,md}' in 'exclude'" in second
    assert "write one pattern for each" in second
    assert "'gone/**'" in third


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("../project/function.ts", "function.ts"),
        ("../project/lib/a.ts", "lib/a.ts"),
        ("../cache/npm/registry.example/hono/4.1.0/a.js", "npm/hono/4.1.0/a.js"),
        ("../cache/npm/localhost_4873/@a/b/1.0.0/x.js", "npm/@a/b/1.0.0/x.js"),
        ("../other/secret/place.ts", "elsewhere/place.ts"),
        ("https://example.com/mod.ts", "https://example.com/mod.ts"),
        ("../project/lib/stra%C3%9Fe.ts", "lib/straße.ts"),
    ],
    ids=["own", "own-folder", "npm", "npm-scope", "elsewhere", "server", "encoded"],
)  # fmt: skip
def test_a_source_is_called_the_same_on_every_machine(source: str, name: str) -> None:
    root = Path("/home/ada/project")
    assert stable_name(source, Path("/home/ada/staged"), root, root) == name


def test_sources_are_relative_to_the_handler_s_folder() -> None:
    root = Path("/home/ada/project")
    here = Path("/home/ada/staged/src")
    name = stable_name("../../project/lib/a.ts", here, root, root / "src")
    assert name == "../lib/a.ts"


def test_only_paths_that_are_known_are_replaced_in_a_bundle() -> None:
    text = "\n".join(
        [
            "// ../cache/npm/a.js",
            'var a = "// ../cache/npm/a.js";',
            '  "../cache/npm/a.js"(exports, module) {',
            "// ../cache/npm/b.js",
        ]
    )
    assert with_names(text, {"../cache/npm/a.js": "npm/a.js"}).split("\n") == [
        "// npm/a.js",
        'var a = "// ../cache/npm/a.js";',
        '  "npm/a.js"(exports, module) {',
        "// ../cache/npm/b.js",
    ]


MOVES = {
    Path("/tmp/x [y]/deno_dir"): Path("/var/task/.deno_dir"),
    Path("/tmp/x [y]/task"): Path("/var/task"),
}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("file:///tmp/x%20[y]/task/lib/a.js", "file:///var/task/lib/a.js"),
        ("file:///tmp/x%20%5By%5D/task/%C3%BC.js", "file:///var/task/%C3%BC.js"),
        (
            "file:///tmp/x%20[y]/deno_dir/npm/a.js",
            "file:///var/task/.deno_dir/npm/a.js",
        ),
        ("file:///tmp/x%20[y]/task2/a.js", None),
        ("file:///tmp/x%20[y]/entry.mjs", None),
        ("data:text/javascript,secret", None),
    ],
)
def test_an_address_is_moved_to_where_lambda_has_it(
    address: str, expected: str | None
) -> None:
    assert new_address(address, MOVES) == expected


def code(address: bytes, digest: bytes, checksum: bytes = bytes(4)) -> bytes:
    string = digest + len(address).to_bytes(4, "little") + address
    return bytes(24) + checksum + b"before" + string + b"after"


OLD, NEW = "file:///tmp/x/task/a.js", "file:///var/task/a.js"


def test_code_does_not_show_where_it_was_made() -> None:
    made = code(OLD.encode(), b"\xaed\xd0\xd7")
    assert anonymous(made, OLD, NEW) == code(b"file:///var/task/a.js##", b"\x03\0\0\0")


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(code(OLD.encode(), b"hash", b"sum!"), id="with-checksum"),
        pytest.param(code(b"file:///tmp/x/task/b.js", b"hash"), id="other-module"),
        pytest.param(bytes(28) + OLD.encode(), id="part-of-a-longer-string"),
        pytest.param(b"short", id="short"),
        pytest.param("text", id="text"),
        pytest.param(17, id="number"),
    ],
)
def test_other_data_is_left_unchanged(field: object) -> None:
    assert anonymous(field, OLD, NEW) == field


@pytest.mark.parametrize("parent", ["/tmp/a", "/var/folders/xy/T/lambda-deno-spawn-1"])
def test_folders_are_equally_long_everywhere(parent: str) -> None:
    assert len(str(folder_of_fixed_length(Path(parent), "t"))) == PATH_LENGTH


def test_a_folder_that_is_too_deep_is_created_anyway() -> None:
    deep = Path("/" + "d" * PATH_LENGTH)
    assert folder_of_fixed_length(deep, "t") == deep / "t"


@pytest.mark.parametrize(
    "end",
    [
        "",
        "\n",
        "\n//# sourceMappingURL=a.js.map\n",
        "\n/*! legal */\n//# sourceMappingURL=a.js.map",
        "\n/*! Bundled license information:\n\na.js:\n  (*! a *)\n*/\n/* b */\n",
        "/*! minified */",
    ],
)
@pytest.mark.parametrize("name", ["require_function", "Q$", "$e"])
def test_the_export_of_a_commonjs_module_is_found_before_comments(
    end: str, name: str
) -> None:
    text = f"var a;\nexport default {name}();{end}"
    found = COMMONJS_EXPORT.search(text)
    assert found
    assert found[1] == name
    assert not COMMONJS_EXPORT.search(f"{text}\nvar b;")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('import { a, b as c } from "node:fs";\n', "// imports: node:fs\n"),
        (
            'import"node:os";import{a}from"node:fs";var{x}=y;',
            "// imports: node:fs node:os\n",
        ),
        (
            'import a, * as b from "node:os";\nimport "node:os";',
            "// imports: node:os\n",
        ),
        ('import { a } from "node:fs";\nimport x from "hono";\n', ""),
        (' * import x from "hono";\nimport "node:fs";\n', "// imports: node:fs\n"),
        ('await import("node:fs");\n', ""),
        ("", ""),
    ],
)
def test_the_first_line_names_what_a_bundle_imports_if_that_is_nodes(
    text: str, line: str
) -> None:
    assert first_line(text) == line

"""The entry module, and the URLs in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lambda_deno_spawn.launch.entry import RUNTIME_JS, builtins_of, entry_source
from tests.unit.launch.function import Function

pytestmark = pytest.mark.as_lambda


@pytest.mark.parametrize(
    "name",
    [
        "plain.ts",
        "with space.ts",
        "quotes'and\".ts",
        "back\\slash`${x}.ts",
        "übung-漢-😀.ts",
        "what?.ts",
        "half#way.ts",
        "100%.ts",
        "already%20encoded.ts",
        "a&b=c+d,e;f:g@h!i~j*k(l)m$n.ts",
        "[brackets]{braces}|^.ts",
        "line\u2028separator\nnewline.ts",
    ],
    ids=ascii,
)
def test_the_entry_imports_the_very_file_whatever_its_name(
    tmp_path: Path, name: str
) -> None:
    module = tmp_path / "some folder" / name
    source = entry_source(module, parts=())
    match = re.fullmatch(
        r'import \{ start \} from (".*?");\nstart\(\(\) => import\((".*")\)\);\n',
        source,
    )
    assert match is not None
    runtime_url, module_url = (json.loads(text) for text in match.groups())
    assert file_of(module_url) == str(module)
    assert file_of(runtime_url).endswith("/lambda_deno_spawn/js/runtime.js")
    assert Path(file_of(runtime_url)).is_file()


def test_a_file_without_a_suffix_is_required(tmp_path: Path) -> None:
    source = entry_source(tmp_path / "v1.2" / 'with "quotes"', parts=())
    url = f"file://{tmp_path}/v1.2/with%20%22quotes%22"
    path = json.dumps(f'{tmp_path}/v1.2/with "quotes"')
    assert source.endswith(
        'start(() => import("node:module").then((module) => '
        f'({{ "module.exports": module.createRequire("{url}")({path}) }})));\n'
    )


@pytest.mark.parametrize(
    ("text", "builtins"),
    [
        (
            "// imports: node:fs node:fs/promises\ncode();\n",
            ["node:fs", "node:fs/promises"],
        ),
        ("// imports: node:fs npm:hono\n", []),
        ('// imports: node:fs node:")+alert("\n', []),
        ("// imports: node:f\u00fc\n", []),
        ("// imports: \n", []),
        ("\n// imports: node:fs\n", []),
        ("// imports: node:fs", []),  # cut off
        (f"// imports: {'node:fs ' * 1000}\n", []),
        ("", []),
    ],
)
def test_only_a_bundle_s_first_line_names_modules_to_load_before(
    tmp_path: Path, text: str, builtins: list[str]
) -> None:
    (tmp_path / "f.bundle.js").write_text(text)
    assert list(builtins_of(tmp_path / "f.bundle.js")) == builtins
    assert list(builtins_of(tmp_path / "gone.bundle.js")) == []


def test_a_template_does_not_load_modules_before_the_handler_s() -> None:
    source = entry_source("/f.bundle.js", parts=(), builtins=["node:fs", "node:os"])
    assert source.endswith(
        "start(async (isTemplate) => { if (!isTemplate) await Promise.allSettled("
        '[import("node:fs"), import("node:os")]); '
        'return await import("file:///f.bundle.js"); });\n'
    )


def test_the_runtime_s_javascript_is_ascii() -> None:
    """Text of other characters takes V8 two bytes for each, and a process 0.4 ms."""
    for path in Path(RUNTIME_JS).parent.glob("*.js"):
        assert path.read_bytes().isascii(), path.name


def file_of(url: str) -> str:
    assert url.isascii()
    # What a URL parser would drop, change or take for something else.
    assert not re.search(r'[\s"<>\\^`{|}#?]', url)
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("file", "")
    assert not re.search(r"%(?![0-9A-F]{2})", parts.path)
    return unquote(parts.path, errors="strict")


def test_the_entry_names_an_absolute_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"file://{tmp_path}/f.ts" in entry_source(Path("f.ts"))


def test_the_entry_is_to_be_in_the_state_folder(function: Function) -> None:
    command = function.command()
    assert command.entry == str(function.state_dir / "entry.mjs")
    expected = entry_source(function.task_root / "function.ts", parts=())
    assert command.entry_text == expected


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({}, []),
        ({"LAMBDA_DENO_MAX_INVOCATIONS": "1"}, []),
        ({"LAMBDA_DENO_MAX_INVOCATIONS": "2"}, []),
        ({"LAMBDA_DENO_STRATEGY": "server"}, ["server.js"]),
    ],
)
def test_the_entry_names_no_file_that_is_not_needed(
    function: Function, variables: dict[str, str], parts: list[str]
) -> None:
    # Deno reads each of them when a process starts, also those that are never loaded.
    source = function.command(None, **variables).entry_text
    assert re.findall(r"/js/(\w+\.js)", source) == ["runtime.js", *parts]

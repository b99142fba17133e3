"""The npm package with the types: what it declares fits this project."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import lambda_deno_spawn

ROOT = Path(__file__).parents[2]
PACKAGE = json.loads((ROOT / "types" / "package.json").read_bytes())


def test_version_is_that_of_the_project() -> None:
    assert PACKAGE["version"] == lambda_deno_spawn.__version__


def test_licence_and_addresses_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert PACKAGE["license"] == project["license"]
    assert PACKAGE["repository"]["url"] == f"git+{project['urls']['Repository']}.git"
    assert PACKAGE["bugs"] == project["urls"]["Issues"]
    assert PACKAGE["homepage"].startswith(project["urls"]["Documentation"])


def test_there_is_one_source_of_the_types() -> None:
    [script] = [
        command
        for command in PACKAGE["scripts"]["prepack"].split(" && ")
        if "index.d.ts" in command
    ]
    source = "../src/lambda_deno_spawn/js/lambda.d.ts"
    # TypeScript 7 does not look for types of Node that no file asks for; Deno, which
    # reads the source itself, has its own.
    reference = '/// <reference types="node" />'
    assert script == f"{{ echo '{reference}'; cat {source}; }} > index.d.ts"
    assert PACKAGE["files"] == ["index.d.ts"]
    assert PACKAGE["types"] == PACKAGE["exports"]["."]["types"] == "./index.d.ts"
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {"types/index.d.ts", "types/LICENSE"} <= {*ignored}


def test_packages_that_the_types_import_from_are_dependencies() -> None:
    types = ROOT / "src" / "lambda_deno_spawn" / "js" / "lambda.d.ts"
    modules = set(re.findall(r'from "([^"]+)"', types.read_text("utf-8")))
    # The first is in the example of its head.
    assert modules == {".../lambda.d.ts", "node:stream"}
    assert [*PACKAGE["dependencies"]] == ["@types/node"]


def test_release_has_the_package() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    # `make release` empties the folder first.
    assert workflow.index("make release") < workflow.index("run: make types")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "npm pack --silent --pack-destination ../$(RELEASE)" in makefile

"""Which tests run a second time as Lambda would run them, and why the others do not.

What differs there are the user, his privileges and limits, and what can be written to.
It matters to modules of the runtime, which run on Lambda, and to those of their tests
that start processes or touch files. Such a test module carries the mark ``as_lambda``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DEVELOPER = "its subject is the developer's side, which does not run on Lambda"
MAPPING = "its subject is how events reach handlers, which no user or limit changes"
NOT_ON_LAMBDA = {
    "test_as_deployed": "it makes Lambda's place by itself, from zips, and needs root",
    "test_as_lambda": "its subject is that place itself, and making it needs root",
    "test_bench": DEVELOPER,
    "test_build": DEVELOPER,
    "test_call": DEVELOPER,
    "test_container": f"{DEVELOPER}; its image is run as Lambda's user",
    "test_cgroups": "its subject is how tests set the kernel's limits; it needs root",
    "test_ci_example": DEVELOPER,
    "test_console_page": DEVELOPER,
    "test_debugging": DEVELOPER,
    "test_deploy": DEVELOPER,
    "test_deploy_examples": DEVELOPER,
    "test_deploy_faults": DEVELOPER,
    "test_deploy_image": DEVELOPER,
    "test_deploy_keys": DEVELOPER,
    "test_dev": DEVELOPER,
    "test_dev_clients": DEVELOPER,
    "test_dev_http": DEVELOPER,
    "test_dev_reload": DEVELOPER,
    "test_dev_urls": DEVELOPER,
    "test_doctor": DEVELOPER,
    "test_emulator": DEVELOPER,
    "test_fork_other_denos": "it downloads another Deno; test_fork runs there",
    "test_from_folder_to_lambda": DEVELOPER,
    "test_guides": DEVELOPER,
    "test_http": MAPPING,
    "test_invoke_cli": DEVELOPER,
    "test_javascript": "Deno's test runner calls functions, with no process of ours",
    "test_killed": DEVELOPER,
    "test_layer_zip": f"{DEVELOPER}; test_as_deployed starts what it builds",
    "test_layer_removal": DEVELOPER,
    "test_layouts": DEVELOPER,
    "test_local_credentials": DEVELOPER,
    "test_missing_layers": DEVELOPER,
    "test_init": DEVELOPER,
    "test_new": DEVELOPER,
    "test_new_cdk": DEVELOPER,
    "test_native_build": DEVELOPER,
    "test_odd_projects": DEVELOPER,
    "test_page_commands": DEVELOPER,
    "test_pages": DEVELOPER,
    "test_older_handlers": MAPPING,
    "test_publish": DEVELOPER,
    "test_replay": DEVELOPER,
    "test_remote": DEVELOPER,
    "test_sample_events": MAPPING,
    "test_registry": DEVELOPER,
    "test_second_build": DEVELOPER,
    "test_secrets": "it needs AWS's stand-in, which writes beside its own modules",
    "test_stages": DEVELOPER,
    "test_terminal": DEVELOPER,
    "test_types_package": DEVELOPER,
    "test_wheel": DEVELOPER,
}

# Unit tests that touch files, and whose subject is not the runtime either.
NOT_THE_RUNTIME = {"test_documentation", "test_ratios"}


def marks(path: Path) -> set[str]:
    """Return the names of the marks that a whole module carries."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name("pytestmark")], value=value):
                return {
                    node.attr
                    for node in ast.walk(value)
                    if isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Attribute)
                    and node.value.attr == "mark"
                }
    return set()


def names_in(path: Path) -> set[str]:
    """Return every name and argument in a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(name) | ast.arg(name):
                names.add(name)
    return names


INTEGRATION = sorted((TESTS / "integration").glob("test_*.py"))


@pytest.mark.parametrize("path", INTEGRATION, ids=lambda path: path.stem)
def test_an_integration_module_runs_as_on_lambda_or_says_why_not(path: Path) -> None:
    is_marked = "as_lambda" in marks(path)
    assert is_marked != (path.stem in NOT_ON_LAMBDA), (
        f"{path.stem}: mark it as_lambda, or write down here why not"
    )


def test_reasons_are_given_for_modules_that_exist() -> None:
    assert set(NOT_ON_LAMBDA) <= {path.stem for path in INTEGRATION}


def test_unit_tests_of_the_runtime_that_touch_files_run_as_on_lambda() -> None:
    unmarked = [
        path.relative_to(TESTS)
        for path in sorted((TESTS / "unit").rglob("test_*.py"))
        if "tmp_path" in names_in(path)
        and "lambda_deno_spawn.dev" not in path.read_text(encoding="utf-8")
        and "as_lambda" not in marks(path)
        and path.stem not in NOT_THE_RUNTIME
    ]
    assert unmarked == []


def test_what_make_test_leaves_out_is_run_by_ci() -> None:
    root = TESTS.parent
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^([\w-]+):.*\n\t(.*pytest.*)$", makefile, re.MULTILINE))
    assert "-m 'not aws and not long'" in recipes["test"]
    assert "-m 'long and not aws'" in recipes["test-long"]
    steps = (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {step.partition(" #")[0] for step in steps} >= {
        "make test COVERAGE=on", "make test-long", "make test-as-lambda",
    }  # fmt: skip
    assert re.search(
        r"^check: .*\btest test-long test-as-lambda", makefile, re.MULTILINE
    )


# The rules are only as good as the reading.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("pytestmark = pytest.mark.as_lambda", {"as_lambda"}),
        (
            "import pytest\npytestmark = [\n    pytest.mark.as_lambda,\n"
            '    pytest.mark.every_way("fresh"),\n]',
            {"as_lambda", "every_way"},
        ),
        ("@pytest.mark.as_lambda\ndef test_one(): ...", set()),
    ],
)
def test_marks_of_a_whole_module_are_found(
    tmp_path: Path, source: str, expected: set[str]
) -> None:
    path = tmp_path / "test_x.py"
    path.write_text(source)
    assert marks(path) == expected


def test_names_of_arguments_are_found(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text("def test_one(tmp_path): ...")
    assert names_in(path) == {"tmp_path"}

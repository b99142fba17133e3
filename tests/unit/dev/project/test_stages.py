"""Stages: what a table ``[stage.NAME]`` changes, and which function it belongs to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.project import load_project
from lambda_deno_spawn.dev.project.target import find_project, find_target
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.project.project import Project

    Load = Callable[..., Project]

FILE = """
memory = 512
include = ["a", "b"]
[env]
TABLE = "orders-dev"
LEVEL = "debug"
[tags]
team = "orders"
[stage.prod]
memory = 2048
include = ["c"]
env = { TABLE = "orders", REGIONAL = true }
[stage.prod.tags]
cost = "prod"
[stage.test-2]
timeout = 9
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that writes a project file and loads a stage of it."""
    monkeypatch.chdir(tmp_path)
    Path("orders").mkdir()
    Path("orders/function.ts").touch()

    def load(text: str, stage: str | None = None, name: str | None = None) -> Project:
        Path("orders/lambda.toml").write_text(text, encoding="utf-8")
        return load_project(Path("orders"), name=name, stage=stage)

    return load


def test_stage_replaces_values_and_lists_and_merges_tables(load: Load) -> None:
    project = load(FILE, "prod")
    assert (project.stage, project.memory_mb, project.timeout_s) == ("prod", 2048, None)
    assert project.include == ("c",)
    assert project.env == {"TABLE": "orders", "LEVEL": "debug", "REGIONAL": "true"}
    assert project.tags == {"team": "orders", "cost": "prod"}
    assert project.name == "orders-prod"


def test_without_a_stage_no_stage_has_an_effect(load: Load) -> None:
    project = load(FILE)
    assert (project.stage, project.name, project.memory_mb) == (None, "orders", 512)
    assert project.env == {"TABLE": "orders-dev", "LEVEL": "debug"}


def test_every_key_of_the_file_can_be_in_a_stage(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        load("zzz = 1")
    keys = str(caught.value).partition("keys are ")[2].split(", ")
    for key in keys:
        with pytest.raises(UsageError) as refused:
            load(f'[stage.prod]\n"{key}" = 0.5\nfurther = 1', "prod")
        assert "unknown" not in str(refused.value), key
        assert f"stage.prod.{key}" in str(refused.value), key


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("", "orders-prod"),
        ('name = "shop"', "shop-prod"),
        ('[stage.prod]\nname = "live"', "live"),
        ('name = "shop"\n[stage.prod]\nname = "live"', "live"),
    ],
)
def test_stage_has_a_function_of_its_own(load: Load, lines: str, name: str) -> None:
    text = lines if "[stage" in lines else f"{lines}\n[stage.prod]"
    assert load(text, "prod").name == name
    assert load(text, "prod", "given").name == "given"


SAME = 'name = "shop"\n[stage.a]\nname = "{}"\n[stage.b]\n'


@pytest.mark.parametrize(
    ("taken", "stage", "name", "owners"),
    [
        ("shop", "a", None, ["in the stage 'a'", "without a stage"]),
        ("shop-b", "a", None, ["in the stage 'a'", "in the stage 'b'"]),
        ("shop-b", "b", None, ["in the stage 'b'", "in the stage 'a'"]),
        ("shop", None, None, ["without a stage", "in the stage 'a'"]),
        ("x", "a", "shop", ["in the stage 'a'", "without a stage"]),
        ("x", None, "shop-b", ["without a stage", "in the stage 'b'"]),
    ],
)
def test_two_stages_never_have_one_function(
    load: Load, taken: str, stage: str | None, name: str | None, owners: list[str]
) -> None:
    with pytest.raises(UsageError, match="would overwrite one with the other") as error:
        load(SAME.format(taken), stage, name)
    assert re.findall(r"in the stage '.'|without a stage", str(error.value)) == owners


@pytest.mark.parametrize(
    ("text", "stage", "problem"),
    [
        (FILE, "prd", "--stage prd: 'orders/lambda.toml' has no such stage; did you "
         "mean prod? The stages are prod, test-2"),
        (FILE, "x", "has no such stage; the stages are prod, test-2"),
        ("memory = 512", "prod", "has no stages; add a table [stage.prod]"),
        ("[stage.prod]\nmemroy = 1", None, "the key 'memroy' in [stage.prod] is "
         "unknown; did you mean memory? The keys are alias, arch, bucket"),
        ("[stage.a]\n[stage.b]\nzzz = 1", "a", "the key 'zzz' in [stage.b] is unknown; "
         "the keys are alias, arch, "),
        ("[stage.prod]\nmemory = 1", "prod", "stage.prod.memory is 1; expected"),
        ("memory = 1\n[stage.prod]\ntimeout = 3", "prod", ": memory is 1; expected"),
        ("[stage.prod.env]\nA_B = [1]", "prod", "stage.prod.env.A_B is [1]; expected"),
        ("[stage.prod.env]\nX = 'v'", "prod", "stage.prod.env.X: Lambda does not"),
        ("[stage.prod]\nenv = 3", "prod", "stage.prod.env is 3; expected a table"),
        ("stage = 'prod'", None, "stage is 'prod'; expected tables such as [stage.pr"),
        ("[stage]\nprod = 1", None, "stage.prod is 1; expected a table: [stage.prod]"),
        ("[stage.Prod]", None, "a stage has the name 'Prod'; expected 1 to 32 lower"),
        ("[stage.-a]", None, "a stage has the name '-a'; expected"),
        ("[stage.a.stage.b]", None, "the stage 'a' has stages of its own"),
        (f"name = '{'n' * 60}'\n[stage.prod]", "prod", "which has 65 characters, and "
         "Lambda accepts 64; set `name` in [stage.prod]"),
        ('[stage.prod]\npermissions = "defualt"', "prod", "LAMBDA_DENO_PERMISSIONS"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_its_place(
    load: Load, text: str, stage: str | None, problem: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        load(text, stage)


def test_stage_of_a_project_without_a_file_is_refused(load: Load) -> None:
    with pytest.raises(UsageError, match=re.escape("add it, or leave out --stage")):
        load_project(Path("orders"), stage="prod")


def test_argument_and_stage_mean_the_same_in_every_command(load: Load) -> None:
    load(FILE)
    for argument in ("orders", "./orders", "orders/function.ts"):
        target = find_target(argument, stage="prod")
        assert (target.name, target.lambda_name) == ("orders-prod", "orders-prod")
        assert target.other is None
        assert find_project(target).memory_mb == 2048
        assert find_target(argument).name == "orders"


def test_name_of_a_project_here_has_its_stages(load: Load) -> None:
    load(f'name = "shop"{FILE}')
    target = find_target("shop", stage="prod")
    assert target.name == target.lambda_name == "shop-prod"
    assert find_project(target).name == "shop-prod"
    # The folder is meant, although AWS may have a function with its name.
    assert find_target("orders", stage="prod").other is None


def test_name_of_a_stage_s_function_leads_to_its_project(load: Load) -> None:
    load(FILE)
    target = find_target("orders-prod")
    assert target.path is None
    advice = re.escape("it is a stage: give './orders' and --stage prod")
    with pytest.raises(UsageError, match=advice):
        find_project(target)
    with pytest.raises(UsageError, match="give the handler's file or the folder"):
        find_project(find_target("orders-prd"))


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("elsewhere", "no project here has this name"),
        ("orders:live", "a version or alias belongs to one function already"),
        ("arn:aws:lambda:eu-central-1:123456789012:function:orders", "it is an ARN"),
    ],
)
def test_stage_of_what_is_not_a_project_here_is_refused(
    load: Load, argument: str, reason: str
) -> None:
    load(FILE)
    with pytest.raises(UsageError, match=f"Cannot use --stage prod with .*{reason}"):
        find_target(argument, stage="prod")

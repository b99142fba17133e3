"""References to secrets in ``lambda.toml``, and what a role has to allow for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.dev.aws.plan import Place
from lambda_deno_spawn.dev.aws.secrets import secret_statements, with_secrets
from lambda_deno_spawn.dev.project.project import load_project
from lambda_deno_spawn.dev.project.secrets import references_in
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_deno_spawn.dev.project.project import Project

    Load = Callable[..., Project]

PLACE = Place("eu-central-1", "123456789012")
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:pay-Ab12Cd"
FILE = f"""
[env]
TABLE = "orders"
DB = {{ from = "ssm", name = "/orders/db" }}
PAY = {{ from = "secretsmanager", name = "{ARN}", key = "token" }}
[stage.prod.env]
DB = {{ from = "secretsmanager", name = "prod/db" }}
PAY = "none"
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that writes a project file and loads a stage of it."""
    monkeypatch.chdir(tmp_path)
    Path("function.ts").touch()

    def load(text: str, stage: str | None = None) -> Project:
        Path("lambda.toml").write_text(text, encoding="utf-8")
        return load_project(Path(), stage=stage)

    return load


def test_references_become_a_setting_of_the_runtime(load: Load) -> None:
    project = load(FILE)
    value = f"DB=ssm:/orders/db PAY=secretsmanager:{ARN}#token"
    assert project.variables == {"TABLE": "orders", "LAMBDA_DENO_SECRETS": value}
    environ = {"AWS_LAMBDA_RUNTIME_API": "a:1", "_HANDLER": "a.b", **project.variables}
    read = Settings.from_environ(environ, "/").secrets
    assert references_in(value) == [(one.store, one.name) for one in read]
    assert " ".join(f"{one.variable}={one.text}" for one in read) == value


def test_reference_in_a_stage_replaces_a_reference(load: Load) -> None:
    assert load(FILE, "prod").variables == {
        "TABLE": "orders",
        "PAY": "none",
        "LAMBDA_DENO_SECRETS": "DB=secretsmanager:prod/db",
    }
    added = 'env.PAY = { from = "ssm", name = "a", key = "b" }'
    text = f'{added}\n[stage.x.env]\nPAY = {{ from = "ssm", name = "c" }}'
    assert load(text, "x").secrets == {"PAY": "ssm:c"}, "without the key"


def test_given_variable_takes_the_place_of_a_secret(load: Load) -> None:
    project = load(FILE)
    assert project.variables_with({"DB": "local", "NEW": "1"}) == {
        "TABLE": "orders",
        "DB": "local",
        "NEW": "1",
        "LAMBDA_DENO_SECRETS": f"PAY=secretsmanager:{ARN}#token",
    }
    assert project.variables_with({"DB": "", "PAY": ""}) == {
        "TABLE": "orders", "DB": "", "PAY": ""
    }  # fmt: skip
    own = 'env.LAMBDA_DENO_SECRETS = "AB=ssm:a"'
    assert load(own).variables_with({}) == {"LAMBDA_DENO_SECRETS": "AB=ssm:a"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('DB = { from = "vault", name = "a" }', "env.DB: from is 'vault'; expected one "
         "of ssm, secretsmanager"),
        ("DB = {}", "env.DB: from is None"),
        ('DB = { from = "ssm" }', "env.DB: name is None"),
        ('DB = { from = "ssm", name = "a b" }', "env.DB: name is 'a b'"),
        ('DB = { from = "ssm", name = "a#b" }', "env.DB: name is 'a#b'"),
        ('DB = { from = "ssm", nmae = "a" }', "the member 'nmae' is unknown; did you "
         "mean name? It has from, key, name"),
        ('DB = { from = "ssm", name = "a", key = "" }', "env.DB: key is ''"),
        ('X = { from = "ssm", name = "a" }', "Lambda does not accept the name 'X'"),
        ('AWS_REGION = { from = "ssm", name = "a" }', "Lambda reserves AWS_REGION"),
        ('AWS_KEY = { from = "ssm", name = "a" }', "begins with AWS_ or LAMBDA_"),
    ],
)  # fmt: skip
def test_what_is_not_a_reference_is_refused(
    load: Load, line: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        load(f"[env]\n{line}")


def test_role_may_read_these_secrets_and_no_others(load: Load) -> None:
    begin = "arn:aws:ssm:eu-central-1:123456789012:parameter"
    value = (
        f"AB=ssm:/a/b CD=ssm:plain:3 EF=ssm:/a/b GH=secretsmanager:prod/db#x "
        f"IJ=secretsmanager:{ARN}"
    )
    variables = {"LAMBDA_DENO_SECRETS": value}
    assert secret_statements(variables, PLACE) == [
        {
            "Sid": "Secrets",
            "Effect": "Allow",
            "Action": ["secretsmanager:GetSecretValue"],
            "Resource": [
                "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
                "prod/db-??????",
                ARN,
            ],
        },
        {
            "Sid": "Parameters",
            "Effect": "Allow",
            "Action": ["ssm:GetParameters"],
            "Resource": [f"{begin}/a/b", f"{begin}/plain"],
        },
    ]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}
    assert with_secrets(policy, {}, PLACE) == policy
    assert len(with_secrets(policy, variables, PLACE)["Statement"]) == 3


def test_a_snapshot_is_refused_beside_secrets(tmp_path: Path) -> None:
    (tmp_path / "function.ts").write_text("export const handler = () => 1;\n")
    (tmp_path / "lambda.toml").write_text(
        'snapstart = true\nalias = "live"\n[env]\nDB = { from = "ssm", name = "/db" }\n'
    )
    with pytest.raises(UsageError, match="refers to secrets, which a snapshot"):
        load_project(tmp_path)

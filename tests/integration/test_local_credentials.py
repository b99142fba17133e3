"""``invoke`` with a profile: the handler has credentials as in Lambda."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.command import run_command

if TYPE_CHECKING:
    from pathlib import Path

HANDLER = """
export const handler = () => ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_REGION",
  "AWS_PROFILE"].map((name) => Deno.env.get(name) ?? null);
"""
CONFIG = """
[profile base]
aws_access_key_id = local
aws_secret_access_key = local
[profile assumed]
role_arn = arn:aws:iam::123456789012:role/dev
source_profile = base
region = eu-west-1
"""


@pytest.mark.deno
def test_handler_has_the_credentials_of_an_assumed_role(
    stand_in: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "function.js").write_text(HANDLER)
    (tmp_path / "config").write_text(CONFIG)
    kept = {
        name: value for name, value in os.environ.items()
        if not name.startswith("AWS_")
    }  # fmt: skip
    environ = {
        **kept,
        "AWS_ENDPOINT_URL": stand_in["AWS_ENDPOINT_URL"],
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "assumed",
    }
    done = run_command("invoke", tmp_path, "--timeout", "60", environ=environ)
    assert done.returncode == 0, done.stderr.decode()
    key, token, region, profile = json.loads(done.stdout)
    assert key.startswith("ASIA"), "temporary credentials, as a role's are"
    assert token
    assert (region, profile) == ("eu-west-1", None)

"""The event of a command: JSON, a file, a sample event, values that are set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from lambda_deno_spawn.dev.cli.app import app
from lambda_deno_spawn.dev.cli.events import read_event
from lambda_deno_spawn.dev.project.samples import find_sample, sample_names
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_sample_is_sent_by_its_name() -> None:
    assert read_event("s3-put", None) == find_sample("s3-put")


def test_file_takes_precedence_over_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sqs").write_text('"mine"')
    monkeypatch.chdir(tmp_path)
    assert read_event("sqs", None) == b'"mine"'


@pytest.mark.parametrize("text", ["null", "true", "12", '"sqs"', "{}"])
def test_json_takes_precedence_over_a_sample(text: str) -> None:
    assert read_event(text, None) == text.encode()


def test_unknown_name_is_refused_with_the_near_and_all_others() -> None:
    with pytest.raises(UsageError) as refused:
        read_event("s3put", None)
    assert "did you mean s3-put?" in str(refused.value)
    assert all(name in str(refused.value) for name in sample_names())


@pytest.mark.parametrize("event", [None, '{"a": 0}'])
def test_values_are_set_in_any_event(event: str | None) -> None:
    assert read_event(event, None, ["a=1"]) == b'{"a":1}'


def test_values_cannot_be_set_in_what_is_not_json(tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text("{")
    with pytest.raises(UsageError, match="it is not JSON, line 1 column 2"):
        read_event(None, str(file), ["a=1"])


def run(*arguments: str) -> tuple[int, str]:
    finished = CliRunner().invoke(app, list(arguments))
    return finished.exit_code, finished.output


def test_command_lists_all_samples_and_prints_one() -> None:
    assert run("events") == (0, "\n".join(sample_names()) + "\n")
    assert run("events", "sqs")[1].encode() == find_sample("sqs")
    code, text = run("events", "sqs", "--set", "Records.0.body=7")
    assert (code, json.loads(text)["Records"][0]["body"]) == (0, "7")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["nothing"], "Cannot find the event"), (["--set", "a=1"], "no event is named")],
)
def test_command_refuses_what_it_cannot_print(
    arguments: list[str], reason: str
) -> None:
    code, said = run("events", *arguments)
    assert code == 2
    assert reason in said


def test_a_file_without_json_is_said_to_have_none(tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text("\n")
    with pytest.raises(UsageError, match="it is empty; give JSON"):
        read_event(f"@{file}", None)
    file.write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(UsageError, match="begins with a byte order mark"):
        read_event(f"@{file}", None)
    with pytest.raises(UsageError, match="Cannot use --event: no file is named"):
        read_event("@", None)

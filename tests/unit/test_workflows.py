"""The workflows: pinned actions, few rights, and what a release promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from lambda_deno_spawn import __version__
from tests.release.components import ComponentError, completed
from tests.release.first_minute import readme_lines
from tests.release.packages import LINK, broken_links, changes_of, notes, strays_in

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> dict[str, Any]:
    path = ROOT / ".github" / "workflows" / name
    loaded = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(job: dict[str, Any]) -> str:
    return "\n".join(str(step.get("uses", step.get("run"))) for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_and_says_its_tag(path: Path) -> None:
    uses = re.findall(r"uses: (\S+)( # v\d+\.\d+\.\d+)?", path.read_text("utf-8"))
    assert uses
    for action, tag in uses:
        assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", action), action
        assert tag, f"{action}: name its tag in a comment"


def test_one_commit_stands_for_one_tag_everywhere() -> None:
    text = "\n".join(path.read_text("utf-8") for path in WORKFLOWS)
    pins = set(re.findall(r"uses: (\S+?)@([0-9a-f]{40}) # (v\S+)", text))
    assert len(pins) == len({action for action, _, _ in pins})


def test_only_jobs_without_code_of_the_project_have_rights_to_sign() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert workflow("release.yml")["permissions"] == {}
    rights = {name: set(job["permissions"]) for name, job in jobs.items()}
    assert rights == {
        "build": {"contents"},
        "provenance": {"id-token", "attestations"},
        "publish": {"id-token"},
        "github": {"contents"},
    }
    for name, job in jobs.items():
        assert ("checkout" in steps(job)) == (name == "build"), name
        assert "secrets." not in str(job)
    assert jobs["publish"]["environment"]["name"] == "pypi"


def test_a_release_is_tested_built_signed_and_published_in_this_order() -> None:
    jobs = workflow("release.yml")["jobs"]
    build = steps(jobs["build"])
    order = [".ci/run", "make release", "make layers", "actions/upload-artifact"]
    positions = [build.index(part) for part in order]
    assert positions == sorted(positions)
    assert jobs["provenance"]["needs"] == "build"
    assert "provenance" in jobs["publish"]["needs"]
    assert jobs["github"]["needs"] == "publish"


def test_every_python_of_the_classifiers_is_there_for_a_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = set(re.findall(r"Python :: (3\.\d+)'", str(project["classifiers"])))
    setup = workflow("release.yml")["jobs"]["build"]["steps"][1]["with"]
    assert named <= set(setup["python-version"].split())


# The description on PyPI and the notes of a release.


def test_links_that_do_not_work_on_pypi_are_found() -> None:
    base = "https://github.com/lambda-deno-spawn/lambda-deno-spawn/blob"
    good = f"[a]({base}/v{__version__}/README.md#x) [b](https://deno.com) [c](#x)"
    assert list(broken_links(good)) == []
    wrong = ["docs/x.md", f"{base}/v{__version__}/none.md", f"{base}/main/README.md"]
    text = " ".join(f"[a]({link})" for link in wrong)
    assert list(broken_links(text)) == wrong


def test_the_notes_have_the_changes_and_what_was_checked() -> None:
    text = notes(["wheel, pip, Python 3.13.0: version"])
    assert "\n- wheel, pip, Python 3.13.0: version\n" in text
    assert "### Security" in text
    assert not re.search(r"CHANGES|CHECKED|VERSION|<!--", text)
    assert all(re.match(r"https?://|#", link) for link in LINK.findall(text))


def test_the_changes_of_one_version_are_taken() -> None:
    changelog = "# x\n\n## 1.1.0 (not released yet)\n\nnew\n\n## 1.0.0\n\nold\n"
    assert changes_of("1.0.0", changelog) == ("", "\nold\n")
    assert changes_of("1.1.0", changelog) == (" (not released yet)", "\nnew\n\n")


def test_the_first_minute_runs_what_the_readme_says() -> None:
    lines = readme_lines()
    assert lines[:2] == ["python3 -m venv .venv", "pip install lambda-deno-spawn"]
    commands = [line.split()[1] for line in lines[2:]]
    assert commands == ["new", "dev", "invoke", "deploy"]


# The list of components.


def listed(version: str = "0.16.0", licences: tuple[str, ...] = ("MIT",)) -> Any:
    component = {"name": "H11", "version": version, "licenses": licences}
    project = {"component": {"name": "lambda-deno-spawn"}}
    return {"components": [component], "metadata": project}


def test_the_list_of_components_names_the_version_of_the_release() -> None:
    document = completed(listed(), "h11==0.16.0 \\\n")
    project = document["metadata"]["component"]
    assert project["version"] == __version__
    assert project["purl"] == f"pkg:pypi/lambda-deno-spawn@{__version__}"


@pytest.mark.parametrize("wrong", [listed(version="0.15"), listed(licences=())])
def test_a_component_that_is_not_locked_or_has_no_licence_is_found(wrong: Any) -> None:
    with pytest.raises(ComponentError, match="H11"):
        completed(wrong, "h11==0.16.0 \\\n")


def test_a_release_has_no_file_that_happens_to_lie_there() -> None:
    packaged = ["PKG-INFO", "README.md", "src/lambda_deno_spawn/scratch.py"]
    assert strays_in(packaged, {"README.md"}) == ["src/lambda_deno_spawn/scratch.py"]
    assert strays_in(packaged, set()) == []

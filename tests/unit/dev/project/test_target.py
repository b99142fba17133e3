"""One argument, one function: what each form means, and when it means two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.project.target import (
    Target,
    find_project,
    find_target,
    named_target,
)
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:orders"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_project(folder: Path, name: str | None = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "function.js").touch()
    if name is not None:
        (folder / "lambda.toml").write_text(f"name = {name!r}\n")


def meaning(argument: str) -> tuple[str, bool, str | None]:
    """Return name, whether it is here, and what else the argument may mean."""
    target = find_target(argument)
    return target.name, target.path is not None, target.other


def test_name_without_a_folder_is_a_name(here: Path) -> None:
    assert meaning("orders") == ("orders", False, None)


def test_folder_with_a_function_wins_over_the_name(here: Path) -> None:
    write_project(here / "orders")
    assert meaning("orders") == ("orders", True, None)


def test_folder_without_a_function_is_not_meant(here: Path) -> None:
    (here / "orders").mkdir()
    (here / "orders" / "notes.txt").touch()
    assert meaning("orders") == ("orders", False, None)


def test_folder_whose_project_file_is_broken_is_not_passed_over(here: Path) -> None:
    write_project(here / "orders")
    (here / "orders" / "lambda.toml").write_text("name = ")
    with pytest.raises(UsageError, match=r"^Cannot read 'orders/lambda\.toml'"):
        find_target("orders")


def test_folder_with_another_name_may_mean_two(here: Path) -> None:
    write_project(here / "orders", "orders-api")
    assert meaning("orders") == ("orders-api", True, "orders")
    assert meaning("./orders") == ("orders-api", True, None)
    assert meaning("orders/") == ("orders-api", True, None)
    assert meaning("orders/function.js") == ("orders-api", True, None)


def test_handler_that_is_named_makes_a_folder_one_of_a_function(here: Path) -> None:
    (here / "orders").mkdir()
    for file in ("a.js", "b.js"):
        (here / "orders" / file).touch()
    assert find_target("orders").path is None
    assert find_target("orders", "a.handler").path is not None


def test_two_projects_here_that_are_meant_are_refused(here: Path) -> None:
    write_project(here / "orders", "orders-api")
    write_project(here / "api", "orders")
    with pytest.raises(UsageError) as caught:
        find_target("orders")
    assert str(caught.value) == (
        "Cannot tell which function 'orders' means: the folder 'orders' "
        "contains 'orders-api', and './api' is the project called 'orders'; give "
        "'./orders' for the first, './api' for the second"
    )


def test_empty_argument_does_not_mean_the_working_folder(here: Path) -> None:
    """`delete "$NAME" --yes` removed the function here where NAME was not set."""
    write_project(here, "orders")
    with pytest.raises(UsageError, match=r"^Cannot use '' as a function: it is empty"):
        find_target("")


def test_path_that_is_not_there_is_refused(here: Path) -> None:
    with pytest.raises(UsageError, match=r"^Cannot find function '\.\./orders': "):
        find_target("../orders")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (
            ARN,
            Target(
                ARN,
                "orders",
                region="eu-central-1",
                account="123456789012",
                partition="aws",
            ),
        ),
        (
            f"{ARN}:live",
            Target(
                f"{ARN}:live",
                "orders",
                qualifier="live",
                region="eu-central-1",
                account="123456789012",
                partition="aws",
            ),
        ),
        (
            "billing:$LATEST.PUBLISHED",
            Target(
                "billing:$LATEST.PUBLISHED", "billing", qualifier="$LATEST.PUBLISHED"
            ),
        ),
        (
            "123456789012:function:orders",
            Target("123456789012:function:orders", "orders", account="123456789012"),
        ),
        (
            "billing:$LATEST",
            Target("billing:$LATEST", "billing", qualifier="$LATEST"),
        ),
    ],
    ids=["arn", "arn-of-alias", "published", "partial-arn", "qualified-name"],
)
def test_arns_and_versions_are_read(
    here: Path, argument: str, expected: Target
) -> None:
    write_project(here / "orders", "orders-api")
    assert find_target(argument) == expected
    assert named_target(argument) == expected
    assert expected.lambda_name == argument


def test_alias_is_one_of_the_function_that_its_name_means(here: Path) -> None:
    """`orders` was the function in the folder, `orders:live` an alias of another."""
    write_project(here / "orders", "orders-api")
    target = find_target("orders:live")
    assert (target.name, target.qualifier) == ("orders-api", "live")
    assert target.lambda_name == "orders-api:live"
    assert target.other == "orders"
    write_project(here / "orders", "orders")
    assert find_target("orders:live").lambda_name == "orders:live"
    assert find_target("orders:live").other is None
    assert find_target("123456789012:function:orders:live").path is None


def test_folder_with_several_links_to_it_is_one_project(here: Path) -> None:
    write_project(here / "releases-7", "orders")
    (here / "current").symlink_to("releases-7")
    assert find_project(find_target("orders")).name == "orders"
    write_project(here / "orders-api", "orders")
    (here / "orders").symlink_to("orders-api")
    (here / "releases-7" / "lambda.toml").unlink()
    assert find_target("orders").name == "orders"


@pytest.mark.parametrize(
    "argument", ["arn:aws:s3:::orders", f"{ARN}:live:2", "arn:", f"{ARN}-{'x' * 64}"]
)
def test_other_arns_are_refused(here: Path, argument: str) -> None:
    with pytest.raises(UsageError, match="it is not the ARN of a function"):
        find_target(argument)


@pytest.mark.parametrize("name", ["", "./orders", "a b", "x" * 65, "orders\n"])
def test_name_that_lambda_would_not_take_is_refused(here: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"^Cannot use the name "):
        named_target(name)


def test_name_is_a_name_whatever_folders_there_are(here: Path) -> None:
    write_project(here / "orders", "orders-api")
    assert named_target("orders") == Target("orders", "orders")


def test_region_is_the_arn_s(here: Path) -> None:
    target = find_target(ARN)
    assert target.choose_region(None) == "eu-central-1"
    assert target.choose_region("eu-central-1") == "eu-central-1"
    with pytest.raises(UsageError, match="is in eu-central-1; leave out --region"):
        target.choose_region("us-east-1")
    assert find_target("orders").choose_region("us-east-1") == "us-east-1"
    assert find_target("orders").choose_region(None) is None


def test_version_is_refused_where_the_whole_function_is_meant(here: Path) -> None:
    find_target("orders").refuse_qualifier("delete")
    with pytest.raises(UsageError, match=r"^Cannot delete 'orders:live': 'live' is"):
        find_target("orders:live").refuse_qualifier("delete")


@pytest.mark.parametrize(
    "argument", ["orders-api", ARN.replace("orders", "orders-api")]
)
@pytest.mark.parametrize("folder", ["orders", "."])
def test_name_and_arn_mean_the_project_here_that_has_the_name(
    here: Path, folder: str, argument: str
) -> None:
    write_project(here / folder, "orders-api")
    write_project(here / "billing")
    project = find_project(find_target(argument))
    assert project.name == "orders-api"
    assert project.function.task_root == (here / folder).resolve()


def test_name_of_a_folder_counts_where_the_project_file_has_none(here: Path) -> None:
    write_project(here / "my orders")
    (here / "my orders" / "lambda.toml").write_text("memory = 256\n")
    (here / "broken").mkdir()
    (here / "broken" / "lambda.toml").write_text("name = ")
    assert find_project(find_target("my-orders")).memory_mb == 256


def test_name_that_no_project_here_has_is_refused(here: Path) -> None:
    with pytest.raises(UsageError, match="no project here has the name 'orders'; give"):
        find_project(find_target("orders"))


def test_folder_without_a_function_is_said_to_be_there(here: Path) -> None:
    (here / "orders").mkdir()
    with pytest.raises(UsageError, match="handler in 'orders': it has no source file"):
        find_project(find_target("orders"))


def test_name_that_two_projects_here_have_is_refused(here: Path) -> None:
    for folder in ("a", "b"):
        write_project(here / folder, "orders")
    with pytest.raises(UsageError, match=r"'\./a' and '\./b' have this name; give one"):
        find_project(find_target("orders"))


def test_arn_is_not_given_another_name(here: Path) -> None:
    write_project(here / "orders")
    target = find_target(ARN)
    assert find_project(target, name="orders").name == "orders"
    with pytest.raises(UsageError, match=r"^Cannot use --name billing with "):
        find_project(target, name="billing")
    assert find_project(find_target("./orders"), name="billing").name == "billing"

"""Lists that AWS sends in pages: some are empty, and some tokens are repeated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest

from lambda_deno_spawn.dev import aws as package
from lambda_deno_spawn.dev.aws.errors import AwsError
from lambda_deno_spawn.dev.aws.plan import Call, Place
from lambda_deno_spawn.dev.aws.publish import newest_version
from lambda_deno_spawn.dev.aws.remote_logs import read_log
from lambda_deno_spawn.dev.aws.session import REPEAT_PAUSES_S, TOKENS, Aws

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCES = sorted(Path(package.__file__).parent.glob("*.py"))
# Each call that is read in pages, and where: the test below finds them in the source.
PAGED = {
    "lambda": [
        "ListFunctions", "ListFunctionUrlConfigs", "ListLayers", "ListLayerVersions",
        "ListProvisionedConcurrencyConfigs", "ListEventSourceMappings", "ListAliases",
    ],
    "iam": ["ListRolePolicies", "ListAttachedRolePolicies"],
    "logs": ["DescribeLogGroups", "FilterLogEvents"],
    "events": ["ListRuleNamesByTarget"],
}  # fmt: skip
LIST = Call("lambda", "ListFunctions", "*")


class Pages(Aws):
    """AWS that returns scripted pages by token."""

    def __init__(self, pages: Mapping[str, list[dict[str, Any]]]) -> None:
        self.region = "eu-central-1"
        self.sent: list[str] = []
        self.pauses: list[float] = []
        self._place = Place(self.region, "123456789012")
        self._pages = {token: list(replies) for token, replies in pages.items()}
        self._sleep = self.pauses.append

    def call(
        self, call: Call, *, reads_for_s: float | None = None
    ) -> Mapping[str, Any]:
        if call.operation == "GetLayerVersion":
            number = call.parameters["VersionNumber"]
            return {"LayerVersionArn": f"arn:aws:lambda:x:1:layer:a:{number}",
                    "Version": number}  # fmt: skip
        sends, _ = TOKENS.get(call.operation, ("Marker", "NextMarker"))
        token = str(call.parameters.get(sends, ""))
        self.sent.append(token)
        replies = self._pages[token]
        return replies.pop(0) if len(replies) > 1 else replies[0]


def page(*names: str, next: str | None = None) -> dict[str, Any]:
    items = [{"FunctionName": name} for name in names]
    return {"Functions": items, **({} if next is None else {"NextMarker": next})}


def names(aws: Aws) -> list[str]:
    return [item["FunctionName"] for item in aws.items(LIST, "Functions")]


def test_empty_pages_do_not_end_a_list() -> None:
    aws = Pages({"": [page(next="a")], "a": [page("f", next="b")], "b": [page("g")]})
    assert names(aws) == ["f", "g"]


def test_a_token_that_is_repeated_is_sent_again_after_a_pause() -> None:
    aws = Pages({"": [page("f", next="a")], "a": [page(next="a"), page("g")]})
    assert names(aws) == ["f", "g"]
    assert aws.sent == ["", "a", "a"]
    assert len(aws.pauses) == 1


def test_a_page_that_is_repeated_is_read_once() -> None:
    aws = Pages(
        {"": [page("f", next="a")], "a": [page("g", next="a"), page("g", next="b")],
         "b": [page("h")]}
    )  # fmt: skip
    assert names(aws) == ["f", "g", "h"]


@pytest.mark.parametrize(
    "tokens", [("a", "a"), ("b", "a")], ids=["one-token", "two-tokens"]
)
def test_a_list_that_gets_no_further_is_an_error_and_no_endless_loop(
    tokens: tuple[str, str],
) -> None:
    """A list that decides about a deletion must not be believed to be complete."""
    second, third = tokens
    aws = Pages(
        {"": [page("f", next="a")], "a": [page(next=second)], "b": [page(next=third)]}
    )
    with pytest.raises(AwsError, match="the same part of the list again and again"):
        names(aws)
    assert aws.pauses == list(REPEAT_PAUSES_S)


def test_a_log_whose_token_is_repeated_ends() -> None:
    event = {"eventId": "1", "timestamp": 5, "message": "hello\n"}
    aws = Pages(
        {"": [{"events": [event], "nextToken": "a"}],
         "a": [{"events": [], "nextToken": "a"}]}
    )  # fmt: skip
    assert [item.message for item in read_log(aws, "log", since_epoch_ms=0)] == [
        "hello"
    ]


def test_the_newest_layer_is_found_behind_empty_pages() -> None:
    empty = {"LayerVersions": [], "NextMarker": "a"}
    full = {"LayerVersions": [{"Version": 7}, {"Version": 6}]}
    newest = newest_version(Pages({"": [empty], "a": [full]}), "layer")
    assert newest is not None
    assert newest.version == 7


def test_every_list_is_read_in_pages_with_the_tokens_of_its_service() -> None:
    """A new list has to be added to PAGED, and its tokens to TOKENS if they differ."""
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    used = set(re.findall(r'"(List\w+|Describe\w+|FilterLogEvents)"', text))
    # AWS sends all tags at once, and as many repositories as were named: one. Whether a
    # stream exists, the first page of its shards shows.
    used -= {"ListTags", "DescribeRepositories"}
    used -= {"DescribeStream", "DescribeStreamSummary"}
    assert used == {name for names in PAGED.values() for name in names}
    session = botocore.session.Session()
    loader = session.get_component("data_loader")
    for service, operations in PAGED.items():
        model = loader.load_service_model(service, "paginators-1")["pagination"]
        for operation in operations:
            expected = (model[operation]["input_token"],
                        model[operation]["output_token"])  # fmt: skip
            assert TOKENS.get(operation, ("Marker", "NextMarker")) == expected

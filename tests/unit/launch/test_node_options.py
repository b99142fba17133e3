"""``NODE_OPTIONS`` in the forms that Node accepts."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.launch.node_options import (
    NodeOptions,
    Preload,
    parse_node_options,
)

pytestmark = pytest.mark.as_lambda

CASES = [
    ("", NodeOptions()),
    ("  ", NodeOptions()),
    ("--require /opt/a.js", NodeOptions((Preload("/opt/a.js", True),))),
    ("-r a --import b", NodeOptions((Preload("a", True), Preload("b", False)))),
    ("--import=b --require=a", NodeOptions((Preload("a", True), Preload("b", False)))),
    ("--import './with space.mjs'", NodeOptions((Preload("./with space.mjs", False),))),
    ("--enable-source-maps --no-warnings", NodeOptions()),
    ("--max_old_space_size=64", NodeOptions(v8_flags=("--max-old-space-size=64",))),
    ("--max-semi-space-size 4", NodeOptions(v8_flags=("--max-semi-space-size=4",))),
    (
        "--inspect --experimental-x",
        NodeOptions(ignored=("--inspect", "--experimental-x")),
    ),
    ("--import", NodeOptions(ignored=("--import",))),
    ("--import 'endless", NodeOptions(ignored=("--import 'endless",))),
]


@pytest.mark.parametrize(("text", "parsed"), CASES)
def test_node_options_are_parsed_as_node_does(text: str, parsed: NodeOptions) -> None:
    assert parse_node_options(text) == parsed

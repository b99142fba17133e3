"""What ``bootstrap`` says about the way of an event, held against the modules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "lambda_deno_spawn"


def test_the_way_of_an_event_names_modules_that_exist() -> None:
    text = (SOURCE / "bootstrap.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    way = re.findall(r"^ +([a-z_]+/[a-z_]+\.(?:py|js)) ", docstring, re.MULTILINE)
    assert way[0] == "serving/loop.py"
    assert "js/runtime.js" in way
    assert [name for name in way if not (SOURCE / name).is_file()] == []

"""What the runtime requires: the version of Deno, and packages of Python."""

from __future__ import annotations

DISTRIBUTION = "lambda-deno-spawn"
DENO_MINIMUM = (2, 9)  # older ones lack flags that the runtime sets
# What the runtime imports, with what that imports: tests/integration/test_layer_zip.py.
RUNTIME_PACKAGES = ("h11", "orjson")

"""Requirements of the runtime: the version of Deno, and Python packages."""

from __future__ import annotations

DISTRIBUTION = "lambda-deno-spawn"
DENO_MINIMUM = (2, 9)  # older versions lack flags that the runtime sets
# Packages that the runtime imports, including their own dependencies; checked by
# tests/integration/test_layer_zip.py.
RUNTIME_PACKAGES = ("h11",)

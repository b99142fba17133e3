"""Names and versions of the packages and systems that the runtime depends on."""

DISTRIBUTION = "lambda-deno-spawn"
# Packages that the runtime imports, including their own dependencies; checked by
# tests/integration/test_layer_zip.py.
RUNTIME_PACKAGES = ("h11", "orjson")
OS_ONLY = "provided.al2023"  # Lambda's runtime without an interpreter
DENO_MINIMUM = (2, 9)  # older versions lack flags that the runtime passes

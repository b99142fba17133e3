"""What this tool and its runtime are made of, and what the runtime runs on."""

DISTRIBUTION = "lambda-deno-spawn"
# What the runtime imports, with what that imports: tests/integration/test_layer_zip.py.
RUNTIME_PACKAGES = ("h11", "orjson")
OS_ONLY = "provided.al2023"  # the managed runtime without an interpreter
DENO_MINIMUM = (2, 9)  # older ones lack flags that the runtime gives

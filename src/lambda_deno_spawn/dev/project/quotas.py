"""Lambda's quotas, names and defaults, and our own defaults, in one place.

Specification: AWS Lambda Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

MB = 1024 * 1024
UNZIPPED_LIMIT_BYTES = 250 * MB  # function and layers together
# Largest zip that is sent to the API directly; a larger one goes through S3. Lambda
# accepts 50 MB, in a request of up to 70,167,211 bytes (69,905,067 in older messages)
# that holds it in base64. 50 MB become 69,905,068 bytes, and there are other parameters
# too: hence 64 KB less.
UPLOAD_LIMIT_BYTES = 50 * MB - 64 * 1024
LAYERS_LIMIT = 5
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 10_240
TIMEOUT_LIMIT_S = 900
EVENT_LIMIT_BYTES = 6 * MB
ASYNC_EVENT_LIMIT_BYTES = 1 * MB
STORAGE_MIN_MB = 512
STORAGE_MAX_MB = 10_240
# Memory of a function that sets none, both here and when it is created: with Lambda's
# own default of 128 MB it would be slow.
DEFAULT_MEMORY_MB = 512
DEFAULT_TIMEOUT_S = 3  # Lambda's own
# The runtime without a language, which needs the layer with an interpreter.
OS_ONLY = "provided.al2023"

"""Lambda's quotas, in one place.

Specification: AWS Lambda Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

MB = 1024 * 1024
UNZIPPED_LIMIT_BYTES = 250 * MB  # function and layers together
# Largest zip that is sent in the API request itself; larger ones go through S3. Lambda
# accepts 50 MB, in a request of at most 70,167,211 bytes (69,905,067 in older messages)
# that holds the zip in base64. 50 MB in base64 are 69,905,068 bytes, so leave 64 KB for
# the other parameters.
UPLOAD_LIMIT_BYTES = 50 * MB - 64 * 1024
LAYERS_LIMIT = 5
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 10_240
TIMEOUT_LIMIT_S = 900
STORAGE_MIN_MB = 512
STORAGE_MAX_MB = 10_240
EVENT_LIMIT_BYTES = 6 * MB
ASYNC_EVENT_LIMIT_BYTES = MB

"""What Lambda allows, in one place.

Specification: AWS Lambda Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

MB = 1024 * 1024
UNZIPPED_LIMIT_BYTES = 250 * MB  # function and layers together
UPLOAD_LIMIT_BYTES = 50 * MB  # a zip given to the API directly; more goes over S3
LAYERS_LIMIT = 5
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 10_240
TIMEOUT_LIMIT_S = 900
STORAGE_MIN_MB = 512
STORAGE_MAX_MB = 10_240

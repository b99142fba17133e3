"""What Lambda allows, in one place.

Specification: AWS Lambda Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

MB = 1024 * 1024
UNZIPPED_LIMIT_BYTES = 250 * MB  # function and layers together
# A zip given to the API directly; more goes over S3. Lambda takes 50 MB, in a request
# of 70,167,211 bytes (69,905,067 in older messages) that has it in base64. Of 50 MB
# that makes 69,905,068, so 64 KB less: there are other parameters too.
UPLOAD_LIMIT_BYTES = 50 * MB - 64 * 1024
LAYERS_LIMIT = 5
MEMORY_MIN_MB = 128
MEMORY_MAX_MB = 10_240
TIMEOUT_LIMIT_S = 900
STORAGE_MIN_MB = 512
STORAGE_MAX_MB = 10_240
EVENT_LIMIT_BYTES = 6 * MB
ASYNC_EVENT_LIMIT_BYTES = MB

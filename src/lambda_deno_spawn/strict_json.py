"""JSON as RFC 8259 has it, to and from bytes, by the standard library.

What the standard library accepts beyond that is refused: NaN and infinite numbers,
halves of a surrogate pair, other encodings than UTF-8. Text that nests too deeply is an
error like any other, because most of it was written by a handler. Why not orjson:
decision 0034.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, NoReturn


class JsonError(ValueError):
    """It is not JSON, or nested too deeply."""


def _refuse(constant: str) -> NoReturn:
    raise JsonError(f"{constant[:32]} is not a number in JSON")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode
_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
).encode


def loads(data: bytes) -> Any:
    """Read JSON.

    Raises:
        JsonError: It is something else.
    """
    try:
        text = data.decode()
        value = _decode(text)
        # Only an escape can stand for half of a pair, which no encoding can express.
        if "\\ud" in text or "\\uD" in text:
            _encode(value).encode()
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None
    return value


def dumps(value: object) -> bytes:
    """Write JSON on one line, without blanks.

    Raises:
        ValueError: It holds what JSON in UTF-8 cannot express.
    """
    return _encode(value).encode()

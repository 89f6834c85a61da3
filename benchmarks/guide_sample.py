"""The verification of the guide's Python sample, as it is printed there, with the secret as an argument."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

__all__ = ["verify_signature"]

ALLOWED_DRIFT = 300


def canonical_json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


def verify_signature(secret: bytes, payload: dict[str, Any], signature: str, timestamp: str) -> bool:
    try:
        ts = int(timestamp)
    except (TypeError, ValueError):
        return False
    now = int(time.time())
    if abs(now - ts) > ALLOWED_DRIFT:
        return False
    body = f"{timestamp}.".encode() + canonical_json(payload).encode()
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    expected = f"v1,{digest}"
    try:
        return hmac.compare_digest(signature, expected)
    except Exception:
        return False

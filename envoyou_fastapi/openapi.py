"""What the application's OpenAPI document says about the webhook's route."""

from __future__ import annotations

from typing import Any

__all__ = ["DESCRIPTION"]

_ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
}
_REFUSALS = {
    400: "Genuine, but not a usable event.",
    401: "Not proven to come from EnvoyOU.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    503: "The event cannot be stored right now; deliver it again.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in _REFUSALS.items()
}
_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}

DESCRIPTION: dict[str, Any] = {
    "summary": "Receive an EnvoyOU webhook",
    "response_description": "The event is stored.",
    "responses": _RESPONSES,
    "openapi_extra": {"requestBody": _REQUEST_BODY},
}
"""Keywords of a path operation."""

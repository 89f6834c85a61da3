"""The description of webhooks in the application's OpenAPI document. It is not used to receive them.

Event types, headers and errors are taken from the core, so that the description stays correct.
"""

# No postponed annotations: FastAPI could not resolve those of the functions that are created for each event type.
import json
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model

from envoyou_core import EVENT_TYPES, Login, User, WebhookResponse, Webhooks
from envoyou_core.adapter import (
    EVENT_TYPE_HEADER,
    MAX_CREATED,
    MAX_NAME_LENGTH,
    NONCE_HEADER,
    REFUSALS,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WEBHOOK_ID_HEADER,
)
from envoyou_core.testing import sample_event

__all__ = ["describe_webhooks", "operation"]


def describe_webhooks(webhooks: Webhooks) -> APIRouter:
    """Create a router that describes each event type, for the document's section on webhooks.

    Include it with `app.webhooks.include_router(...)`. It does not receive webhooks. See the guide, "Supported Events".

    Args:
        webhooks: the webhooks whose settings determine the required headers.
    """
    router = APIRouter()
    for type_, model in _EVENT_MODELS.items():
        description = operation(webhooks, summary=f"EnvoyOU sends {type_}")
        router.post(type_, name="envoyou", **description)(_path_operation(_body(model, [type_])))
    return router


def operation(webhooks: Webhooks, *, summary: str = "Receive an EnvoyOU webhook") -> dict[str, Any]:
    """Return the keyword arguments that describe a path operation for webhooks, except its body.

    Args:
        webhooks: the webhooks whose settings determine the required headers.
        summary: the operation's title.
    """
    return {
        "summary": summary,
        "response_class": JSONResponse,
        "response_description": "The event is stored, by this or an earlier delivery.",
        "responses": _RESPONSES,
        "openapi_extra": {"parameters": _headers(webhooks.required_headers)},
    }


# Responses

_DESCRIPTION_OF_STATUS: Final = {
    400: "The request is authentic, but its body is not a usable event; or the server cannot read the body.",
    401: "The request is not authentic. The reason is not revealed.",
    405: "The method is not POST.",
    411: "The body is chunked, and the server does not decode chunks. ASGI servers do.",
    413: "The body is too large.",
    415: "The content type is not JSON.",
    503: "The event cannot be stored at the moment; deliver it again.",
}
_ACCEPTED: Final = {
    "type": "object",
    "required": ["received"],
    "properties": {
        # With a type as well: some generators of clients fail on a constant without one.
        "received": {"type": "boolean", "const": True},
        "duplicate": {"type": "boolean", "const": True, "description": "The event was stored by an earlier delivery."},
    },
    "additionalProperties": False,
}


def _refusal(status: int) -> dict[str, Any]:
    errors = [error for error in REFUSALS if error.status == status]
    schema = {
        "type": "object",
        "required": ["error", "message"],
        "properties": {
            "error": {"type": "string", "enum": [error.code for error in errors]},
            "message": {"type": "string"},
        },
        "additionalProperties": False,
    }
    responses = {error.code: WebhookResponse.of_error(error()) for error in errors}
    examples = {code: {"value": json.loads(response.body)} for code, response in responses.items()}
    headers = {
        name: {"required": True, "schema": {"type": "string", "const": value}}
        for name, value in responses[errors[0].code].headers
        if name != "Content-Type"
    }
    return {
        "description": _DESCRIPTION_OF_STATUS[status],
        "content": {"application/json": {"schema": schema, "examples": examples}},
        **({"headers": headers} if headers else {}),
    }


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"schema": _ACCEPTED, "example": {"received": True}}}},
    **{status: _refusal(status) for status in sorted({error.status for error in REFUSALS})},
    # A default response also keeps FastAPI from adding 422, which it does for every operation with a body.
    "default": {
        "description": "A response of the server, or of the application's middleware, instead of the endpoint's."
    },
}

# Requests

_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    SIGNATURE_HEADER: (
        "HMAC-SHA256 of `<timestamp>.<body>`, with the endpoint's secret as the key.",
        {"pattern": "^v1,[0-9a-f]{64}$", "examples": [f"v1,{64 * '0'}"]},
    ),
    TIMESTAMP_HEADER: ("Epoch seconds.", {"pattern": "^[0-9]{1,12}$", "examples": ["1640995200"]}),
    WEBHOOK_ID_HEADER: (
        "The endpoint's id. Must equal the body's `webhook_id`, if it has one.",
        {"minLength": 1, "examples": ["wh_1234567890"]},
    ),
    EVENT_TYPE_HEADER: (
        "The event's type. Must equal the body's `type`.",
        {"minLength": 1, "examples": ["user.created"]},
    ),
    NONCE_HEADER: (
        "A nonce for replay protection. Within ten minutes, the same nonce with another event is refused.",
        {"examples": ["4f2c7a81-bc2a-4c2f-9a3d-91d7fa2d6c55"]},
    ),
}


_CUSTOM_HEADER: Final = (
    "A custom header of the endpoint, with the value that was registered for it.",
    {"minLength": 1},
)


def _headers(required: tuple[str, ...]) -> list[dict[str, Any]]:
    described = {name.lower() for name in _HEADERS}
    needed = {name.lower() for name in required}
    headers = {**_HEADERS, **{name: _CUSTOM_HEADER for name in required if name.lower() not in described}}
    return [
        {
            "name": name,
            "in": "header",
            "required": name.lower() in needed,
            "description": description,
            "schema": {"type": "string", **schema},
        }
        for name, (description, schema) in headers.items()
    ]


_NO_CONTROL_CHARACTERS: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"
_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=_NO_CONTROL_CHARACTERS)]
_WebhookId = Annotated[str, Field(max_length=MAX_NAME_LENGTH, pattern=_NO_CONTROL_CHARACTERS)]


class _OpenModel(BaseModel):
    model_config = ConfigDict(extra="allow")


class EnvoyouData(_OpenModel):
    """The event's data."""

    object: dict[str, Any]


class EnvoyouEvent(_OpenModel):
    """The required members of every event. Events of unknown types and objects of any shape are accepted and stored."""

    id: Annotated[_Name, Field(description="The event's idempotency key.", examples=["evt_1234567890"])]
    type: _Name
    created: Annotated[int, Field(ge=0, le=MAX_CREATED, description="Epoch seconds.", examples=[1640995200])]
    data: EnvoyouData
    webhook_id: Annotated[_WebhookId | None, Field(description="The endpoint's id.", examples=["wh_1234567890"])] = None


def _as_model(annotation: Any) -> Any:
    """Convert a struct of the core to a model that FastAPI can describe."""
    if isinstance(annotation, UnionType):
        return reduce(or_, map(_as_model, get_args(annotation)))
    if not (isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)):
        return annotation
    fields: dict[str, Any] = {
        # With a factory, the document shows no default, because a missing member has no value.
        field.name: (_as_model(field.type), ... if field.required else Field(default_factory=lambda: None))
        for field in msgspec.structs.fields(annotation)
    }
    return create_model(f"Envoyou{annotation.__name__}", __base__=_OpenModel, __doc__=annotation.__doc__, **fields)


_OBJECTS: Final = {"user": _as_model(User), "auth": _as_model(Login)}
"""The model of `data.object` for the first part of an event type, if the guide shows it."""

_DATA: Final = {
    family: create_model(f"Envoyou{family.title()}Data", __base__=EnvoyouData, object=(model, ...))
    for family, model in _OBJECTS.items()
}


def _event_model(type_: str) -> type[BaseModel]:
    data = _DATA.get(type_.partition(".")[0], EnvoyouData)
    name = type_.replace(".", " ").replace("_", " ").title().replace(" ", "")
    literal: Any = Literal[type_]
    doc = f"An event of the type {type_}, as in the guide."
    return create_model(f"Envoyou{name}", __base__=EnvoyouEvent, __doc__=doc, type=(literal, ...), data=(data, ...))


_EVENT_MODELS: Final = {type_: _event_model(type_) for type_ in EVENT_TYPES}


def _body(model: Any, types: list[str]) -> Any:
    samples = {type_: json.loads(sample_event(type_, id="evt_1234567890", created=1640995200).body) for type_ in types}
    return Annotated[model, Body(openapi_examples={type_: {"value": sample} for type_, sample in samples.items()})]


def _path_operation(body: Any) -> Any:
    """Create a path operation that only describes its body. It is never called."""

    async def never_called(event: body) -> None:
        raise NotImplementedError

    return never_called


any_event: Final = _path_operation(
    _body(Annotated[reduce(or_, _EVENT_MODELS.values()), Field(discriminator="type")] | EnvoyouEvent, list(EVENT_TYPES))
)
"""A path operation that describes events of all types. It is never called."""

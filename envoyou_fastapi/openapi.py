"""What the application's OpenAPI document says about webhooks.

Nothing here takes part in receiving them. What can be said of events, headers and refusals is the core's, and asked of
the core, so that it stays true.
"""

# No postponed annotations: FastAPI could not resolve those of a function that is made here for one type of event.
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
    """The events, one by one, for the webhooks of the OpenAPI document: `app.webhooks.include_router(...)` takes it.

    It receives nothing: it is what a reader of the document finds under the name of each event type. See the guide,
    "Supported Events".

    Args:
        webhooks: who receives, and by whose settings headers are required.
    """
    router = APIRouter()
    for type_, model in _KNOWN.items():
        described = operation(webhooks, summary=f"EnvoyOU sends {type_}")
        router.post(type_, name="envoyou", **described)(_never_called(_body(model, [type_])))
    return router


def operation(webhooks: Webhooks, *, summary: str = "Receive an EnvoyOU webhook") -> dict[str, Any]:
    """Keywords of a path operation that receives webhooks, but for its body.

    Args:
        webhooks: who receives, and by whose settings headers are required.
        summary: its title.
    """
    return {
        "summary": summary,
        "response_class": JSONResponse,
        "response_description": "The event is stored, now or by an earlier delivery.",
        "responses": _RESPONSES,
        "openapi_extra": {"parameters": [_header(name, webhooks.required_headers) for name in _HEADERS]},
    }


# What is answered

_WHY_REFUSED: Final = {
    400: "Genuine, but not a usable event; or a body that the server cannot read.",
    401: "Not proven to come from EnvoyOU, whatever the reason.",
    405: "Not a POST.",
    411: "The body is sent in chunks, and the server does not decode them. ASGI servers do.",
    413: "The body is too large.",
    415: "The body is not declared to be JSON.",
    503: "The event cannot be stored right now; deliver it again.",
}
_ACCEPTED: Final = {
    "type": "object",
    "required": ["received"],
    "properties": {
        "received": {"const": True},
        "duplicate": {"const": True, "description": "An earlier delivery of it was stored."},
    },
    "additionalProperties": False,
}


def _refusal(status: int) -> dict[str, Any]:
    errors = [error for error in REFUSALS if error.status == status]
    schema = {
        "type": "object",
        "required": ["error", "message"],
        "properties": {"error": {"enum": [error.code for error in errors]}, "message": {"type": "string"}},
        "additionalProperties": False,
    }
    answers = {error.code: WebhookResponse.of_error(error()) for error in errors}
    examples = {code: {"value": json.loads(answer.body)} for code, answer in answers.items()}
    headers = {
        name: {"required": True, "schema": {"type": "string", "const": value}}
        for name, value in answers[errors[0].code].headers
        if name != "Content-Type"
    }
    return {
        "description": _WHY_REFUSED[status],
        "content": {"application/json": {"schema": schema, "examples": examples}},
        **({"headers": headers} if headers else {}),
    }


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"schema": _ACCEPTED, "example": {"received": True}}}},
    **{status: _refusal(status) for status in sorted({error.status for error in REFUSALS})},
    # It also keeps FastAPI from adding a 422: it believes that the body is parsed by itself.
    "default": {
        "description": "What the server, or a middleware of the application, answers in place of the endpoint."
    },
}

# What is sent

_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    SIGNATURE_HEADER: (
        "HMAC-SHA256 of `<timestamp>.<body>` under the endpoint's secret.",
        {"pattern": "^v1,[0-9a-f]{64}$", "examples": [f"v1,{64 * '0'}"]},
    ),
    TIMESTAMP_HEADER: ("Epoch seconds.", {"pattern": "^[0-9]{1,12}$", "examples": ["1640995200"]}),
    WEBHOOK_ID_HEADER: (
        "The endpoint's id; where the body names it, the same.",
        {"minLength": 1, "examples": ["wh_1234567890"]},
    ),
    EVENT_TYPE_HEADER: ("The event's type, as in the body.", {"minLength": 1, "examples": ["user.created"]}),
    NONCE_HEADER: (
        "Remembered for ten minutes: with another event it is refused.",
        {"examples": ["4f2c7a81-bc2a-4c2f-9a3d-91d7fa2d6c55"]},
    ),
}


def _header(name: str, required: tuple[str, ...]) -> dict[str, Any]:
    description, schema = _HEADERS[name]
    return {
        "name": name,
        "in": "header",
        "required": name.lower() in map(str.lower, required),
        "description": description,
        "schema": {"type": "string", **schema},
    }


_NO_CONTROL_CHARACTERS: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"
_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=_NO_CONTROL_CHARACTERS)]
_WebhookId = Annotated[str, Field(max_length=MAX_NAME_LENGTH, pattern=_NO_CONTROL_CHARACTERS)]


class _Described(BaseModel):
    model_config = ConfigDict(extra="allow")


class EnvoyouData(_Described):
    """Holds what the event is about."""

    object: dict[str, Any]


class EnvoyouEvent(_Described):
    """All that an event must have. One of another type, or about an object of another shape, is accepted and kept."""

    id: Annotated[_Name, Field(description="The event's idempotency key.", examples=["evt_1234567890"])]
    type: _Name
    created: Annotated[int, Field(ge=0, le=MAX_CREATED, description="Epoch seconds.", examples=[1640995200])]
    data: EnvoyouData
    webhook_id: Annotated[_WebhookId | None, Field(description="The endpoint's id.", examples=["wh_1234567890"])] = None


def _as_model(annotation: Any) -> Any:
    """The core's structs as what FastAPI can describe."""
    if isinstance(annotation, UnionType):
        return reduce(or_, map(_as_model, get_args(annotation)))
    if not (isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)):
        return annotation
    fields: dict[str, Any] = {
        # A factory, so that no default is described: what is left out is left out.
        field.name: (_as_model(field.type), ... if field.required else Field(default_factory=lambda: None))
        for field in msgspec.structs.fields(annotation)
    }
    return create_model(f"Envoyou{annotation.__name__}", __base__=_Described, __doc__=annotation.__doc__, **fields)


_OBJECTS: Final = {"user": _as_model(User), "auth": _as_model(Login)}
"""From the first part of a type to what such an event is about, where the guide shows it."""

_DATA: Final = {
    family: create_model(f"Envoyou{family.title()}Data", __base__=EnvoyouData, object=(model, ...))
    for family, model in _OBJECTS.items()
}


def _known(type_: str) -> type[BaseModel]:
    data = _DATA.get(type_.partition(".")[0], EnvoyouData)
    name = type_.replace(".", " ").replace("_", " ").title().replace(" ", "")
    literal: Any = Literal[type_]
    doc = f"An event of the type {type_}, as the guide shows it."
    return create_model(f"Envoyou{name}", __base__=EnvoyouEvent, __doc__=doc, type=(literal, ...), data=(data, ...))


_KNOWN: Final = {type_: _known(type_) for type_ in EVENT_TYPES}


def _body(model: Any, types: list[str]) -> Any:
    samples = {type_: json.loads(sample_event(type_, id="evt_1234567890", created=1640995200).body) for type_ in types}
    return Annotated[model, Body(openapi_examples={type_: {"value": sample} for type_, sample in samples.items()})]


def _never_called(body: Any) -> Any:
    async def never_called(event: body) -> None:
        raise NotImplementedError

    return never_called


any_event: Final = _never_called(
    _body(Annotated[reduce(or_, _KNOWN.values()), Field(discriminator="type")] | EnvoyouEvent, list(EVENT_TYPES))
)
"""A path operation that takes an event of any type, to whoever looks at it. It is not to be called."""

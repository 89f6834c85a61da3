"""A dependency that verifies a request, for path operations that process events themselves."""

# No postponed annotations: FastAPI resolves those of a function, but not those of a callable object.
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, overload

from fastapi import Depends, Request, Response
from starlette.requests import ClientDisconnect

from envoyou_core import Event, WebhookError, WebhookResponse, Webhooks
from envoyou_core.adapter import read_body, request_of

__all__ = ["verified_event"]


Model = TypeVar("Model")


@overload
def verified_event(webhooks: Webhooks) -> Callable[[Request], Awaitable[Event]]: ...


@overload
def verified_event(webhooks: Webhooks, model: type[Model]) -> Callable[..., Awaitable[Event[Model]]]: ...


def verified_event(webhooks: Webhooks, model: type[Any] | None = None) -> Callable[..., Awaitable[Event[Any]]]:
    """Create a dependency that returns the verified event: `Annotated[Event, Depends(verified_event(webhooks))]`.

    With a model, `data.object` is converted to it: `Annotated[Event[User], Depends(verified_event(webhooks, User))]`.

    It only verifies, with the settings of `webhooks`; a request that fails gets the same response as from the router.
    The path operation has to store the event, to recognise redeliveries and to do the work. The raw bytes are in
    `event.body`. Do not declare a body in the path operation: FastAPI would parse it before it is verified. See the
    guide, "Webhook Signature Verification".

    Args:
        webhooks: the webhooks whose settings apply.
        model: a Pydantic model, a msgspec Struct, a dataclass or a TypedDict. An event whose object does not match it
            is answered 400, `invalid_payload`.
    """
    verified = _VerifiedEvent(webhooks)
    if model is None:
        return verified

    async def typed_event(request: Request, event: Annotated[Event, Depends(verified)]) -> Event[Any]:
        with _refusals_raised(webhooks, request):
            return event.typed_as(model)

    return typed_event


@dataclass(frozen=True)
class _VerifiedEvent:
    """Equal for the same `Webhooks`, so that FastAPI calls it once if several dependencies need the event."""

    webhooks: Webhooks

    async def __call__(self, request: Request) -> Event:
        with _refusals_raised(self.webhooks, request):
            body = await read_body(self.webhooks.request_limits, request.scope, _body_receiver(request))
            return await self.webhooks.averify(request_of(request.scope, body))


@contextmanager
def _refusals_raised(webhooks: Webhooks, request: Request) -> Iterator[None]:
    """Turn a `WebhookError` into an exception that is answered with the response of `webhooks.refuse`."""
    try:
        yield
    except WebhookError as error:
        raise _refused_error(request, webhooks.refuse(error, request_of(request.scope))) from None


class _RefusedError(Exception):
    """Carries the response. It is not an HTTPException, because applications may have handlers for those."""

    def __init__(self, response: WebhookResponse) -> None:
        super().__init__(response.status)
        self.response = response


def _refused_error(request: Request, response: WebhookResponse) -> _RefusedError:
    # The application's exception handlers are fixed once it is built, but the scope of each request refers to them.
    handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
    handlers.setdefault(_RefusedError, _respond)
    return _RefusedError(response)


async def _respond(_request: Request, error: _RefusedError) -> Response:
    return Response(error.response.body, error.response.status, dict(error.response.headers))


def _body_receiver(request: Request) -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
    """Return an ASGI `receive` for the body, which uses the request's cache if the body has been read already."""
    chunks = aiter(request.stream())

    async def receive() -> MutableMapping[str, Any]:
        try:
            chunk = await anext(chunks, None)
        except ClientDisconnect:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return receive

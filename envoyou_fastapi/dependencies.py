"""Only the check, as a dependency of a path operation."""

# No postponed annotations: FastAPI resolves those of a function, but not those of an object that is called.
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
    """A dependency that gives the verified event: `Annotated[Event, Depends(verified_event(webhooks))]`.

    With a model, `data.object` is one: `Annotated[Event[User], Depends(verified_event(webhooks, User))]`.

    It only verifies, by the settings of `webhooks`, and a request that does not pass is answered as the router answers
    it. To store the event, to know a redelivery and to do the work is the path operation's business, which takes
    `event.body` for the bytes: a body that it declares, FastAPI parses before anything is verified. See the guide,
    "Webhook Signature Verification".

    Args:
        webhooks: whose secret, tolerance and bounds apply.
        model: a Pydantic model, a msgspec Struct, a dataclass or a TypedDict. An event that is about something of
            another shape is answered 400, `invalid_payload`.
    """
    verified = _VerifiedEvent(webhooks)
    if model is None:
        return verified

    async def typed_event(request: Request, event: Annotated[Event, Depends(verified)]) -> Event[Any]:
        with _refusing(webhooks, request):
            return event.typed_as(model)

    return typed_event


@dataclass(frozen=True)
class _VerifiedEvent:
    """Equal for one `Webhooks`, so that FastAPI reads the body once where several dependencies ask for the event."""

    webhooks: Webhooks

    async def __call__(self, request: Request) -> Event:
        with _refusing(self.webhooks, request):
            body = await read_body(self.webhooks, request.scope, _messages(request))
            return await self.webhooks.averify(request_of(request.scope, body))


@contextmanager
def _refusing(webhooks: Webhooks, request: Request) -> Iterator[None]:
    """Have a request that is not accepted answered as the router answers it."""
    try:
        yield
    except WebhookError as error:
        raise _refused(request, webhooks.refuse(error, request_of(request.scope))) from None


class _RefusedError(Exception):
    """Carries the answer out of the dependency. It is no HTTPException: an application may have handlers for those."""

    def __init__(self, response: WebhookResponse) -> None:
        super().__init__(response.status)
        self.response = response


def _refused(request: Request, response: WebhookResponse) -> _RefusedError:
    # The handlers are the application's, fixed when it was built; but it hands them on with each request.
    handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
    handlers.setdefault(_RefusedError, _answer)
    return _RefusedError(response)


async def _answer(_request: Request, error: _RefusedError) -> Response:
    return Response(error.response.body, error.response.status, dict(error.response.headers))


def _messages(request: Request) -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
    """The body as ASGI messages, from the request's cache where something before has read it."""
    chunks = aiter(request.stream())

    async def receive() -> MutableMapping[str, Any]:
        try:
            chunk = await anext(chunks, None)
        except ClientDisconnect:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return receive

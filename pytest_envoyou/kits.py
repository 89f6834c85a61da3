"""Makes the test kit for an application: which `Webhooks` object, which test client, which path."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final

import pytest

from envoyou_core import ConfigurationError, Webhooks
from envoyou_core.testing import Delivery
from envoyou_core.testing.clients import DeliveryClient, DirectClient
from envoyou_core.testing.kit import WebhooksKit
from pytest_envoyou.clients import FlaskClient, HttpClient, client_for
from pytest_envoyou.endpoints import choose_endpoint, endpoints_of

__all__ = ["running_kit"]

DEFAULT_PATH: Final = "/webhooks/envoyou"


@contextmanager
def running_kit(request: pytest.FixtureRequest, application: Any, path: str | None) -> Iterator[WebhooksKit]:
    """Make the kit for one test, and isolate the application's `Webhooks` meanwhile."""
    __tracebackhide__ = True
    with ExitStack() as stack:
        try:
            kit = _kit_for(request, application, path)
        except ConfigurationError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        stack.enter_context(kit.running())
        # Before the end of the isolation, so that the lifespan of the application ends in it.
        stack.callback(kit.client.close)
        yield kit
    if (warning := kit.unhandled()) is not None:
        request.node.warn(warning)


def _kit_for(request: pytest.FixtureRequest, application: Any, path: str | None) -> WebhooksKit:
    if isinstance(application, Webhooks):
        if type(application).__module__.startswith("envoyou_django"):
            return _django_kit(request, path)
        return WebhooksKit(lambda: application, DirectClient(application), path or DEFAULT_PATH)
    if hasattr(type(application), "__envoyou_webhooks__"):
        return _django_kit(request, path)
    client = client_for(application)
    target = application if client is None else _application_of(application)
    endpoints = endpoints_of(target)
    if not endpoints:
        raise ConfigurationError(_describe_missing(target))
    endpoint = choose_endpoint(endpoints, path)
    others = {each.webhooks for each in endpoints} - {endpoint.webhooks}
    return WebhooksKit(lambda: endpoint.webhooks, client or _new_client(target), endpoint.path, others=others)


def _application_of(client: Any) -> Any:
    """Return the application behind a test client."""
    for holder in (client, getattr(client, "_transport", None)):
        for name in ("app", "application"):
            if (application := getattr(holder, name, None)) is not None:
                return application
    raise ConfigurationError(f"the application behind the client {type(client).__name__} is unknown: return it instead")


def _new_client(application: Any) -> DeliveryClient:
    if hasattr(application, "test_client") and hasattr(application, "url_map"):
        return FlaskClient(application.test_client(), application)
    if _is_asgi(application):
        return _LazyHttpClient(application)
    from werkzeug.test import Client

    return FlaskClient(Client(application))


def _is_asgi(application: Any) -> bool:
    call = application if inspect.isfunction(application) else type(application).__call__
    return inspect.iscoroutinefunction(call)


class _LazyHttpClient(HttpClient):
    """Runs an ASGI application, its lifespan included, from the first delivery to the end of the test.

    In an async test, the application runs on the test's event loop, without its lifespan.
    """

    def __init__(self, application: Any) -> None:
        super().__init__(None)
        self._application = application

    def close(self) -> None:
        """End the application's lifespan."""
        if self._client is not None:
            self._client.__exit__(None, None, None)

    def post(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.post`."""
        if self._client is None:
            from starlette.testclient import TestClient

            self._client = TestClient(self._application).__enter__()
        return super().post(path, delivery)

    async def apost(self, path: str, delivery: Delivery) -> Any:
        """See `DeliveryClient.apost`."""
        httpx = _httpx()
        transport = httpx.ASGITransport(self._application)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.post(path, content=delivery.body, headers=delivery.headers)


def _httpx() -> Any:
    """Return httpx2, or httpx if the application's tests use that."""
    try:
        return import_module("httpx2")
    except ImportError:
        return import_module("httpx")


def _django_kit(request: pytest.FixtureRequest, path: str | None) -> WebhooksKit:
    from pytest_envoyou.django import django_kit

    return django_kit(request, path)


def _describe_missing(application: Any) -> str:
    kind = type(application)
    return (
        f"the application {kind.__module__}.{kind.__qualname__} has no endpoint for webhooks. Expected a Flask app "
        "with the blueprint or the extension, a FastAPI app with create_router, a Starlette app with create_routes, a "
        "Webhooks object, or a test client of one of them. A factory is called if it is named with parentheses, as in "
        '"app:create_app()"'
    )

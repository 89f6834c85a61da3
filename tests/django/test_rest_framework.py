"""Django REST framework in the same project: its defaults for all views do not affect deliveries."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, override_settings

from envoyou_core.testing import sample_event, sign_delivery
from envoyou_django import webhooks
from tests.django.conftest import SECRET

pytestmark = [
    pytest.mark.django_db,
    # It may use deprecated APIs of a newer Django.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rest_framework"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rest_framework"),
]


@pytest.fixture(autouse=True)
def api(settings):
    """A project whose API views parse JSON, require a login and limit the rate of requests."""
    rest_framework = {
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.AnonRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"anon": "1/day"},
    }
    with override_settings(
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "rest_framework"],
        REST_FRAMEWORK=rest_framework,
        MIDDLEWARE=[*settings.MIDDLEWARE, "tests.django.middleware.reads_the_body"],
        ROOT_URLCONF="tests.django.rest_urls",
    ):
        yield


def test_the_api_works():
    visitor, user = Client(), Client()
    user.force_login(User.objects.create(username="ada"))
    body = {"object": [1, 2]}
    refused = visitor.post("/api/echo", body, content_type="application/json")
    assert refused.status_code in {HTTPStatus.FOUND, HTTPStatus.FORBIDDEN}
    assert user.post("/api/echo", body, content_type="application/json").json() == {"parsed": body}


@pytest.mark.parametrize("path", ["/webhooks/envoyou", "/webhooks/envoyou/", "/webhooks/async", "/webhooks/async/"])
@pytest.mark.parametrize("under", ["wsgi", "asgi"])
def test_deliveries_are_received_unchanged(path, under):
    for _ in range(2):
        event = sample_event(object={"notes": "ä" * 1000})
        delivery = sign_delivery(event, secret=SECRET)
        headers = {name: value for name, value in delivery.headers.items() if name != "Content-Type"}
        if under == "wsgi":
            client = Client(enforce_csrf_checks=True)
            response = client.post(path, delivery.body, content_type="application/json", headers=headers)
        else:
            post = async_to_sync(AsyncClient(enforce_csrf_checks=True).post)
            response = post(path, delivery.body, content_type="application/json", headers=headers)
        assert (response.status_code, response.json()) == (200, {"received": True})
        assert response.headers["Content-Type"] == "application/json"
        assert webhooks.inbox.get(event.id).event.body == delivery.body

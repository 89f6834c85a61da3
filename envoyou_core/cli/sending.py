"""Sends a signed sample event as the platform does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from envoyou_core.errors import ConfigurationError
from envoyou_core.reception.secrets import newest_secret
from envoyou_core.reception.signature import Secret
from envoyou_core.settings import SECRET_NAMES, SETTING_NAMES, read_environment
from envoyou_core.testing import SAMPLE_WEBHOOK_ID, sample_event, sign_delivery

__all__ = ["secret_from_environment", "send_sample"]

TIMEOUT = 10.0
"""Seconds."""


def secret_from_environment(webhook_id: str) -> Secret:
    """Return the newest secret of `ENVOYOU_WEBHOOK_SECRET` or of the file that `ENVOYOU_WEBHOOK_SECRET_FILE` names.

    Raises:
        ConfigurationError: neither is set, or the secret is invalid.
    """
    secret = read_environment(os.environ, others=SETTING_NAMES - SECRET_NAMES).get("secret")
    if secret is None:
        raise ConfigurationError("the webhook secret is missing: use --secret, or set ENVOYOU_WEBHOOK_SECRET")
    return newest_secret(secret, webhook_id)


def send_sample(
    url: str,
    *,
    type: str,
    secret: Secret,
    object: Mapping[str, Any] | None = None,
    webhook_id: str = SAMPLE_WEBHOOK_ID,
) -> tuple[str, int, str]:
    """Send a sample event once. Redirects are not followed, because the platform does not follow them.

    Args:
        url: the URL that receives webhooks.
        type: the event's type.
        secret: the signing secret.
        object: the event's `data.object`; by default, a sample for its type.
        webhook_id: the endpoint's id.

    Returns:
        The event's id, the status of the response and its body.

    Raises:
        ConfigurationError: the scheme of the URL is not http or https, or the secret is empty.
        InvalidPayloadError: the arguments do not make a valid event.
        OSError: there was no response.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigurationError(f"the URL must be one such as http://127.0.0.1:8000/webhooks/envoyou, got {url!r}")
    event = sample_event(type, object=object, webhook_id=webhook_id)
    delivery = sign_delivery(event, secret=secret)
    request = Request(url, delivery.body, delivery.headers)  # noqa: S310 - the scheme is checked above
    try:
        with build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as response:
            return event.id, response.status, response.read().decode(errors="replace")
    except HTTPError as response:
        with response:
            return event.id, response.code, _body_of(response)


class _NoRedirects(HTTPRedirectHandler):
    # The request to the new location would be a GET without the body, and its response would look like success.
    def redirect_request(self, *_redirect: object) -> None:
        """Follow no redirect."""


def _body_of(response: HTTPError) -> str:
    location = response.headers.get("Location")
    if 300 <= response.code < 400 and location is not None:
        return f"redirect to {location}; the platform does not follow redirects"
    return response.read().decode(errors="replace")

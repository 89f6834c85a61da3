"""A signed sample, sent as the platform would send it."""

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
    """The newest secret of `ENVOYOU_WEBHOOK_SECRET` or of the file that `ENVOYOU_WEBHOOK_SECRET_FILE` names.

    Raises:
        ConfigurationError: there is none, or none that can be a secret.
    """
    secret = read_environment(os.environ, others=SETTING_NAMES - SECRET_NAMES).get("secret")
    if secret is None:
        raise ConfigurationError("there is no webhook secret: give --secret, or set ENVOYOU_WEBHOOK_SECRET")
    return newest_secret(secret, webhook_id)


def send_sample(
    url: str,
    *,
    type: str,
    secret: Secret,
    object: Mapping[str, Any] | None = None,
    webhook_id: str = SAMPLE_WEBHOOK_ID,
) -> tuple[str, int, str]:
    """Send a sample event, once; returns its id, the status of the answer and the answer.

    A redirect is an answer, as it is for the platform: it is not followed.

    Args:
        url: where to.
        type: of the event.
        secret: it is signed with.
        object: its `data.object`; by default one that suits the type.
        webhook_id: the endpoint that it is for.

    Raises:
        ConfigurationError: the URL is none of HTTP, or the secret is empty.
        InvalidPayloadError: what was given makes no event.
        OSError: nobody answered.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigurationError(f"{url!r} is no address to send to, such as http://127.0.0.1:8000/webhooks/envoyou")
    event = sample_event(type, object=object, webhook_id=webhook_id)
    delivery = sign_delivery(event, secret=secret)
    request = Request(url, delivery.body, delivery.headers)  # noqa: S310 - its scheme was looked at
    try:
        with build_opener(_Unfollowed).open(request, timeout=TIMEOUT) as answer:
            return event.id, answer.status, answer.read().decode(errors="replace")
    except HTTPError as refusal:
        with refusal:
            return event.id, refusal.code, _told(refusal)


class _Unfollowed(HTTPRedirectHandler):
    # Followed, it would be a GET without its body, and whatever page it leads to would count as the answer.
    def redirect_request(self, *_redirect: object) -> None:
        """See `HTTPRedirectHandler.redirect_request`: none is made."""


def _told(refusal: HTTPError) -> str:
    place = refusal.headers.get("Location")
    if 300 <= refusal.code < 400 and place is not None:
        return f"a redirect to {place}, which no sender of webhooks follows"
    return refusal.read().decode(errors="replace")

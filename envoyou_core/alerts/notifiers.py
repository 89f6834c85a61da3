"""Where alerts are sent: e-mail over SMTP, and an incoming webhook in Slack's form."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from envoyou_core.alerts.states import Alert
from envoyou_core.errors import ConfigurationError

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

__all__ = ["TIMEOUT", "EmailNotifier", "Notifier", "SlackNotifier"]

TIMEOUT: Final = 10.0
"""Seconds for each step of a notification."""

Notifier = Callable[[Alert], object]
"""Delivers an alert, or raises."""


class EmailNotifier:
    """Sends alerts by e-mail.

    Args:
        url: the server, `smtp://user:password@host:587` with STARTTLS if the server has it, or `smtps://...`. With a
            password, a server without TLS is refused.
        to: the recipients.
        sender: the sender's address.

    Raises:
        ConfigurationError: the URL is invalid.
    """

    def __init__(self, url: str, to: Sequence[str], sender: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            # The URL may contain a password.
            raise ConfigurationError("smtp_url of alerts must be a URL such as smtp://user:password@host:587")
        self._is_tls = parts.scheme == "smtps"
        self._host = parts.hostname
        self._port = port or (465 if self._is_tls else 25)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._to = tuple(to)
        self._sender = sender

    def __call__(self, alert: Alert) -> None:
        """Send one message."""
        import smtplib
        import ssl
        from email.message import EmailMessage

        message = EmailMessage()
        message["Subject"] = alert.title
        message["From"] = self._sender
        message["To"] = ", ".join(self._to)
        message["Date"] = alert.at
        message.set_content(f"{alert.text}\n\nFired at {alert.fired_at:%Y-%m-%d %H:%M:%S} UTC.\n")
        context = ssl.create_default_context()
        with (
            smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT, context=context)
            if self._is_tls
            else smtplib.SMTP(self._host, self._port, timeout=TIMEOUT)
        ) as server:
            server.ehlo()
            if not self._is_tls and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
            elif not self._is_tls and self._password:
                raise ConnectionError("the SMTP server offers no TLS, so the password is not sent to it")
            if self._user:
                server.login(self._user, self._password)
            server.send_message(message)


class SlackNotifier:
    """Posts alerts to an incoming webhook: `{"text": ...}`, as Slack, Mattermost and others accept it.

    Args:
        url: the URL, which is secret.

    Raises:
        ConfigurationError: the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            # The URL is secret.
            raise ConfigurationError("webhook_url of alerts must be an http or https URL")
        self._url = url

    def __call__(self, alert: Alert) -> None:
        """Send one message."""
        from urllib.request import Request

        mark = ":rotating_light:" if alert.is_firing else ":white_check_mark:"
        body = json.dumps({"text": f"{mark} *{alert.title}*\n{alert.text}"}).encode()
        request = Request(  # noqa: S310 - the scheme was checked
            self._url, body, {"Content-Type": "application/json"}, method="POST"
        )
        opener = _opener_without_redirects()
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                answer.read(1)
        except Exception as error:
            # Its text may contain the URL.
            detail = getattr(error, "code", None) or type(getattr(error, "reason", error)).__name__
            raise ConnectionError(f"the webhook of the alerts answered {detail}") from None


def _opener_without_redirects() -> OpenerDirector:
    from urllib.request import HTTPRedirectHandler, build_opener

    class NoRedirects(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """Follow no redirect: the new URL would be one that nobody configured."""

    return build_opener(NoRedirects)

"""The setting `alerts`: thresholds, and where alerts are sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envoyou_core.errors import ConfigurationError

if TYPE_CHECKING:
    from envoyou_core.alerts.notifiers import Notifier

__all__ = ["Alerts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """Which alerts fire, and where they are sent, besides the log and `on_alert`.

    See the guide, "Monitoring and Analytics".

    Attributes:
        thresholds: other thresholds than the default ones, by rule; `False` or `None` turns a rule off.
        webhook_url: an incoming webhook in Slack's form, to which alerts are posted. It is secret.
        email_to: addresses to which alerts are sent by e-mail.
        email_from: the sender's address; by default the first recipient.
        smtp_url: the server for e-mail, such as `smtp://user:password@host:587`, or `smtps://...`. It is secret.

    Raises:
        ConfigurationError: a rule is unknown, a threshold is not a number of at least 0, a URL is invalid, or e-mail
            is configured in part only.
    """

    thresholds: Mapping[str, float | bool | None] = field(default_factory=dict)
    webhook_url: str | None = field(default=None, repr=False)
    email_to: Sequence[str] = ()
    email_from: str | None = None
    smtp_url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.thresholds:
            self._check_thresholds()
        if isinstance(self.email_to, str):
            raise ConfigurationError("email_to of alerts must be a list of addresses")
        if bool(self.email_to) != bool(self.smtp_url):
            raise ConfigurationError("e-mail alerts need both email_to and smtp_url")
        self.notifiers()

    def _check_thresholds(self) -> None:
        # Here and below, because every application imports the settings, and few processes evaluate alerts.
        from envoyou_core.alerts.rules import RULES

        for name, threshold in self.thresholds.items():
            if name not in RULES:
                raise ConfigurationError(f"unknown alert {name!r}, expected one of {', '.join(sorted(RULES))}")
            if threshold is None or threshold is False:
                continue
            if isinstance(threshold, bool) or not isinstance(threshold, int | float):
                raise ConfigurationError(f"the threshold of alert {name!r} must be a number or false")
            if not math.isfinite(threshold) or threshold < 0:
                raise ConfigurationError(f"the threshold of alert {name!r} must be at least 0, got {threshold}")

    def notifiers(self) -> dict[str, Notifier]:
        """Return the configured notifiers by name."""
        notifiers: dict[str, Notifier] = {}
        if not (self.smtp_url or self.webhook_url):
            return notifiers
        from envoyou_core.alerts.notifiers import EmailNotifier, SlackNotifier

        if self.smtp_url:
            notifiers["email"] = EmailNotifier(self.smtp_url, self.email_to, self.email_from or self.email_to[0])
        if self.webhook_url:
            notifiers["webhook_url"] = SlackNotifier(self.webhook_url)
        return notifiers

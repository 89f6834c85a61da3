"""The Flask extension: webhooks configured by `app.config` and the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flask import Blueprint, Flask, current_app
from msgspec.structs import replace

from envoyou_core import ConfigurationError, Handlers, Webhooks
from envoyou_core.adapter import MISSING_SECRET, Handler, Hook, HookKind, above_environment, read_settings
from envoyou_flask.blueprint import health_blueprint, receiving_blueprint
from envoyou_flask.wiring import attach

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["Envoyou"]

DEFAULT_URL_PREFIX = "/webhooks/envoyou"

NAME = "envoyou"
"""The name of the blueprint, and the key in `app.extensions["envoyou"]`."""

HEALTH_NAME = "envoyou_health"
"""The name of the blueprint of the health probes."""

OWN_SETTINGS = frozenset({"URL_PREFIX", "SUBDOMAIN"})
"""Settings that are not keywords of `Webhooks`."""


class Envoyou(Handlers):
    """Receives EnvoyOU webhooks in one or several Flask apps, each with its own settings and its own inbox.

    Handlers and hooks are registered here for all apps. A handler runs in the context of the app that received the
    event.

    Args:
        app: an app to initialise at once; its configuration must be complete.
        db: the apps' Flask-SQLAlchemy. The inbox is then in the app's own database, and the changes that a sync handler
            makes with `db.session` are committed together with the record of its success, exactly once; unless it is
            registered with `atomic=False`.

    Raises:
        ConfigurationError: as `init_app` does.

    Examples:
        >>> envoyou = Envoyou()
        >>> @envoyou.on("user.created")
        ... def welcome(event): ...
        >>> app = Flask("app")
        >>> app.config["ENVOYOU_WEBHOOK_SECRET"] = "whsec_your_webhook_secret_key"
        >>> envoyou.init_app(app)
        >>> app.url_map.bind("localhost").match("/webhooks/envoyou", "POST")
        ('envoyou.receive', {})
    """

    def __init__(self, app: Flask | None = None, *, db: SQLAlchemy | None = None) -> None:
        super().__init__()
        self._db = db
        self._initialised: WeakSet[Webhooks] = WeakSet()
        if app is not None:
            self.init_app(app)

    def init_app(
        self, app: Flask, *, url_prefix: str | None = None, subdomain: str | None = None, route: bool = True
    ) -> None:
        """Receive webhooks in `app`. The `ENVOYOU_...` settings of its configuration are the keywords of `Webhooks`.

        A setting that is not in the configuration is read from the environment variable of the same name.

        The `Webhooks` object is `app.extensions["envoyou"]["envoyou"]`. Its worker starts in a thread with the first
        request to any URL of the app.

        Args:
            app: the app, with its configuration complete, and after `db.init_app(app)`.
            url_prefix: the path; by default `ENVOYOU_URL_PREFIX`, else `/webhooks/envoyou`.
            subdomain: the subdomain of the path, if the app matches subdomains; by default `ENVOYOU_SUBDOMAIN`.
            route: whether to add the path to the app; if not, register the blueprint of `create_blueprint`.

        Raises:
            ConfigurationError: a setting is unknown (the closest one is suggested) or invalid, the secret is missing,
                or this inbox does not support a handler.
        """
        if NAME in app.extensions.get("envoyou", {}):
            raise ConfigurationError(f"Envoyou is already initialised for the app {app.name!r}")
        # With `db`, the inbox is in the app's database, whatever other processes read from the environment.
        ignored = frozenset({"INBOX"} if self._db is not None else ())
        configured = app.config.get_namespace("ENVOYOU_", lowercase=False)
        settings = above_environment(configured, others=OWN_SETTINGS, ignored=ignored)
        keywords = read_settings(settings, others=OWN_SETTINGS, prefix="ENVOYOU_")
        if keywords.get("secret") is None:
            raise ConfigurationError(f'{MISSING_SECRET}; or set app.config["ENVOYOU_WEBHOOK_SECRET"]')
        webhooks = self._make_webhooks(app, keywords)
        webhooks.include(self)
        self._initialised.add(webhooks)
        attach(app, webhooks, NAME)
        if route:
            app.register_blueprint(
                self.create_blueprint(),
                url_prefix=url_prefix or settings.get("URL_PREFIX") or DEFAULT_URL_PREFIX,
                subdomain=subdomain or settings.get("SUBDOMAIN"),
            )

    def _make_webhooks(self, app: Flask, settings: dict[str, Any]) -> Webhooks:
        if self._db is None:
            return Webhooks(**settings)
        if "inbox" in settings:
            raise ConfigurationError(
                "ENVOYOU_INBOX must not be set for Envoyou(db=...): the inbox is in the app's database"
            )
        from envoyou_flask.sqlalchemy import FlaskSqlInbox

        shared = {key: settings[key] for key in ("name", "clock") if key in settings}
        return Webhooks(inbox=FlaskSqlInbox(app, self._db, **shared), **settings)

    def create_blueprint(self, name: str = NAME) -> Blueprint:
        """Return a blueprint that receives for the current app, for example to nest it in another blueprint.

        Args:
            name: the blueprint's name.
        """
        return receiving_blueprint(lambda: self.webhooks, name)

    def create_health_blueprint(self, name: str = HEALTH_NAME) -> Blueprint:
        """Return a blueprint with the health probes of the current app. See `envoyou_flask.create_health_blueprint`.

        Args:
            name: the blueprint's name.
        """
        return health_blueprint(lambda: self.webhooks, name)

    @property
    def webhooks(self) -> Webhooks:
        """The `Webhooks` object of the current app.

        Raises:
            RuntimeError: there is no current app.
            ConfigurationError: the current app is not initialised.
        """
        webhooks: Webhooks | None = current_app.extensions.get("envoyou", {}).get(NAME)
        if webhooks is None:
            raise ConfigurationError(f"Envoyou is not initialised for the app {current_app.name!r}: call init_app(app)")
        return webhooks

    def add_handler(self, handler: Handler) -> None:
        """Add a handler, also in the apps that are already initialised.

        Raises:
            ConfigurationError: its name is taken, or an app's inbox does not support it.
        """
        if self._db is not None and not handler.is_async:
            handler = replace(handler, atomic=handler.atomic is not False)
        super().add_handler(handler)
        for webhooks in self._initialised:
            webhooks.add_handler(handler)

    def add_hook(self, kind: HookKind, hook: Hook) -> None:
        """Add a hook, also in the apps that are already initialised."""
        super().add_hook(kind, hook)
        for webhooks in self._initialised:
            webhooks.add_hook(kind, hook)

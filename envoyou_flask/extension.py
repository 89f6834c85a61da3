"""The extension: webhooks that are configured as the rest of an app is, by `app.config`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from flask import Blueprint, Flask, current_app

from envoyou_core import ConfigurationError, Handlers, Webhooks
from envoyou_core.adapter import Handler, read_settings
from envoyou_flask.blueprint import receiving_blueprint
from envoyou_flask.wiring import attach

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["Envoyou"]

DEFAULT_URL_PREFIX = "/webhooks/envoyou"

NAME = "envoyou"
"""Of the blueprint, and of the webhooks among those of an app."""

OWN_SETTINGS = frozenset({"URL_PREFIX", "SUBDOMAIN"})
"""Those of `ENVOYOU_...` that say where an app receives webhooks, and nothing about how."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Envoyou(Handlers):
    """Receives EnvoyOU webhooks in one Flask app or several, each with its own settings and its own inbox.

    Handlers are registered here, for all of the apps, and run in the context of the app whose event they handle.

    Args:
        app: to be initialised at once; its configuration must be complete.
        db: the apps' Flask-SQLAlchemy. The inbox then lives in the app's own database, and what a sync handler does
            with `db.session` is committed together with the record that it is done, and so happens exactly once; unless
            it says `atomic=False`.

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
        self._made: WeakSet[Webhooks] = WeakSet()
        self._arrangements: list[Callable[[Webhooks], object]] = []
        if app is not None:
            self.init_app(app)

    def init_app(
        self, app: Flask, *, url_prefix: str | None = None, subdomain: str | None = None, route: bool = True
    ) -> None:
        """Receive webhooks in `app`, as the `ENVOYOU_...` of its configuration say: each a setting of `Webhooks`.

        The app has them as `app.extensions["envoyou"]["envoyou"]`. The worker starts in a thread with the first request
        to any URL of the app.

        Args:
            app: with its configuration complete, and after `db.init_app(app)`.
            url_prefix: the path; by default `ENVOYOU_URL_PREFIX`, else `/webhooks/envoyou`.
            subdomain: where the path is, in an app that matches subdomains; by default `ENVOYOU_SUBDOMAIN`.
            route: whether the path is added to the app; otherwise `create_blueprint` makes what is to be registered.

        Raises:
            ConfigurationError: a setting is unknown (the nearest one is suggested) or cannot work as given, there is no
                secret, or a handler cannot work over this inbox.
        """
        if NAME in app.extensions.get("envoyou", {}):
            raise ConfigurationError(f"the app {app.name!r} has an Envoyou already")
        settings = app.config.get_namespace("ENVOYOU_", lowercase=False)
        webhooks = self._webhooks(
            app, {"secret": None, **read_settings(settings, others=OWN_SETTINGS, prefix="ENVOYOU_")}
        )
        webhooks.include(self)
        for arrange in self._arrangements:
            arrange(webhooks)
        self._made.add(webhooks)
        attach(app, webhooks, NAME)
        if route:
            app.register_blueprint(
                self.create_blueprint(),
                url_prefix=url_prefix or settings.get("URL_PREFIX") or DEFAULT_URL_PREFIX,
                subdomain=subdomain or settings.get("SUBDOMAIN"),
            )

    def _webhooks(self, app: Flask, settings: dict[str, Any]) -> Webhooks:
        if self._db is None:
            return Webhooks(**settings)
        if "inbox" in settings:
            raise ConfigurationError("the inbox is in the app's own database, as db says: leave ENVOYOU_INBOX out")
        from envoyou_flask.sqlalchemy import FlaskSqlInbox

        of_inbox = {key: settings[key] for key in ("name", "clock") if key in settings}
        return Webhooks(inbox=FlaskSqlInbox(app, self._db, **of_inbox), **settings)

    def create_blueprint(self, name: str = NAME) -> Blueprint:
        """A blueprint that receives for whichever app it is asked in, to lie within others, for instance.

        Args:
            name: the blueprint's name.
        """
        return receiving_blueprint(lambda: self.webhooks, name)

    @property
    def webhooks(self) -> Webhooks:
        """The current app's: its inbox, `drain` for tests, and all the rest.

        Raises:
            RuntimeError: there is no current app.
            ConfigurationError: the current app was not initialised.
        """
        found: Webhooks | None = current_app.extensions.get("envoyou", {}).get(NAME)
        if found is None:
            raise ConfigurationError(f"the app {current_app.name!r} has no Envoyou: call init_app(app)")
        return found

    def add(self, handler: Handler) -> None:
        """Append `handler`, also in the apps that are initialised already.

        Raises:
            ConfigurationError: its name is taken, or it names what an app's inbox cannot give.
        """
        if self._db is not None and not handler.is_async:
            handler = replace(handler, atomic=handler.atomic is not False)
        super().add(handler)
        alone = Handlers()
        alone.add(handler)
        for webhooks in self._made:
            webhooks.include(alone)

    def on_dead(self, hook: Function) -> Function:
        """Call the decorated function with each event that died and its last error. See `Webhooks.on_dead`."""
        return self._arrange(hook, lambda webhooks: webhooks.on_dead(hook))

    def on_worker_start(self, hook: Function) -> Function:
        """Call the decorated function before a worker process takes its first event. See `Webhooks.on_worker_start`."""
        return self._arrange(hook, lambda webhooks: webhooks.on_worker_start(hook))

    def on_worker_stop(self, hook: Function) -> Function:
        """Call the decorated function after a worker process has settled its last. See `Webhooks.on_worker_stop`."""
        return self._arrange(hook, lambda webhooks: webhooks.on_worker_stop(hook))

    def _arrange(self, hook: Function, arrange: Callable[[Webhooks], object]) -> Function:
        self._arrangements.append(arrange)
        for webhooks in self._made:
            arrange(webhooks)
        return hook

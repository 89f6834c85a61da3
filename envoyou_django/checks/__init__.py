"""System checks of the configuration, run by `manage.py check`. Importing this package registers them."""

from __future__ import annotations

from django.core import checks
from django.core.checks import Tags

from envoyou_django.checks import configuration, databases, deployment, endpoints, handlers
from envoyou_django.checks.registration import TAG, register

__all__ = ["TAG"]

register(configuration.check_settings, requires_settings=False)
register(configuration.check_environment)
register(configuration.check_loggers, requires_settings=False)
register(endpoints.check_urls, Tags.urls)
register(handlers.check_handlers)
register(handlers.check_tasks_backend)
register(handlers.check_databases_of_models)
register(databases.check_sqlite)
register(databases.check_sqlite_in_development, deploy=True)
register(databases.check_connection_pool)
checks.register(databases.check_server, TAG, Tags.database)
register(deployment.check_secret, Tags.security, deploy=True)
register(deployment.check_secret_location, Tags.security, deploy=True)
register(deployment.check_deployment, deploy=True)

"""The one definition of public: the modules whose `__all__` is a promise to users. Everything else is internal.

`tests/core/test_public_modules.py` holds this list against the code, `CONTRIBUTING.md` and the reference;
`tests/core/test_laws.py` lets adapters import these modules of the core, and no others.
"""

PUBLIC_MODULES = (
    "envoyou_core",
    "envoyou_core.adapter",
    "envoyou_core.alerts",
    "envoyou_core.analytics",
    "envoyou_core.asgi",
    "envoyou_core.client",
    "envoyou_core.errors",
    "envoyou_core.inbox",
    "envoyou_core.nonces",
    "envoyou_core.observability",
    "envoyou_core.observability.opentelemetry",
    "envoyou_core.observability.prometheus",
    "envoyou_core.observability.sentry",
    "envoyou_core.simulator",
    "envoyou_core.testing",
    "envoyou_core.testing.fixtures",
    "envoyou_core.wsgi",
    "envoyou_django",
    "envoyou_django.admin",
    "envoyou_django.async_urls",
    "envoyou_django.health_urls",
    "envoyou_django.models",
    "envoyou_django.signals",
    "envoyou_django.testing",
    "envoyou_django.testing.fixtures",
    "envoyou_django.urls",
    "envoyou_fastapi",
    "envoyou_fastapi.starlette",
    "envoyou_flask",
    "pytest_envoyou",
)

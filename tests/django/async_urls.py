"""The tests' project as it would be under ASGI."""

from django.urls import include, path

from tests.django.urls import home

urlpatterns = [
    path("", home),
    path("webhooks/envoyou", include("envoyou_django.async_urls")),
]

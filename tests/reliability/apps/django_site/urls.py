from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


urlpatterns = [
    path("health", health),
    path("webhooks/envoyou", include("envoyou_django.urls")),
]

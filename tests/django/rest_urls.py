"""A project with an API of its own by Django REST framework, and both of our URLs beside it."""

from django.urls import include, path
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response


@api_view(["POST"])
def echo(request: Request) -> Response:
    return Response({"parsed": request.data})


urlpatterns = [
    path("api/echo", echo),
    path("webhooks/envoyou", include("envoyou_django.urls")),
    path("webhooks/async", include("envoyou_django.async_urls", namespace="async")),
]

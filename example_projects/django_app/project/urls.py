"""The project's addresses."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("webhooks/envoyou", include("envoyou_django.urls")),
]

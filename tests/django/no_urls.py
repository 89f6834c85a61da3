"""A project whose webhooks never reach its URLs."""

from django.urls import path

from tests.django.urls import home

urlpatterns = [path("", home)]

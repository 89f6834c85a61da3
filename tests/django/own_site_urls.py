"""A project with an admin site of its own, beside the usual one."""

from django.contrib import admin
from django.urls import path

from envoyou_django.admin import ProcessedEventAdmin
from envoyou_django.models import ProcessedEvent

site = admin.AdminSite(name="operations")
site.register(ProcessedEvent, ProcessedEventAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("operations/", site.urls)]

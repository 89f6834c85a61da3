"""The admin of rejected deliveries."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_safe

from envoyou_core import WebhookError
from envoyou_django import webhooks
from envoyou_django.admin.download import payload_download
from envoyou_django.admin.formatting import to_the_second
from envoyou_django.admin.lists import InboxFilter
from envoyou_django.inbox.rejections import as_kept
from envoyou_django.models import RejectedDelivery

__all__ = ["RejectedDeliveryAdmin"]


@admin.register(RejectedDelivery)
class RejectedDeliveryAdmin(admin.ModelAdmin):
    """A read-only view of the rejected deliveries, with actions to retry them. Payloads are only downloaded."""

    list_display = ("number", "received", "reason", "error", "body_size")
    list_filter = ("reason", ("name", InboxFilter))
    ordering = ("-id",)
    list_per_page = 50
    actions = ("retry", "retry_with_signed_headers")
    fields = (
        ("received", "reason"),
        "error",
        ("event_type_header", "webhook_id_header"),
        ("name", "tenant", "object_key"),
        "payload",
    )
    readonly_fields = ("event_type_header", "payload", "received", "webhook_id_header")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """Return the deliveries without their bodies, which may have a megabyte each."""
        return super().get_queryset(request).defer("body")

    @admin.display(description=gettext_lazy("key"), ordering="id")
    def number(self, delivery: RejectedDelivery) -> str:
        """Return the key, as commands take it."""
        return str(delivery.pk)

    @admin.display(description=gettext_lazy("received at"), ordering="received_at")
    def received(self, delivery: RejectedDelivery) -> str | None:
        """Return when the delivery was received."""
        return to_the_second(delivery.received_at)

    @admin.display(description=gettext_lazy("size"), ordering="size")
    def body_size(self, delivery: RejectedDelivery) -> str:
        """Return the size of the body."""
        return filesizeformat(delivery.size)

    @admin.display(description=gettext_lazy("event type header"))
    def event_type_header(self, delivery: RejectedDelivery) -> str:
        """Return the unsigned header as sent."""
        return as_kept(delivery).event_type or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("webhook id header"))
    def webhook_id_header(self, delivery: RejectedDelivery) -> str:
        """Return the unsigned header as sent."""
        return as_kept(delivery).webhook_id or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("payload"))
    def payload(self, delivery: RejectedDelivery) -> str:
        """Return a link to the payload."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_payload"
        url = reverse(name, args=[delivery.pk], current_app=self.admin_site.name)
        return format_html(
            '<a href="{}" download>{}</a> ({})', url, _("Download the payload"), filesizeformat(delivery.size)
        )

    # Actions

    @admin.action(permissions=["retry"], description=gettext_lazy("Retry selected deliveries"))
    def retry(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Verify deliveries anew and accept those that pass."""
        self._retry(request, queryset, use_signed_headers=False)

    @admin.action(
        permissions=["retry"],
        description=gettext_lazy("Retry selected deliveries with the type and endpoint of their signed bodies"),
    )
    def retry_with_signed_headers(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Retry deliveries as if their unsigned headers said what their signed bodies say."""
        self._retry(request, queryset, use_signed_headers=True)

    def _retry(self, request: HttpRequest, queryset: QuerySet, *, use_signed_headers: bool) -> None:
        deliveries = list(queryset.order_by("pk").only("reason"))
        accepted = 0
        for delivery in deliveries:
            try:
                event = webhooks.retry_rejected(delivery.pk, use_signed_headers=use_signed_headers)
            except WebhookError as error:
                self.message_user(request, f"{delivery.pk}: {error}", messages.ERROR)
            else:
                accepted += event is not None
            # One by one, so that the history says no more than what is done if a server timeout interrupts the action.
            self.log_change(request, delivery, _("Retried."))
        webhooks.wake()
        message = ngettext("%d delivery was accepted.", "%d deliveries were accepted.", accepted) % accepted
        self.message_user(request, message, messages.SUCCESS if accepted else messages.WARNING)

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the admin, with the one for downloading a payload."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_payload"
        payload = path("<path:object_id>/payload/", self.admin_site.admin_view(self.payload_view), name=name)
        return [payload, *super().get_urls()]

    @method_decorator(require_safe)
    def payload_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the body exactly as sent, to users who may view the delivery."""
        delivery = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, delivery):
            raise PermissionDenied
        if delivery is None:
            raise Http404
        return payload_download(delivery.body, f"rejected-{delivery.pk}")

    # Permissions

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may retry deliveries."""
        allowed: bool = request.user.has_perm("envoyou_django.retry_rejecteddelivery")
        return allowed

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Return false, because only the platform creates deliveries."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Return false, because a changed delivery could not be verified."""
        return False

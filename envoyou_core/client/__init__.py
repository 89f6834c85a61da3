"""A client of EnvoyOU's management API: register, list, update and delete webhooks. Requires the extra `client`.

See the guide, "Register Webhook URL" and "Webhook Management".
"""

from __future__ import annotations

from envoyou_core.client.clients import AsyncEnvoyouClient, AsyncRawResponses, EnvoyouClient, RawResponses
from envoyou_core.client.errors import (
    ApiConnectionError,
    ApiError,
    ApiStatusError,
    ApiTimeoutError,
    AuthenticationError,
    BadRequestError,
    FieldIssue,
    InvalidResponseError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
)
from envoyou_core.client.pages import AsyncWebhookPage, WebhookPage
from envoyou_core.client.raw import RawResponse
from envoyou_core.client.results import OMITTED, DeletedWebhook, DeliveryRetryPolicy, Omitted, RateLimit, Webhook
from envoyou_core.client.webhooks import AsyncRawWebhooksApi, AsyncWebhooksApi, RawWebhooksApi, WebhooksApi

__all__ = [
    "OMITTED",
    "ApiConnectionError",
    "ApiError",
    "ApiStatusError",
    "ApiTimeoutError",
    "AsyncEnvoyouClient",
    "AsyncRawResponses",
    "AsyncRawWebhooksApi",
    "AsyncWebhookPage",
    "AsyncWebhooksApi",
    "AuthenticationError",
    "BadRequestError",
    "DeletedWebhook",
    "DeliveryRetryPolicy",
    "EnvoyouClient",
    "FieldIssue",
    "InvalidResponseError",
    "NotFoundError",
    "Omitted",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "RateLimit",
    "RateLimitError",
    "RawResponse",
    "RawResponses",
    "RawWebhooksApi",
    "ServerError",
    "Webhook",
    "WebhookPage",
    "WebhooksApi",
]

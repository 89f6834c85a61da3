"""What type checkers infer about the management client."""

from typing import assert_type

from envoyou_core.client import (
    OMITTED,
    AsyncEnvoyouClient,
    AsyncWebhookPage,
    DeletedWebhook,
    DeliveryRetryPolicy,
    EnvoyouClient,
    RawResponse,
    Webhook,
    WebhookPage,
)


def use(client: EnvoyouClient) -> None:
    webhook = client.webhooks.create(url="https://shop.example/hooks", events=["user.created"])
    assert_type(webhook, Webhook)
    assert_type(client.webhooks.list(limit=2), WebhookPage)
    assert_type([it.id for it in client.webhooks.list()], list[str])
    assert_type(client.webhooks.update(webhook.id, active=OMITTED, headers=None), Webhook)
    assert_type(client.webhooks.update(webhook.id, retry_policy=DeliveryRetryPolicy(max_attempts=1)), Webhook)
    assert_type(client.webhooks.delete(webhook.id), DeletedWebhook)
    assert_type(client.webhooks.with_raw_response.get(webhook.id), RawResponse[Webhook])
    assert_type(client.with_raw_response.webhooks.list(limit=1).parse(), WebhookPage)
    assert_type(client.with_options(timeout=5), EnvoyouClient)


async def use_async(client: AsyncEnvoyouClient) -> None:
    assert_type(await client.webhooks.get("wh_1"), Webhook)
    assert_type([it.id async for it in await client.webhooks.list()], list[str])
    raw = await client.webhooks.with_raw_response.list(limit=2)
    assert_type(raw.parse(), AsyncWebhookPage)
    async with client.with_options(max_retries=0) as other:
        assert_type(other, AsyncEnvoyouClient)

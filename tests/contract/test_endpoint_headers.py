"""Custom headers of an endpoint, which the platform sends with each delivery: required ones, and kept ones."""

from __future__ import annotations

import pytest

from tests.contract.endpoint import Endpoint, signed
from tests.contract.wire import HeaderValue

TOKEN = "a-value-of-this-endpoint"

WRONG: dict[str, HeaderValue | list[HeaderValue] | None] = {
    "missing": None,
    "another": f"{TOKEN}x",
    "not ASCII": f"é{TOKEN}",
    "sent twice": [TOKEN, TOKEN],
}


@pytest.mark.policy
@pytest.mark.settings(endpoint_headers={"X-Shop-Token": TOKEN})
@pytest.mark.parametrize("value", WRONG.values(), ids=list(WRONG))
def test_a_delivery_without_the_required_header_is_not_authentic(
    endpoint: Endpoint, value: HeaderValue | list[HeaderValue] | None
) -> None:
    endpoint.refuses(401, "unauthorized", signed(), headers={"X-Shop-Token": value})


def test_the_named_headers_are_kept_and_no_others(endpoint: Endpoint) -> None:
    sent = {"X-SHOP-REGION": "eu", "X-Other": "not kept"}
    record = endpoint.accepts(signed(), headers=sent)
    # Other tests share the inbox.
    claims = {claim.event.id: claim for claim in endpoint.served.webhooks.inbox.claim(1000, 30)}
    assert claims[record.event.id].headers == {"X-Shop-Region": "eu"}

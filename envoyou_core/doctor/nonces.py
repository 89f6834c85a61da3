"""Checks the store of nonces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from envoyou_core.doctor.findings import Finding, text_of

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["check_nonces"]

CHECK: Final = "nonces"


def check_nonces(webhooks: Webhooks) -> Iterator[Finding]:
    """Check that the nonce store answers, if it is one outside the process."""
    if not webhooks.nonces.blocking:
        yield Finding.ok(CHECK, "nonces are kept in the memory of each process; a replay is a duplicate in any case")
        return
    try:
        webhooks.nonces.lookup("doctor")
    except Exception as error:
        yield Finding.problem(
            CHECK,
            f"the nonce store does not answer: {text_of(error)}",
            "start Redis, or correct ENVOYOU_NONCES; until then, only the inbox recognizes replays",
        )
    else:
        yield Finding.ok(CHECK, "the nonce store answers")

"""All checks of an installation, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from envoyou_core.doctor.clock import check_clock
from envoyou_core.doctor.findings import Finding, guarded
from envoyou_core.doctor.nonces import check_nonces
from envoyou_core.doctor.secrets import check_secret_file, check_secrets
from envoyou_core.doctor.stores import check_inbox, check_spool, opens
from envoyou_core.doctor.work import check_work

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["examine"]


def examine(webhooks: Webhooks, *, base_url: str) -> Iterator[Finding]:
    """Check an installation from within: what its settings name, and what its inbox shows.

    Nothing is changed but for what opening an inbox does: a SQLite file is upgraded to this release.

    Args:
        webhooks: the application's.
        base_url: the URL of the platform's API, with whose clock that of this machine is compared.
    """
    tolerance = webhooks.verification_policy.tolerance
    yield from guarded("secret", partial(check_secrets, webhooks))
    yield from guarded("secret", check_secret_file)
    yield from guarded("clock", partial(check_clock, base_url, tolerance=tolerance))
    yield from guarded("inbox", partial(check_inbox, webhooks))
    if opens(webhooks.inbox):
        yield from guarded("workers", partial(check_work, webhooks))
    yield from guarded("spool", partial(check_spool, webhooks))
    yield from guarded("nonces", partial(check_nonces, webhooks))

"""All checks of a URL, in the order in which they are shown. Each needs the ones before."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from envoyou_core.cli.posting import send
from envoyou_core.doctor.endpoint.address import address_findings, address_of, check_connections
from envoyou_core.doctor.endpoint.answers import check_contract
from envoyou_core.doctor.endpoint.certificate import certificate_findings, fetch_certificate
from envoyou_core.doctor.endpoint.passage import BODIES, Passage, check_passage
from envoyou_core.doctor.findings import Finding, Level, guarded
from envoyou_core.inbox.inspection import InspectableInbox
from envoyou_core.inbox.rejected import MAX_REJECTED
from envoyou_core.reception.signature import Secret
from envoyou_core.reception.verification import VerificationPolicy

if TYPE_CHECKING:
    from envoyou_core.webhooks import Webhooks

__all__ = ["examine_endpoint"]

DEFAULT_POLICY: Final = VerificationPolicy()


def examine_endpoint(
    url: str, *, webhooks: Webhooks | None, secret: Secret | None, webhook_id: str, headers: Mapping[str, str]
) -> Iterator[Finding]:
    """Check a URL that receives webhooks, over the network.

    Args:
        url: the URL, with the scheme http or https.
        webhooks: the application's, if there is one: for its settings, and to delete the rejected deliveries.
        secret: the signing secret; without one, no signed delivery is sent.
        webhook_id: the endpoint's id.
        headers: the custom headers of the endpoint.
    """
    policy = DEFAULT_POLICY if webhooks is None else webhooks.verification_policy
    address = address_of(url)
    yield from address_findings(address)
    reached = list(check_connections(address))
    yield from reached
    if not any(finding.level is Level.OK for finding in reached):
        return
    tls = None
    if address.is_encrypted:
        certificate = fetch_certificate(address.host, address.port)
        yield from certificate_findings(certificate)
        if certificate.valid_until is None:
            tls = _unverified()
    is_sound = True
    for finding in check_contract(url, partial(send, tls=tls), tolerance=policy.tolerance):
        is_sound &= finding.level is not Level.PROBLEM
        yield finding
    if not is_sound:
        return
    if tls is not None or not (address.is_encrypted or len(address.private) == len(address.ips)):
        yield Finding.warning(
            "signature",
            "no signed delivery was sent, because the server is not authenticated",
            "serve a valid certificate first",
        )
        return
    if secret is None:
        yield Finding.warning(
            "signature", "no signed delivery was sent, because there is no secret", "configure it first"
        )
        return
    passage = Passage(
        url,
        send,
        secret,
        webhook_id,
        signed_content="raw" if "raw" in policy.signed_content else "canonical",
        headers=headers,
    )
    required = () if webhooks is None else webhooks.required_headers
    custom = [name for name in required if name not in policy.required_headers]
    is_recognized = False
    for finding in check_passage(passage, required_headers=policy.required_headers, custom=custom):
        is_recognized |= (finding.check, finding.level) == ("signature", Level.OK)
        yield finding
    if is_recognized:
        yield from guarded("rejected", partial(_clean_up, webhooks))


def _clean_up(webhooks: Webhooks | None) -> Iterator[Finding]:
    """Delete the rejected deliveries that the check has left, if the application's inbox is the one that has them."""
    deleted = 0
    inbox = None if webhooks is None else webhooks.inbox
    if isinstance(inbox, InspectableInbox):
        for delivery in inbox.list_rejected(limit=MAX_REJECTED):
            if delivery.body in BODIES:
                inbox.discard_rejected(delivery.key)
                deleted += 1
    if deleted:
        yield Finding.ok("rejected", f"{deleted} rejected deliveries of this check were deleted from the inbox")
    else:
        yield Finding.warning(
            "rejected",
            f"the inbox of the application at the URL may keep up to {len(BODIES)} rejected deliveries of this check",
            "run the command beside that application, where it deletes them",
        )


def _unverified() -> ssl.SSLContext:
    """Return a context for checks that reveal nothing: what they send is known, and their answers are not trusted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

"""Checks the certificate of a server: its chain, its name, and the days that are left."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from envoyou_core.doctor.findings import Finding

__all__ = ["Certificate", "certificate_findings", "fetch_certificate"]

CHECK: Final = "certificate"

TIMEOUT: Final = 5.0
"""Seconds."""

DAY: Final = 86_400.0
FEW_DAYS: Final = 21
"""A certificate that is renewed automatically has more days left."""

ADVICE: Final = {
    10: "renew the certificate, and let the server load it",
    18: "use a certificate of a public authority, such as Let's Encrypt",
    19: "use a certificate of a public authority, such as Let's Encrypt",
    20: "let the server send the intermediate certificates too (fullchain.pem); a private authority is not accepted",
    21: "let the server send the intermediate certificates too (fullchain.pem)",
    62: "use a certificate for the host of the URL",
}
"""By the error codes of OpenSSL."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the handshake with a server has shown.

    Attributes:
        valid_until: epoch seconds; `None` if the certificate was not accepted.
        error: why it was not accepted, or why there was no handshake.
        advice: what to do about the error.
        version: the version of TLS.
    """

    valid_until: float | None
    error: str = ""
    advice: str = ""
    version: str = ""


def fetch_certificate(host: str, port: int) -> Certificate:
    """Make a handshake, and verify the certificate as a client of this machine does."""
    context = ssl.create_default_context()
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=host) as encrypted,
        ):
            certificate, version = encrypted.getpeercert() or {}, encrypted.version() or ""
    except ssl.SSLCertVerificationError as error:
        advice = ADVICE.get(error.verify_code, "correct the certificate")
        return Certificate(None, error.verify_message.rstrip("."), advice)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        return Certificate(
            None, f"the handshake failed: {reason}", "let the server speak TLS 1.2 or later at this port"
        )
    return Certificate(ssl.cert_time_to_seconds(str(certificate["notAfter"])), version=version)


def certificate_findings(certificate: Certificate, *, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Judge a certificate.

    Args:
        certificate: what the handshake has shown.
        now: returns epoch seconds.
    """
    if certificate.valid_until is None:
        yield Finding.problem(CHECK, f"the certificate is not accepted: {certificate.error}", certificate.advice)
        return
    days = int((certificate.valid_until - now()) / DAY)
    text = f"the certificate is accepted, and valid for {days} more {'day' if days == 1 else 'days'}"
    if days < FEW_DAYS:
        yield Finding.warning(CHECK, text, "renew it, and find out why it is not renewed automatically")
    else:
        yield Finding.ok(CHECK, f"{text} ({certificate.version})")

"""Checks that the host of a URL resolves, is public, and takes connections."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from envoyou_core.doctor.findings import Finding

__all__ = ["Address", "address_findings", "address_of", "check_connections"]

TIMEOUT: Final = 5.0
"""Seconds."""

PORTS: Final = {"http": 80, "https": 443}

NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""This machine itself has no such network, usually IPv6."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL leads.

    Attributes:
        host: the name or the address in the URL.
        port: the port.
        is_encrypted: whether the scheme is https.
        ips: the addresses of the host; empty if it does not resolve.
        error: why it does not resolve.
    """

    host: str
    port: int
    is_encrypted: bool
    ips: tuple[str, ...]
    error: str = ""

    @property
    def private(self) -> tuple[str, ...]:
        """The addresses that are not reachable from the internet, such as loopback ones."""
        return tuple(ip for ip in self.ips if not ip_address(ip.partition("%")[0]).is_global)


def address_of(url: str) -> Address:
    """Resolve the host of a URL whose scheme is http or https."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    is_encrypted = parts.scheme == "https"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Address(host, port, is_encrypted, (), getattr(error, "strerror", None) or str(error))
    return Address(host, port, is_encrypted, tuple(dict.fromkeys(str(each[4][0]) for each in found)))


def address_findings(address: Address) -> Iterator[Finding]:
    """Judge where a URL leads."""
    if not address.ips:
        yield Finding.problem(
            "dns",
            f"the host {address.host} does not resolve: {address.error}",
            "correct the URL, or add an A or AAAA record for the host",
        )
        return
    if address.ips == (address.host,):
        yield Finding.ok("dns", f"the URL names the address {address.host}, and no host")
    else:
        yield Finding.ok("dns", f"the host {address.host} resolves to {', '.join(address.ips)}")
    private = address.private
    if len(private) == len(address.ips):
        yield Finding.warning(
            "public",
            f"{', '.join(private)} is not a public address, so EnvoyOU cannot reach it",
            "for production, register a public URL; in development, use a tunnel or `envoyou dev`",
        )
    elif private:
        yield Finding.problem(
            "public",
            f"{', '.join(private)} is not a public address, so some deliveries fail",
            "remove that address from the public records of the host",
        )
    else:
        yield Finding.ok("public", "the addresses are public; whether a firewall lets EnvoyOU in is not known")
    if not address.is_encrypted and len(private) < len(address.ips):
        yield Finding.problem(
            "certificate", "the URL is not https, so payloads are sent unencrypted", "serve and register an https URL"
        )


def check_connections(address: Address) -> Iterator[Finding]:
    """Connect to each address from this machine."""
    failed = {ip: error for ip in address.ips if (error := _connect(ip, address.port)) is not None}
    working = [ip for ip in address.ips if ip not in failed]
    for ip, error in failed.items():
        text = f"port {address.port} of {ip} takes no connection: {error.strerror or error}"
        if not working:
            yield Finding.problem("connection", text, "start the server, or open the port in the firewall")
        elif error.errno in NO_ROUTE:
            yield Finding.warning("connection", text, "this machine has no route to it: check it from another one")
        else:
            yield Finding.problem(
                "connection", f"{text}, so some deliveries fail", "remove the record, or serve that address as well"
            )
    if working:
        yield Finding.ok("connection", f"port {address.port} takes connections at {_joined(working)}")


def _connect(ip: str, port: int) -> OSError | None:
    try:
        socket.create_connection((ip, port), timeout=TIMEOUT).close()
    except OSError as error:
        return error
    return None


def _joined(ips: Sequence[str]) -> str:
    return ", ".join(ips)

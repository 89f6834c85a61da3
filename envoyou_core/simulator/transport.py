"""Posts deliveries over HTTP, to loopback addresses only unless allowed otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

import httpx2

from envoyou_core.errors import EnvoyouError
from envoyou_core.testing.deliveries import Delivery

__all__ = ["Answer", "DeliveryError", "HttpTransport", "Transport"]

MAX_ANSWER = 1000
"""The bytes of an answer that are kept."""

PORTS = {"http": 80, "https": 443}


class DeliveryError(EnvoyouError):
    """There was no answer to a delivery."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a receiver: the status, and the beginning of the body."""

    status: int
    text: str


class Transport(Protocol):
    """Sends one request."""

    async def post(self, url: str, delivery: Delivery) -> Answer:
        """Send `delivery` to `url`.

        Raises:
            DeliveryError: there was no answer.
        """


class HttpTransport:
    """A transport with one pool of connections. Redirects, cookies and proxies are ignored.

    Args:
        timeout: seconds for the whole request and its answer.
        connections: the maximum number of connections.
        loopback_only: whether requests to other addresses are refused.
    """

    def __init__(self, *, timeout: float, connections: int, loopback_only: bool) -> None:
        self._timeout = timeout
        self._loopback_only = loopback_only
        self._client = httpx2.AsyncClient(
            headers={"User-Agent": "EnvoyOU-Simulator"},
            timeout=None,  # `post` limits the whole request
            follow_redirects=False,
            trust_env=False,
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def post(self, url: str, delivery: Delivery) -> Answer:
        """Send `delivery` to `url`; see `Transport`.

        Raises:
            DeliveryError: the address is refused, or there was no complete answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(url, delivery)
        except TimeoutError:
            raise DeliveryError(f"no answer within {self._timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DeliveryError(f"{type(error).__name__}: {error}") from None

    async def _post(self, url: str, delivery: Delivery) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        *others, last = await self._resolve(host, parts.port or PORTS[parts.scheme])
        for address in others:
            with suppress(httpx2.ConnectError):
                return await self._post_to(address, url, delivery)
        return await self._post_to(last, url, delivery)

    async def _post_to(self, address: str, url: str, delivery: Delivery) -> Answer:
        # The checked address is the one that is connected to: a second look-up of the name might return another.
        parts = urlsplit(url)
        request = self._client.build_request(
            "POST",
            httpx2.URL(url).copy_with(host=address),
            content=delivery.body,
            headers={"Host": parts.netloc, **delivery.headers},
            extensions={"sni_hostname": parts.hostname},
        )
        response = await self._client.send(request, stream=True)
        try:
            begin = b""
            async for part in response.aiter_raw():
                begin = (begin + part)[:MAX_ANSWER]
            return Answer(response.status_code, begin.decode(errors="replace"))
        finally:
            await response.aclose()

    async def _resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, after checking that every one of them is allowed."""
        addresses = [host] if _is_address(host) else await _look_up(host, port)
        if self._loopback_only:
            for address in addresses:
                if not ipaddress.ip_address(address).is_loopback:
                    raise DeliveryError(f"{host} has the address {address}, and only loopback addresses are allowed")
        return addresses

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _look_up(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DeliveryError(f"the host {host} has no address") from None
    return [str(address[0]) for *_, address in found]

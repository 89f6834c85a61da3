"""The pages of a listing. Iterating over one goes on to the pages after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from envoyou_core.client.errors import InvalidResponseError
from envoyou_core.client.results import RateLimit, Webhook

__all__ = ["AsyncWebhookPage", "WebhookPage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What every page of a listing has.

    Attributes:
        items: the webhooks of this page.
        next_cursor: where the next page begins; `None` if this is the last one.
        limit: the maximum number of items of a page; `None` if the response does not say so.
        request_id: the id of the request.
        rate_limit: the figures of the response.
    """

    items: tuple[Webhook, ...]
    next_cursor: str | None = None
    limit: int | None = None
    request_id: str | None = field(default=None, compare=False)
    rate_limit: RateLimit = field(default=RateLimit(), compare=False)


class _Cursors:
    """The cursors of the pages so far. A cursor that comes again would be followed for ever."""

    def __init__(self) -> None:
        self._seen = set[str]()

    def check(self, page: _Page) -> None:
        cursor = page.next_cursor
        if cursor is None:
            return
        if cursor in self._seen:
            raise InvalidResponseError(
                "the pages do not end: the API returned the same cursor twice",
                request_id=page.request_id,
                rate_limit=page.rate_limit,
            )
        self._seen.add(cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPage(_Page):
    """A page of the webhooks. Iterating over it goes on to all pages after it, which are fetched when needed.

    Attributes:
        items: the webhooks of this page.
        next_cursor: where the next page begins; `None` if this is the last one.
        limit: the maximum number of items of a page; `None` if the response does not say so.
        request_id: the id of the request.
        rate_limit: the figures of the response.
    """

    fetch: Callable[[str], WebhookPage] = field(repr=False, compare=False)

    def next_page(self) -> WebhookPage | None:
        """Fetch the next page; `None` if this is the last one.

        Raises:
            ApiError: the call has failed.
        """
        return None if self.next_cursor is None else self.fetch(self.next_cursor)

    def pages(self) -> Iterator[WebhookPage]:
        """Iterate over this page and all after it.

        Raises:
            ApiError: a call has failed.
        """
        cursors = _Cursors()
        page: WebhookPage | None = self
        while page is not None:
            yield page
            cursors.check(page)
            page = page.next_page()

    def __iter__(self) -> Iterator[Webhook]:
        for page in self.pages():
            yield from page.items


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncWebhookPage(_Page):
    """A page of the webhooks. `async for` goes on to all pages after it, which are fetched when needed.

    Attributes:
        items: the webhooks of this page.
        next_cursor: where the next page begins; `None` if this is the last one.
        limit: the maximum number of items of a page; `None` if the response does not say so.
        request_id: the id of the request.
        rate_limit: the figures of the response.
    """

    fetch: Callable[[str], Awaitable[AsyncWebhookPage]] = field(repr=False, compare=False)

    async def next_page(self) -> AsyncWebhookPage | None:
        """Fetch the next page; `None` if this is the last one.

        Raises:
            ApiError: the call has failed.
        """
        return None if self.next_cursor is None else await self.fetch(self.next_cursor)

    async def pages(self) -> AsyncIterator[AsyncWebhookPage]:
        """Iterate over this page and all after it.

        Raises:
            ApiError: a call has failed.
        """
        cursors = _Cursors()
        page: AsyncWebhookPage | None = self
        while page is not None:
            yield page
            cursors.check(page)
            page = await page.next_page()

    async def __aiter__(self) -> AsyncIterator[Webhook]:
        async for page in self.pages():
            for webhook in page.items:
                yield webhook

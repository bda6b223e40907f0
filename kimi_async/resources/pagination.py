"""
Lists that arrive a page at a time.

``client.files.list()`` is not a coroutine. It gives an `AsyncPaginator`, which
can be awaited (the first page) or iterated (every item of every page)::

    page = await client.files.list(limit=20)
    async for file in client.files.list():
        ...

How a page is fetched is the caller's affair: a paginator holds one callable
from query parameters to a page, and pages know which parameters come next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

__all__ = ["AsyncCursorPage", "AsyncPage", "AsyncPaginator", "PageInfo"]

T = TypeVar("T")
P = TypeVar("P", bound="AsyncPage[Any]")


@dataclass(frozen=True, slots=True)
class PageInfo:
    """What to change in the query to get the next page, e.g. ``{"after": "file_9"}``."""

    params: Mapping[str, object] = field(default_factory=dict[str, Any])


class AsyncPage(Generic[T]):
    """
    One page of a list, and the last one: there is never another.

    Iterating it asynchronously gives its items, then those of the pages that
    follow (for this class: none).
    """

    data: list[T]
    object: str

    def __init__(self, data: Sequence[T], *, object: str = "list") -> None:
        self.data = list(data)
        self.object = object
        self._params: dict[str, Any] = {}
        self._fetch: Callable[[Mapping[str, Any]], Awaitable[AsyncPage[T]]] | None = None

    def has_next_page(self) -> bool:
        """Whether `get_next_page` would fetch anything."""
        return bool(self.data) and self.next_page_info() is not None

    def next_page_info(self) -> PageInfo | None:
        """The parameters of the next page, or None if this is the last."""
        return None

    async def get_next_page(self) -> AsyncPage[T]:
        """Fetch the next page. Raises RuntimeError if there is none: ask `has_next_page` first."""
        info = self.next_page_info()
        if info is None or self._fetch is None:
            raise RuntimeError("No next page expected; please check `.has_next_page()` first.")
        return await _fetched(self._fetch, {**self._params, **info.params})

    async def iter_pages(self) -> AsyncIterator[AsyncPage[T]]:
        """This page, then every page after it."""
        page: AsyncPage[T] = self
        while True:
            yield page
            if not page.has_next_page():
                return
            page = await page.get_next_page()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.iter_pages():
            for item in page.data:
                yield item

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.data)} items, has_next_page={self.has_next_page()})"


class AsyncCursorPage(AsyncPage[T]):
    """
    One page of a list that goes on after the last item's id (``?after=<id>``).

    ``has_more`` is the server's word; None when it did not say, which is taken
    as no: Kimi's OpenAPI promises only ``object`` and ``data`` for ``/v1/files``
    and documents no cursor there, and a server that ignores ``after`` would
    give the same items again. A cursor that does not move ends the list too.
    """

    def __init__(
        self,
        data: Sequence[T],
        *,
        has_more: bool | None = None,
        first_id: str | None = None,
        last_id: str | None = None,
        object: str = "list",
    ) -> None:
        super().__init__(data, object=object)
        self.has_more = has_more
        self.first_id = first_id
        self.last_id = last_id

    def has_next_page(self) -> bool:
        if not self.has_more:
            return False
        return super().has_next_page()

    def next_page_info(self) -> PageInfo | None:
        if not self.data:
            return None
        cursor = cast("str | None", getattr(self.data[-1], "id", None)) or self.last_id
        if not cursor or cursor == self._params.get("after"):
            return None
        return PageInfo({"after": cursor})


class AsyncPaginator(Generic[T, P]):
    """
    A list not fetched yet: await it for the first page, iterate it for all items.

    ``fetch(params)`` must give the page for these query parameters. Nothing is
    sent before the first await; each iteration starts from the first page.
    """

    def __init__(
        self,
        fetch: Callable[[Mapping[str, object]], Awaitable[P]],
        params: Mapping[str, object] | None = None,
    ) -> None:
        self._fetch = fetch
        self._params = dict(params or {})

    def __await__(self) -> Generator[Any, None, P]:
        return _fetched(self._fetch, self._params).__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        page = await self
        async for item in page:
            yield item

    async def iter_pages(self) -> AsyncIterator[P]:
        """Every page, the first included."""
        page = await self
        async for each in page.iter_pages():
            yield cast(P, each)


async def _fetched(fetch: Callable[[Mapping[str, object]], Awaitable[P]], params: Mapping[str, object]) -> P:
    page = await fetch(params)
    # Pages are built by whoever decodes the reply; only here are they told
    # where they came from, so a page can be made by hand in a test.
    page._params = dict(params)  # pyright: ignore[reportPrivateUsage]
    page._fetch = fetch  # pyright: ignore[reportPrivateUsage]
    return page

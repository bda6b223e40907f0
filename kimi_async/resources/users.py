"""
`client.users.me`: the account.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ..client import TimeoutLike
from ..types._base import NOT_GIVEN
from ..types.users import Balance
from ._base import Resource

__all__ = ["AsyncMe", "AsyncUsers"]


class AsyncMe(Resource):
    async def balance(
        self,
        *,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Any = None,
        timeout: TimeoutLike = NOT_GIVEN,
    ) -> Balance:
        """
        What is left: `.available_balance`, as a Decimal, in US dollars (api.moonshot.ai) or yuan (api.moonshot.cn).
        """
        return await self._client.request(
            "GET",
            "users/me/balance",
            Balance,
            extra_headers=extra_headers,
            extra_query=extra_query,
            extra_body=extra_body,
            timeout=timeout,
        )


class AsyncUsers(Resource):
    @cached_property
    def me(self) -> AsyncMe:
        return AsyncMe(self._client)

"""
`client.users.me`: the account.
"""

from functools import cached_property
from typing import Unpack

from ..types.users import Balance
from ._base import Resource
from .caller import CallOptions

__all__ = ["AsyncMe", "AsyncUsers"]


class AsyncMe(Resource):
    async def balance(
        self,
        **call: Unpack[CallOptions],
    ) -> Balance:
        """
        What is left: `.available_balance`, as a Decimal, in US dollars (api.moonshot.ai) or yuan (api.moonshot.cn).
        """
        return await self._client.request(
            "GET",
            "users/me/balance",
            Balance,
            **call,
        )


class AsyncUsers(Resource):
    @cached_property
    def me(self) -> AsyncMe:
        return AsyncMe(self._client)

"""
`client.users.me`: the account.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Final, Unpack

from ..config import hide
from ..types.users import Balance
from ._base import Resource
from .caller import CallOptions

__all__ = ["AsyncMe", "AsyncUsers"]


class AsyncMe(Resource["RawMe", "StreamingMe"]):
    async def balance(
        self,
        **call: Unpack[CallOptions],
    ) -> Balance:
        """What is left: `.available_balance`, as a Decimal, in US dollars (api.moonshot.ai) or yuan (api.moonshot.cn)."""
        hide(call)
        return await self._client.request(
            "GET",
            "users/me/balance",
            Balance,
            **call,
        )


class AsyncUsers(Resource["RawUsers", "StreamingUsers"]):
    @cached_property
    def me(self) -> AsyncMe:
        return AsyncMe(self._client)


if TYPE_CHECKING:
    from .raw_replies import WithRawResponse, WithStreamingResponse, raw, streaming

    class RawMe(WithRawResponse):
        balance: Final = raw(AsyncMe.balance)

    class RawUsers(WithRawResponse):
        me: RawMe

    class StreamingMe(WithStreamingResponse):
        balance: Final = streaming(AsyncMe.balance)

    class StreamingUsers(WithStreamingResponse):
        me: StreamingMe

"""
The account's balance, as `GET /users/me/balance` gives it.
"""

from decimal import Decimal
from typing import ClassVar

import msgspec

from ._base import Reply, wire

__all__ = ["Balance", "BalanceData"]


@wire
class BalanceData(Reply):
    """US dollars on api.moonshot.ai, yuan on api.moonshot.cn. Decimals as the server wrote them."""

    available_balance: Decimal = Decimal(0)
    """At or below zero, inference is refused."""
    voucher_balance: Decimal = Decimal(0)
    cash_balance: Decimal = Decimal(0)
    """May be negative; then `available_balance` equals `voucher_balance`."""


@wire
class Balance(Reply):
    """`{"code": 0, "data": {…}, "scode": "0x0", "status": true}` (platform.kimi.ai, "Get Balance")."""

    __children__: ClassVar[tuple[str, ...]] = ("data",)

    data: BalanceData = msgspec.field(default_factory=BalanceData)
    code: int = 0
    scode: str = ""
    status: bool = True

    @property
    def available_balance(self) -> Decimal:
        return self.data.available_balance

    @property
    def voucher_balance(self) -> Decimal:
        return self.data.voucher_balance

    @property
    def cash_balance(self) -> Decimal:
        return self.data.cash_balance

"""
Request signatures: the proof that Kimi's own API served a request.
"""

import msgspec

from ._base import Reply, wire

__all__ = ["RequestSignature", "SignatureVerification"]


class RequestSignature(msgspec.Struct, frozen=True):
    """
    What proves a request: the nonce it was sent with, and the two headers of the reply.

    `timestamp` is in milliseconds; `signature` begins with `reqsigv1_`.
    """

    nonce: str
    timestamp: int
    signature: str


@wire
class SignatureVerification(Reply):
    valid: bool = False

    def __bool__(self) -> bool:
        return self.valid

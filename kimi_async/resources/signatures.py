"""
`client.signatures`: was it really Kimi that answered?

    nonce = new_nonce()
    raw = await client.chat.completions.with_raw_response.create(..., extra_headers={NONCE_HEADER: nonce})
    assert await client.signatures.verify_response(raw, model="kimi-k3")

A relay cannot forge the two headers that a request with a nonce gets back (platform.kimi.ai, "Verify request signatures").
"""

from typing import Any, Unpack

from ..types._base import NOT_GIVEN
from ..types.signatures import RequestSignature, SignatureVerification
from ._base import Resource
from .caller import CallOptions, TimeoutLike
from .raw_replies import WithRawResponse, WithStreamingResponse

__all__ = ["NONCE_HEADER", "AsyncSignatures", "new_nonce", "signature_of"]

NONCE_HEADER = "X-Msh-Request-Nonce"


def new_nonce() -> str:
    """A nonce as Kimi recommends it, a random UUID."""
    from uuid import uuid4

    return str(uuid4())


def signature_of(reply: Any) -> RequestSignature | None:
    """
    The signature of a reply, None if it has none: the request had no nonce, or did not reach Kimi's own API.

    Takes what `with_raw_response` and `with_streaming_response` give, a stream, and a bare response.
    """
    response = getattr(reply, "http_response", None) or getattr(reply, "response", None) or reply
    nonce = response.request.headers.get(NONCE_HEADER)
    timestamp = response.headers.get("Msh-Request-Timestamp", "")
    signature = response.headers.get("Msh-Request-Signature")
    if not nonce or not signature or not timestamp.isdecimal():
        return None
    return RequestSignature(nonce, int(timestamp), signature)


class AsyncSignatures(Resource[WithRawResponse, WithStreamingResponse]):
    async def verify(
        self,
        *,
        nonce: str,
        timestamp: int,
        model: str,
        signature: str,
        **call: Unpack[CallOptions],
    ) -> SignatureVerification:
        """
        Whether the signature is Kimi's for this nonce, time and model; `.valid`, and true as a condition. May be asked again.
        """
        return await self._client.request(
            "POST",
            "signatures/verify",
            SignatureVerification,
            body={"nonce": nonce, "timestamp": timestamp, "model": model, "signature": signature},
            **call,
        )

    async def verify_response(
        self, reply: object, *, model: str, timeout: TimeoutLike = NOT_GIVEN
    ) -> SignatureVerification:
        """Verifies a reply by its own headers. A reply without a signature is not valid, and nobody is asked."""
        found = signature_of(reply)
        if found is None:
            return SignatureVerification(valid=False)
        return await self.verify(
            nonce=found.nonce,
            timestamp=found.timestamp,
            model=model,
            signature=found.signature,
            timeout=timeout,
        )

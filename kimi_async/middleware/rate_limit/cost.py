"""
What a request will be charged: tokens of its prompt, and its budget.
"""

import re

from ...errors import RequestTooCostlyError
from ...providers.models import default_budget

__all__ = ["UNLIMITED", "tokens_of", "too_costly"]

UNLIMITED = re.compile(r"/(?:files|batches|tokenizers|signatures)(?:[/?]|$)")


_BUDGET = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d{1,9})')


_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,100})"')


# An image is some one or two thousand tokens, not a quarter of its base64.
IMAGE = 1_500


def tokens_of(body: bytes) -> tuple[int, int, bool]:
    """
    What a chat request is charged on arrival: prompt, budget of the answer, and whether that budget is the model's default.

    An estimate without decoding, some microseconds even for megabytes: a token for every four bytes of JSON, base64 data counted
    as pictures. In JSON text a quote inside a string is escaped, so `"max_completion_tokens":` can only be a key.
    """
    size = len(body)
    if size > 8_192 and b";base64," in body:
        at = body.find(b";base64,")
        while at >= 0:
            end = body.find(b'"', at)
            if end < 0:
                break
            size -= max(0, end - at - 4 * IMAGE)
            at = body.find(b";base64,", end)
    found = (
        _BUDGET.search(body, 0, 4_096)
        or _BUDGET.search(body, max(0, len(body) - 4_096))
        or _BUDGET.search(body)
    )
    if found:
        return size // 4, int(found[1]), False
    model = _MODEL.search(body)
    return size // 4, default_budget(model[1].decode("utf-8", "replace") if model else ""), True


def too_costly(refused: str, tokens: int, name: str, limit: float) -> RequestTooCostlyError:
    """The error for a request that alone is larger than the limit `name`; `refused` says by whom, with its verb."""
    return RequestTooCostlyError(
        f"{refused} the request: it is charged about {tokens:,} tokens (prompt and max_completion_tokens), and the limit is "
        f"{limit:,.0f} tokens {'a day' if name == 'tpd' else 'a minute'}; lower max_completion_tokens",
        eta=None,
        reason=name,
        limit=float(limit),
    )

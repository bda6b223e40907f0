"""
The forms in which hosts write the ids of Kimi models, and the id of the official host behind each. Raises nothing.

Read in 2026-11: the hosts' own lists and docs, and litellm's table of prices (1.110.2) for Fireworks and Bedrock. Weights of
K3.1 were announced for 2026-11-04 as `moonshotai/Kimi-K3.1-Pro`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Gateway", "gateway_of_model_id", "official_id"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """
    Whose form a model id has.

    :ivar names: the rows of `PROVIDERS` that write ids so; empty where none does.
    :ivar title: as a sentence names it.
    :ivar official_id: the same model as the official host calls it, as far as the id says.
    """

    names: tuple[str, ...]
    title: str
    official_id: str


# Order matters: the first pattern that fits decides.
_FORMS: Final = (
    (
        re.compile(r"moonshotai/Kimi-(?P<id>K.+)"),
        ("vllm", "sglang"),
        "Hugging Face, vLLM, SGLang, Together, Nebius or Baseten",
    ),
    (re.compile(r"moonshotai/(?P<id>kimi-[^:]+)(?::\w+)?"), ("openrouter", "aimlapi"), "OpenRouter"),
    (re.compile(r"moonshot/(?P<id>kimi-.+)"), ("aimlapi",), "AI/ML API"),
    (re.compile(r"openrouter/moonshotai/(?P<id>kimi-[^:]+)(?::\w+)?"), ("openrouter",), "LiteLLM's name for OpenRouter"),
    (re.compile(r"(?:fireworks_ai/)?accounts/fireworks/models/(?P<id>kimi-.+)"), (), "Fireworks"),
    (re.compile(r"@cf/moonshotai/(?P<id>kimi-.+)"), (), "Cloudflare Workers AI"),
    (re.compile(r"(?:bedrock/)?(?:[a-z]{2,6}\.)?moonshot(?:ai)?\.(?P<id>kimi-[^:]+)(?::\w+)?"), (), "Amazon Bedrock"),
    (
        re.compile(r"(?P<id>k3(?:\.1-pro)?|k3-256k|kimi-for-coding(?:-highspeed)?)"),
        ("kimi-code",),
        "Kimi Code",
    ),
)  # fmt: skip


def gateway_of_model_id(model: str) -> Gateway | None:
    """
    The gateway whose form a model id has; None for the official form (`kimi-k3`) and for anything unknown.

    `moonshotai/kimi-k2.6` is OpenRouter's, `moonshotai/Kimi-K3` a self-hosted server's, `moonshot/kimi-k2-6` AI/ML API's,
    `us.moonshotai.kimi-k3.1` Bedrock's.
    """
    for form, names, title in _FORMS:
        found = form.fullmatch(model)
        if found is not None:
            return Gateway(names, title, _official(found["id"]))
    return None


def official_id(model: str) -> str:
    """The id of the official host for an id in any known form; an id in no known form is given back as it is."""
    gateway = gateway_of_model_id(model)
    return model if gateway is None else gateway.official_id


# What Kimi Code calls by a name of its own. What the names mean changes over time; as of 2026-11
# (kimi-for-coding has been "K2.8 Preview" since 2026-09-11, which the open platform does not serve).
_CODE: Final = {
    "k3": "kimi-k3",
    "k3-256k": "kimi-k3",
    "k3.1-pro": "kimi-k3.1-pro",
    "kimi-for-coding": "kimi-k2.7-code",
    "kimi-for-coding-highspeed": "kimi-k2.7-code-highspeed",
}


def _official(name: str) -> str:
    """`Kimi-K3`, `kimi-k2-6`, `kimi-k3p1-pro`, `kimi-k3-20260715`, `k3`: as the official host writes it."""
    if name in _CODE:
        return _CODE[name]
    text = name.lower().removeprefix("kimi-")
    text = re.sub(r"-20\d{6}$", "", text)  # a dated slug
    text = re.sub(r"^k(\d)[-p](\d)(?=$|-)", r"k\1.\2", text)
    text = {"k3.1": "k3.1-pro"}.get(text, text)  # Bedrock leaves the -pro away
    return f"kimi-{text}"

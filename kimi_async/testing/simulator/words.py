"""
What the simulator's texts are made of: a vocabulary, dice that fall the same way for the same question, and tokens.
"""

import hashlib
import json
import random
import re
from typing import Any, cast

__all__ = ["as_list", "as_object", "dice_of", "prose", "tokenize", "vocabulary"]


def as_object(value: object) -> dict[str, Any] | None:
    """`value` if it is a JSON object, else None."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any]:
    """`value` if it is a JSON array, else an empty list."""
    return cast("list[object]", value) if isinstance(value, list) else []


_VOCABULARY = """
moon water river garden window letter morning paper stone forest music circle number answer question bridge
simple quiet careful early bright narrow curious patient honest small distant gentle steady hollow warm plain
carries follows measures opens returns keeps finds turns holds counts joins reads writes leaves meets becomes
slowly often again together almost never always perhaps once because before after under between without toward
"""
_WORDS = _VOCABULARY.split()

# What breaks careless clients: accents, CJK, symbols outside the BMP, a line separator inside JSON text.
_SPICE = (
    "naïve café",
    "你好，月亮",
    "🌙✨",
    "𝄞 and 👩🏽‍🚀",
    "∑ → ∞",
    'a "quoted" word',
    "a\\b",
    "line\u2028two",
    "<b>&amp;</b>",
)


def vocabulary() -> list[str]:
    """The words the model knows."""
    return list(_WORDS)


def dice_of(*parts: Any) -> random.Random:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return random.Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


def prose(dice: random.Random, count: int) -> str:
    """About `count` words in sentences; every few sentences something that is not ASCII."""
    sentences: list[str] = []
    while count > 0:
        size = min(count, dice.randint(5, 12))
        words = dice.choices(_WORDS, k=size)
        if dice.random() < 0.3:
            words.insert(dice.randrange(size + 1), dice.choice(_SPICE))
        text = " ".join(words)
        sentences.append(text[:1].upper() + text[1:] + ".")
        count -= size
    pieces: list[str] = []
    for sentence in sentences:
        pieces.append(sentence)
        pieces.append("\n\n" if dice.random() < 0.15 else " ")
    return "".join(pieces[:-1])


_TOKEN = re.compile(r"\s*\w{1,7}|\s*[^\w\s]|\s+")


def tokenize(text: str) -> list[str]:
    """`text` in pieces of at most seven letters; joined they are `text` again."""
    return _TOKEN.findall(text)

"""What the library says to a programmer, in the words of the command line."""

import re
from typing import Final

__all__ = ["in_our_words"]

# What the library's messages call by the name of an argument, and what a person at a terminal types instead.
_WORDS: Final = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (
            r"no API key: pass api_key=, or set (.+?) \(looked at in that order\)",
            r"no API key: set \1, or give --api-key-file (without a key: kimi-async demo)",
        ),
        (r"\bpass the key as api_key\b", "give the key with --api-key-file"),
        (r"\bapi_key\b=?", "--api-key-file"),
        (r"\bbase_url\b=?", "--base-url (or KIMI_BASE_URL)"),
        (r"give the new job another state file", "give the new job another --state, or forget the old one with --restart"),
        (
            r"Give the changed request a new custom_id, another journal, or on_changed='resend' or 'keep'",
            "Give the changed request a new custom_id or another --output, or say --on-changed resend or keep",
        ),
        (r"it was left as it is\. Give the results another file", "it was left as it is: choose another --output, or --overwrite it"),
        (r"pass exposed=True \(--exposed\)", "add --exposed"),
        (
            r"Use the proxy's HTTP port, or pass http_client=.*?; or, where it comes from the environment, trust_env=False",
            "Use the proxy's HTTP port, or unset the variable",
        ),
        (r"\bcompletion_window\b=?", "--window"),
        (r"\bpass model=", "say --model"),
        (r"\bmax_line_size\b=?", "the line size"),
        (r"client\.models\.list\(\) says", "kimi-async models says"),
        (r"\bmap\(\) got an unexpected keyword argument '(\w+)'", r"there is no field '\1'"),
        (r" \(fields that this client does not know go through extra_body=\{\.\.\.\}\)", ""),
    )
)  # fmt: skip


def in_our_words(text: str) -> str:
    """The message with names of arguments replaced by the options that stand for them."""
    for pattern, ours in _WORDS:
        text = pattern.sub(ours, text)
    return text

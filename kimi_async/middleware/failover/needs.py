"""
What a chat request needs of a host, and the model's id there: both known before anything is sent.
"""

from collections.abc import Iterable, Mapping
from typing import Final, cast

from ...providers.hosts import Provider
from ...providers.ids import official_id

__all__ = ["lacks", "needs_of", "translated"]

OFFICIAL: Final = frozenset({"moonshot", "moonshot-cn"})


def needs_of(body: Mapping[str, object]) -> frozenset[str]:
    """
    What not every host has: `partial` mode, `$web_search`, uploaded files (`ms://`), and pictures behind a link.
    """
    needs: set[str] = set()
    for message in _objects(body.get("messages")):
        if message.get("partial"):
            needs.add("partial")
        for part in _objects(message.get("content")):
            needs |= _part_needs(part)
    for tool in _objects(body.get("tools")):
        if tool.get("type") == "builtin_function":
            names = [function.get("name") for function in _objects([tool.get("function")])]
            needs.add(str(names[0]) if names and names[0] else "builtin_function")
    return frozenset(needs)


def _objects(value: object) -> list[dict[str, object]]:
    """The objects of a list; none where it is no list."""
    every = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, object]", one) for one in every if isinstance(one, dict)]


def _part_needs(part: Mapping[str, object]) -> set[str]:
    found: set[str] = set()
    for key in ("image_url", "video_url"):
        value = part.get(key)
        url: object = cast("dict[str, object]", value).get("url") if isinstance(value, dict) else value
        if isinstance(url, str):
            if url.startswith("ms://"):
                found.add("ms://")
            elif url.startswith(("http://", "https://")):
                found.add("links")
    return found


def lacks(row: Provider | None, needs: Iterable[str], *, own_files: bool) -> str | None:
    """
    Why a host cannot take a request with these needs, or None if it can, as far as is known.

    :param row: the host's row; None for one that is not in the table, which is not judged but for what is Kimi's alone.
    :param own_files: whether the files named by `ms://` were uploaded with this host's key.
    """
    title = row.title if row is not None else "a host that is not in the table"
    official = row is not None and row.name in OFFICIAL
    for need in sorted(needs):
        if need == "ms://" and not own_files:
            return f"the request names files (ms://) that {title} does not have: they belong to the key that uploaded them"
        if need == "links" and official:
            return f"the request has pictures behind links, which {title} does not fetch"
        if need == "partial" and not official:
            return f"the request continues a message (partial mode), which {title} is not known to do"
        if need.startswith("$") and not official:
            return f"the request uses {need}, which {title} does not have"
    return None


def translated(
    model: str,
    listed: Iterable[str] | None,
    *,
    names: Mapping[str, str] | None = None,
    row: Provider | None = None,
) -> str | None:
    """
    A model's id at another host, or None if it does not have it. Never a guess: the id is one that the caller named for
    this host, that the host lists, or, where it cannot be asked, that its row names.

    :param listed: the ids of the host's `/models`; None where it has no such list.
    :param names: ids that the caller named, by their id at the first host.
    """
    if names and model in names:
        return names[model]
    if listed is not None:
        ids = list(listed)
        if model in ids:
            return model
        same = [one for one in ids if official_id(one) == official_id(model)]
        # Variants (`:free`, dated slugs) have the official id of their base: the shortest is the plain one.
        return min(same, key=lambda one: (len(one), one), default=None)
    if row is not None and official_id(row.example_model) == official_id(model):
        return row.example_model
    return model if row is not None and row.name in OFFICIAL and official_id(model) == model else None

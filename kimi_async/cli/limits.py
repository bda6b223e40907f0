"""`kimi-async limits`: who shares a quota, and what of it is used."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from .connect import Kimi, asks_kimi
from .options import Json
from .terminal import Column, Failure, console, facts, plural, print_json, run_async, table

if TYPE_CHECKING:
    from ..middleware.rate_limit.shared import Answer

__all__ = ["Quota", "SharedBy", "app"]

app: typer.Typer = typer.Typer()

SharedBy = Annotated[
    str | None,
    typer.Option(
        "--shared",
        help="Share limits with other processes: 'host' (this machine's), 'redis://…' or 'ray'.",
        envvar="KIMI_SHARED_LIMITS",
        show_default=False,
        rich_help_panel="Limits shared with other processes",
    ),
]
Quota = Annotated[
    str | None,
    typer.Option(
        "--quota",
        help="The organisation's name in it. [default: a digest of the key]",
        show_default=False,
        rich_help_panel="Limits shared with other processes",
    ),
]

NAMES = ("concurrency", "rpm", "tpm", "tpd")
SOURCES = ("unknown", "given", "told by the server", "counted")


@app.command("limits")
@asks_kimi(simulator=False)
def limits(
    kimi: Kimi,
    shared: SharedBy = None,
    quota: Quota = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second.")] = False,
    as_json: Json = False,
) -> None:
    """Show a quota that several processes share: its limits, what is used, who is there."""
    if not shared:
        raise Failure("say where: --shared host, --shared redis://…, or KIMI_SHARED_LIMITS", status=2)
    where = shared

    async def work() -> None:
        name = quota or await _digest(kimi)
        while True:
            answer = await _look(where, name)
            if as_json:
                print_json(as_fields(name, answer))
            else:
                if watch:
                    console().clear()
                _show(name, answer)
            if not watch:
                return
            await asyncio.sleep(1)

    run_async(work())


async def _look(where: str, quota: str) -> "Answer":
    from ..middleware.rate_limit.shared import SharedQuota

    return await SharedQuota(where, quota).look()


async def _digest(kimi: Kimi) -> str:
    """The name that a client without `quota=` gives to its key's quota."""
    from ..middleware.stack import quota_of

    async with kimi.connected() as client:
        return quota_of(client.account)


def as_fields(quota: str, answer: "Answer") -> dict[str, object]:
    """All of it, for another program. Times are seconds."""
    return {
        "quota": quota,
        "limits": {
            name: {"limit": limit or None, "source": SOURCES[source], "used": used}
            for name, limit, source, used in zip(
                NAMES, answer.limits, answer.sources, answer.used, strict=True
            )
        },
        "waiting": answer.waiting,
        "silence": answer.gate / 1000,
        "overloaded": answer.overloaded > 0,
        "members": [
            {
                "name": peer.name.partition(" ")[0],
                "under_way": peer.held,
                "waiting": peer.waiting,
                "heard": peer.silent / 1000,
            }
            for peer in answer.peers
        ],
    }


def _show(quota: str, answer: "Answer") -> None:
    lines = [("quota", quota)]
    for name, limit, source, used in zip(NAMES, answer.limits, answer.sources, answer.used, strict=True):
        of = f"of {limit:,} ({SOURCES[source]})" if limit else "(no limit known)"
        lines.append((name, f"{used:,} {of}"))
    if answer.gate:
        lines.append(
            ("silence", f"{answer.gate / 1000:.1f} s" + (", overloaded" if answer.overloaded else ""))
        )
    lines.append(("members", f"{plural(len(answer.peers), 'member')}, {answer.waiting:,} waiting"))
    facts(lines)
    table(
        [
            Column("name"),
            Column("under way", "number"),
            Column("waiting", "number"),
            Column("heard (s ago)", "number", drop=1),
        ],
        [
            (peer.name.partition(" ")[0], peer.held, peer.waiting, round(peer.silent / 1000, 1))
            for peer in sorted(answer.peers, key=lambda peer: peer.name)
        ],
    )

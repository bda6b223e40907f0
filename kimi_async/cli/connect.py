"""
Which Kimi a command talks to: that of the key in the environment, another by option, or a simulator started for it.
"""

import difflib
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..providers.hosts import PROVIDERS, by_base_url
from .terminal import Failure

if TYPE_CHECKING:
    from ..client import AsyncKimi
    from ..errors import APIStatusError
    from ..middleware.events import Hook
    from ..providers.hosts import Provider
    from ..testing import KimiSimulator

__all__ = ["DEFAULT_MODEL", "Kimi", "asks_kimi", "naming_models", "simulated", "unknown_model"]

DEFAULT_MODEL = "kimi-k3"


def simulated(*, pace: float = 40.0, first_token: float | None = None, **more: Any) -> "KimiSimulator":
    """
    A simulator that writes `pace` tokens a second in each stream, after thinking for a third of a second; 0 is as fast as it
    can. `more` are arguments of `KimiSimulator`.
    """
    from ..testing import KimiSimulator, Pace

    wait = (0.3 if pace else 0.0) if first_token is None else first_token
    return KimiSimulator(pace=Pace(first_token=wait, tokens_per_second=pace), **more)


@dataclass(frozen=True, slots=True)
class Kimi:
    """What the options of a command say about where its requests go."""

    simulator: bool = False
    provider: str | None = None
    base_url: str | None = None
    api_key_file: Path | None = None

    def model(self, given: str | None) -> str:
        """The model asked for, or the one that stands for Kimi K3 at this host."""
        if given is not None:
            return given
        host = self.host()
        return DEFAULT_MODEL if host is None or self.simulator else host.example_model

    def host(self) -> "Provider | None":
        """What is known about the host, as far as the options tell; None for one that is in no table."""
        if self.provider is not None:
            return PROVIDERS[self.provider]
        return None if self.base_url is None else by_base_url(self.base_url)

    def key(self) -> str | None:
        """What --api-key-file holds; None where the environment is to tell."""
        if self.api_key_file is None:
            return None
        try:
            text = self.api_key_file.read_text("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise Failure(f"--api-key-file: {self.api_key_file} is no text in UTF-8", status=2) from None
        if not text:
            raise Failure(f"--api-key-file: {self.api_key_file} is empty", status=2)
        return text

    @asynccontextmanager
    async def connected(
        self,
        *,
        limits: str | None = None,
        shared: str | None = None,
        quota: str | None = None,
        simulator: "KimiSimulator | None" = None,
        hooks: "Sequence[Hook]" = (),
    ) -> "AsyncGenerator[AsyncKimi]":
        """
        A client, closed at the end, together with the simulator if one was asked for. `limits` names a tier, of the real Kimi.
        """
        from .. import AsyncKimi, RateLimits

        if not self.simulator:
            async with (
                AsyncKimi(
                    api_key=self.key(),
                    base_url=self.base_url,
                    provider=self.provider,
                    limits=limits,
                    shared=shared,
                    quota=quota,
                    hooks=hooks,
                ) as client,
                naming_models(client),
            ):
                yield client
            return
        async with (
            simulator or simulated() as sim,
            # It has no limits, so there is nothing to be learnt by starting slowly.
            AsyncKimi(
                base_url=sim.base_url,
                api_key=sim.api_key,
                limits=RateLimits(hold=False),
                shared=False,
                hooks=hooks,
            ) as client,
            naming_models(client),
        ):
            yield client


@asynccontextmanager
async def naming_models(client: "AsyncKimi") -> "AsyncGenerator[None]":
    """A refusal because there is no such model is told with those that there are."""
    from ..errors import APIStatusError, KimiError

    try:
        yield
    except APIStatusError as exc:
        name = unknown_model(exc)
        if name is None:
            raise
        try:
            ids = [model.id async for model in client.models.list()]
        except KimiError:
            raise exc from None
        near = difflib.get_close_matches(name, ids, n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise Failure(f"there is no model {name!r} for this key{hint} There are: {', '.join(ids)}") from exc


def unknown_model(error: "APIStatusError") -> str | None:
    """The model that a host says it does not have; None for any other refusal."""
    found = re.search(
        r"(?i)not found the model ([^\s,]+)|model [`'\"]?([^\s`'\"]+)[`'\"]? (?:does not exist|not found)",
        error.message,
    )
    return None if found is None or error.status_code not in (400, 404) else found[1] or found[2]


def _known_provider(name: str | None) -> str | None:
    if name is not None and name not in PROVIDERS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(PROVIDERS)}")
    return name


def _options(
    simulator: Annotated[
        bool,
        typer.Option("--simulator", help="Ask a Kimi simulated on this machine instead: no key, no cost."),
    ] = False,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider",
            help=f"A host by name: {', '.join(PROVIDERS)}.",
            callback=_known_provider,
            autocompletion=lambda: list(PROVIDERS),
            show_default=False,
            rich_help_panel="Where Kimi is",
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            help="Another address.",
            show_default="KIMI_BASE_URL, or https://api.moonshot.ai/v1",
            rich_help_panel="Where Kimi is",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            help="A file that holds the key.",
            exists=True,
            dir_okay=False,
            show_default="the key is in KIMI_API_KEY or MOONSHOT_API_KEY",
            rich_help_panel="Where Kimi is",
        ),
    ] = None,
) -> None:
    """The options that say where Kimi is; only the signature counts."""


def asks_kimi(*, simulator: bool) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """
    For a command that asks Kimi: adds the options that say which, and hands them over as its argument `kimi`.

    A simulator ends with the command, so only commands that need nothing of an earlier one offer it.
    """
    more = [
        each
        for each in inspect.signature(_options).parameters.values()
        if simulator or each.name != "simulator"
    ]

    def with_options(command: Callable[..., object]) -> Callable[..., object]:
        signature = inspect.signature(command)
        own = [each for each in signature.parameters.values() if each.name != "kimi"]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *more)]

        def run(**given: Any) -> Any:
            kimi = Kimi(**{each.name: given.pop(each.name) for each in more})
            if kimi.simulator and (kimi.provider or kimi.base_url or kimi.api_key_file):
                raise Failure("--simulator has its own address and key: leave out the other", status=2)
            return command(kimi=kimi, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        # typer reads the options from these.
        cast("Any", run).__signature__ = signature.replace(parameters=parameters)
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return with_options

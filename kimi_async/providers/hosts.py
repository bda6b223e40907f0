"""
The hosts that serve Kimi models, as data: where they are, which key opens them, what they have, and how they differ.

Nothing here talks to anybody. Each row names where its facts were read, and when; a host that changes is mended here.
A host that is in no row works all the same with `base_url=`: the client understands every reply shape below, whoever
sends it. A row adds what cannot be seen from a reply: the key's variable, the paths that exist, what must be sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from .ids import gateway_of_model_id

__all__ = [
    "PROVIDERS",
    "Provider",
    "by_base_url",
    "foreign_model_message",
    "missing_endpoint_message",
    "provider",
]

# Names of endpoints, as `supports` takes them. One a resource family, not one a path.
CHAT: Final = "chat"
_MODELS: Final = "models"
_OFFICIAL: Final = frozenset(
    (
        CHAT,
        _MODELS,
        "files",
        "batches",
        "balance",
        "tokenizers",
        "formulas",
        "signatures",
        "responses",
        "messages",
    )
)

# Which endpoint a path belongs to, most specific first. What is not listed is not judged.
_PATHS: Final = (
    ("chat/completions", CHAT),
    ("users/me/balance", "balance"),
    ("tokenizers", "tokenizers"),
    ("signatures", "signatures"),
    ("formulas", "formulas"),
    ("responses", "responses"),
    ("batches", "batches"),
    ("messages", "messages"),
    ("models", _MODELS),
    ("files", "files"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """
    One host, or one kind of host that people run themselves.

    :ivar name: as `AsyncKimi(provider=)` takes it.
    :ivar title: as a sentence names it.
    :ivar base_url: the address that paths such as `chat/completions` are joined to.
    :ivar key_variables: environment variables that may hold its key, in the order they are looked at.
    :ivar base_url_variables: environment variables that may hold another address of it.
    :ivar key_required: False where a server often runs without any key.
    :ivar endpoints: what it has; see `supports`.
    :ivar request_reasoning: names under which earlier reasoning goes back in an assistant message. Several where servers
        of different age read different ones.
    :ivar headers: what it needs in every request beside the key.
    :ivar model_prefixes: how Kimi ids begin there; `""` where they are bare.
    :ivar example_model: an id that was valid there when this was written.
    :ivar fixed_sampling: whether temperature, top_p, n and the penalties are fixed per model, other values a 400.
    :ivar finishes: whether a stream always says `finish_reason`, so that one that ends without was cut.
    :ivar continues_partial: whether it goes on with an assistant message that is marked `partial`, as Kimi does; others begin
        the answer anew, or refuse.
    :ivar asks_for_usage: whether a stream says its usage only with `stream_options={"include_usage": True}`.
    :ivar own: whether people run it themselves, so that it has no limits but those it refuses by.
    :ivar hosts: host names by which `by_base_url` knows it.
    """

    name: str
    title: str
    base_url: str
    key_variables: tuple[str, ...]
    base_url_variables: tuple[str, ...] = ()
    key_required: bool = True
    endpoints: frozenset[str] = frozenset((CHAT, _MODELS))
    request_reasoning: tuple[str, ...] = ("reasoning_content",)
    headers: tuple[tuple[str, str], ...] = ()
    model_prefixes: tuple[str, ...] = ("",)
    example_model: str = "kimi-k3"
    fixed_sampling: bool = False
    finishes: bool = False
    continues_partial: bool = False
    asks_for_usage: bool = False
    own: bool = False
    hosts: tuple[str, ...] = ()

    def supports(self, endpoint: str) -> bool:
        """
        Whether it has an endpoint: `chat models files batches balance tokenizers formulas signatures responses messages`,
        or a path such as `users/me/balance` or `/v1/files/x`. True for what is in no list: it may be new.
        """
        name = _endpoint_of(endpoint)
        return name is None or name in self.endpoints


def _endpoint_of(endpoint: str) -> str | None:
    path = endpoint.split("?")[0].strip("/")
    if path in _OFFICIAL:
        return path
    path = path.removeprefix("v1/")
    for start, name in _PATHS:
        if path == start or path.startswith(f"{start}/"):
            return name
    return None


PROVIDERS: Final[dict[str, Provider]] = {
    row.name: row
    for row in (
        # Keys of the Chinese host are refused here with 401, and the other way round.
        # Balances and prices are in US dollars.
        # https://platform.kimi.ai/docs/api/overview (2026-09)
        # https://platform.kimi.ai/docs/openapi.json (2026-08)
        Provider(
            name="moonshot",
            title="the Kimi Open Platform (international)",
            base_url="https://api.moonshot.ai/v1",
            key_variables=("MOONSHOT_API_KEY", "KIMI_API_KEY"),
            base_url_variables=("MOONSHOT_BASE_URL", "KIMI_BASE_URL", "MOONSHOT_API_BASE"),
            endpoints=_OFFICIAL,
            fixed_sampling=True,
            finishes=True,
            continues_partial=True,
            hosts=("api.moonshot.ai", "api-sg.moonshot.ai"),
        ),
        # The same contract as the international host, with accounts of its own.
        # Balances and prices are in yuan.
        # https://platform.kimi.com/docs/api/overview (2026-09)
        Provider(
            name="moonshot-cn",
            title="the Kimi Open Platform (China)",
            base_url="https://api.moonshot.cn/v1",
            # A machine that uses both regions needs a name for each key; the shared one comes last.
            key_variables=("MOONSHOT_CN_API_KEY", "MOONSHOT_API_KEY", "KIMI_API_KEY"),
            base_url_variables=("MOONSHOT_CN_BASE_URL",),
            endpoints=_OFFICIAL,
            fixed_sampling=True,
            finishes=True,
            continues_partial=True,
            hosts=("api.moonshot.cn",),
        ),
        # For interactive coding agents known to it; others get 403 access_terminated_error. Its terms forbid
        # batches and a faked client identity.
        # Keys begin with sk-kimi- and do not open the Open Platform; overseas https://api.kimi.ai/coding/v1.
        # A request body may hold 2 MiB.
        # 429 engine_overloaded may mean that the plan is used up: repeating does not help for some 20 minutes.
        # https://www.kimi.com/code/docs/en/kimi-code/error-reference.html (2026-09)
        # https://github.com/MoonshotAI/kimi-code (2026-08)
        Provider(
            name="kimi-code",
            title="Kimi Code (subscription)",
            base_url="https://api.kimi.com/coding/v1",
            key_variables=("KIMI_CODE_API_KEY", "KIMI_API_KEY"),
            base_url_variables=("KIMI_CODE_BASE_URL",),
            endpoints=frozenset((CHAT, _MODELS, "files", "messages", "responses")),
            example_model="k3",
            fixed_sampling=True,
            finishes=True,
            continues_partial=True,
            hosts=("api.kimi.com", "api.kimi.ai"),
        ),
        # Documented as being under development; replies are taken to be passed on as they are.
        # https://kimi.api365.cloud, page "Chat" (2026-03-23)
        Provider(
            name="api365",
            title="API365",
            base_url="https://kimi.api365.cloud/v1",
            key_variables=("API365_API_KEY",),
            example_model="kimi-k2.5",
            hosts=("kimi.api365.cloud",),
        ),
        # A stream ends with a usage chunk whether asked for or not, and carries "usage": null before it.
        # Ids begin with msg_.
        # https://docs.acedata.cloud, page "Kimi Chat Completion API" (2026-07)
        Provider(
            name="acedata",
            title="AceData",
            base_url="https://api.acedata.cloud/kimi",
            key_variables=("ACEDATACLOUD_API_KEY", "ACEDATA_API_KEY"),
            endpoints=frozenset((CHAT,)),
            hosts=("api.acedata.cloud",),
        ),
        # Success may be 201.
        # 403 "You've run out of credits" is about money, not permission.
        # Ids are written kimi-k2-6 where others write kimi-k2.6; /models lists its whole catalogue.
        # https://docs.aimlapi.com/api-references/text-models-llm/moonshot (2026-08)
        Provider(
            name="aimlapi",
            title="AI/ML API",
            base_url="https://api.aimlapi.com/v1",
            key_variables=("AIMLAPI_API_KEY", "AIML_API_KEY"),
            request_reasoning=("reasoning",),
            model_prefixes=("moonshot/", "moonshotai/"),
            example_model="moonshotai/kimi-k3",
            hosts=("api.aimlapi.com",),
        ),
        # Comment lines ": OPENROUTER PROCESSING" keep a waiting stream open.
        # An error in a stream, or in a whole reply of status 200, comes as a choice with finish_reason "error".
        # reasoning_details must go back unchanged where it came.
        # Ids may end in :free or :nitro.
        # https://openrouter.ai/docs/api/reference/streaming (2026)
        # https://openrouter.ai/docs/api/errors (2026)
        Provider(
            name="openrouter",
            title="OpenRouter",
            base_url="https://openrouter.ai/api/v1",
            key_variables=("OPENROUTER_API_KEY",),
            request_reasoning=("reasoning",),
            model_prefixes=("moonshotai/",),
            example_model="moonshotai/kimi-k3",
            finishes=True,
            hosts=("openrouter.ai",),
        ),
        # The model's name is whatever --served-model-name says.
        # Thinking is set by chat_template_kwargs={"thinking": …, "thinking_effort": …} in extra_body.
        # Usage in a stream only with stream_options={"include_usage": True}.
        # Tool call ids functions.name:0 must go back unchanged.
        # https://docs.vllm.ai/en/latest/features/reasoning_outputs.html (2026)
        # https://github.com/vllm-project/vllm/issues/38488
        Provider(
            name="vllm",
            title="vLLM",
            base_url="http://localhost:8000/v1",
            key_variables=("VLLM_API_KEY",),
            base_url_variables=("VLLM_BASE_URL",),
            key_required=False,
            # Up to 0.10 it reads reasoning_content, later only reasoning (vllm issues 27752 and 38488).
            request_reasoning=("reasoning_content", "reasoning"),
            model_prefixes=("moonshotai/", ""),
            example_model="moonshotai/Kimi-K3",
            finishes=True,
            asks_for_usage=True,
            own=True,
        ),
        # Start it with --reasoning-parser kimi_k3 --tool-call-parser kimi_k3.
        # https://docs.sglang.ai/advanced_features/separate_reasoning.html (2026)
        Provider(
            name="sglang",
            title="SGLang",
            base_url="http://localhost:30000/v1",
            key_variables=("SGLANG_API_KEY",),
            base_url_variables=("SGLANG_BASE_URL",),
            key_required=False,
            model_prefixes=("moonshotai/", ""),
            example_model="moonshotai/Kimi-K3",
            finishes=True,
            asks_for_usage=True,
            own=True,
        ),
    )
}  # fmt: skip
"""Every known host by name."""


def provider(name: str) -> Provider:
    """
    The row of this name.

    :raises ConfigurationError: there is none; the names that exist are told.
    """
    row = PROVIDERS.get(name.strip().lower())
    if row is None:
        raise ConfigurationError(
            f"provider {name!r} is not known; there are {', '.join(PROVIDERS)}. For any other host pass base_url= instead"
        )
    return row


def by_base_url(url: str) -> Provider | None:
    """
    Whose address this is; None if nobody's that is known.

    A self-hosted server cannot be told by its address, and is not guessed from its port.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return None
    for row in PROVIDERS.values():
        if host in row.hosts:
            return row
    return None


def missing_endpoint_message(row: Provider, endpoint: str) -> str:
    """What to tell somebody who calls an endpoint that a host does not have: who lacks it, what it has, and who has it."""
    name = _endpoint_of(endpoint) or endpoint
    having = [other.name for other in PROVIDERS.values() if name in other.endpoints]
    elsewhere = f"; it exists at {' and '.join(having)}" if having else ""
    return (
        f"{row.title} has no {name} endpoint, only {', '.join(sorted(row.endpoints))}{elsewhere}. "
        "If that has changed, call it with client.get or client.post"
    )


def foreign_model_message(model: str, here: Provider | None, known: tuple[str, ...] = ()) -> str | None:
    """
    Why a model id is not known at this host, if it has another host's form; None if it has not.

    :param known: the ids that exist here, if somebody has asked.
    """
    gateway = gateway_of_model_id(model)
    if gateway is None or (here is not None and here.name in gateway.names):
        return None
    if here is not None and any(prefix and model.startswith(prefix) for prefix in here.model_prefixes):
        return None
    title = here.title if here is not None else "this host"
    provide = f" (provider={gateway.names[0]!r})" if gateway.names else ""
    listed = f" Models here: {', '.join(known)}." if known else ""
    bare = here is None or "" in here.model_prefixes
    hint = f" Its id here is probably {gateway.official_id!r}." if bare else ""
    return f"{model!r} is the form of {gateway.title}{provide}, not of {title}.{hint}{listed}"

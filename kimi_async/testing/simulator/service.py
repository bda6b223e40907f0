"""
Kimi without a network: a request in, an `Answer` out.

`KimiService.answer` is the whole simulator but for the sockets. It takes the time as an argument and does no
I/O, so the same service stands behind `KimiSimulator` (real sockets) and behind `MemoryTransport`, where a
virtual clock can drive it.
"""

import hashlib
import hmac
import json
import re
import urllib.parse
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from ...providers.models import ModelInfo
from ..faults import FaultEntry, FaultPlan, apply_faults
from .chat_model import Turn, continue_from, estimate_tokens, generate, partial_message, think
from .models import MODELS, find_model, public
from .replies import (
    ACCOUNT,
    Account,
    Answer,
    Pace,
    Refusal,
    Step,
    chunks,
    completion,
    error_reply,
    headers_for,
    json_bytes,
    script,
    usage_of,
)
from .server_limits import Permit, ServerLedger, ServerLimits
from .validation import budget_of, check_chat, check_estimate, stop_words
from .words import as_list, as_object

if TYPE_CHECKING:
    from .storage import Storage

__all__ = ["Balance", "KimiService", "Responder", "Scripted"]

Responder = Callable[[dict[str, object]], "Turn | str | Refusal | None"]
"""Decides a turn from the parsed request: a `Turn`, plain text, a `Refusal`, or None for the usual answer."""

_JSON = "application/json; charset=utf-8"
_MAX_BODY = 100 * 1024 * 1024


class Balance(msgspec.Struct, frozen=True):
    """Money, in the unit of the host; what `GET /v1/users/me/balance` tells."""

    available_balance: float = 49.58894
    voucher_balance: float = 46.58893
    cash_balance: float = 3.00001


@dataclass(frozen=True, slots=True)
class Scripted:
    """An answer and the steps that say it; `faults` names what was done to them."""

    answer: Answer
    steps: Iterator[Step]
    faults: tuple[str, ...] = ()


class KimiService:
    """
    The behaviour of the API as a plain object.

    `api_key` is the one key that opens it. `words` bounds the length of an answer, `seed` changes every text.
    `limits` is a ledger, limits, or the name of a tier (then `Msh-Gid` names it too). `faults` is asked once
    per request. `queue` holds turns to be given out, in order, instead of the usual ones; `responder` is asked first.
    `strict_history` refuses tool calls without their reasoning on K3 as well, as the host is reported to do at times.
    `now` is any clock in seconds; `wall` is added to it where the wire wants Unix time.
    """

    def __init__(
        self,
        *,
        api_key: str = "sk-simulator",
        seed: int = 0,
        pace: Pace | None = None,
        models: Sequence[ModelInfo] = MODELS,
        account: Account = ACCOUNT,
        words: tuple[int, int] = (40, 120),
        responder: Responder | None = None,
        limits: ServerLedger | ServerLimits | str | None = None,
        faults: FaultPlan | Iterable[FaultEntry] | None = None,
        wall: Callable[[], float] | None = None,
        strict_history: bool = False,
    ) -> None:
        self.api_key = api_key
        self.strict_history = strict_history
        self.seed = seed
        self.pace: Pace = pace or Pace()
        self.models: tuple[ModelInfo, ...] = tuple(models)
        if limits is not None and not isinstance(limits, ServerLedger):
            limits = ServerLedger(limits, account=account, seed=seed)
        if limits is not None and limits.tier is not None:
            account = replace(account, group=f"enterprise-tier-{limits.tier.removeprefix('tier')}")
        self.limits = limits
        self.faults: FaultPlan | None = (
            faults if faults is None or isinstance(faults, FaultPlan) else FaultPlan(faults)
        )
        self.account = account
        self.words = words
        self.responder = responder
        self.queue: deque[Turn | Refusal] = deque()
        self.balance: Balance = Balance()
        self.ordinal: int = 0
        self.rejected: Counter[str] = Counter()
        self._wall = wall or (lambda: 1_795_300_000.0)
        self._prompts: OrderedDict[str, int] = OrderedDict()
        self._storage: Storage | None = None

    @property
    def storage(self) -> "Storage":
        """Files and batches, made when first asked for. Batches are answered by `complete`."""
        if self._storage is None:
            from .storage import Storage

            self._storage = Storage(
                complete=self.complete, wall=self._wall, seed=self.seed, account=self.account
            )
        return self._storage

    # --- requests ---------------------------------------------------------------------------------------

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Scripted:
        """The answer to one request as steps, faults applied. Whoever carries them out must run `answer.closing`."""
        return self.scripted(self.answer(method, path, headers, body, now), method, path, body)

    def scripted(self, answer: Answer, method: str, path: str, body: bytes = b"") -> Scripted:
        """An answer as steps, with the faults that are due for this request."""
        faults = self.faults.draw(method, path, body) if self.faults is not None else ()
        if not faults:
            return Scripted(answer, script(answer))
        return Scripted(answer, apply_faults(answer, faults), tuple(fault.name for fault in faults))

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """
        Decide the reply to one request. `path` may carry a query; `/v1` in front of it is optional.

        `headers` must be case-insensitive, as aiohttp's and `kimi_async`'s are.
        """
        self.ordinal += 1
        refusal = self.check_key(headers)
        if refusal is None and len(body) > _MAX_BODY:
            refusal = error_reply("too_large")
        if refusal is not None:
            return self.refuse(refusal)
        route = urllib.parse.unquote(path.partition("?")[0])
        route = "/" + route.removeprefix("/v1").strip("/")
        if route.startswith(("/files", "/batches")):
            from .storage import answer as stored_answer  # loads aiohttp's server, which many need not

            content_type = headers.get("Content-Type", "")
            stored = stored_answer(self.storage, method, path, body, now, content_type)
            if stored is not None:
                return Answer(stored.status, self.storage.headers(stored.content_type), stored.body)
        if method == "GET":
            if route == "/models":
                return self._json({"object": "list", "data": [public(model) for model in self.models]})
            if route.startswith("/models/"):
                # Not documented on the official host; shaped like an entry of the list.
                name = route.removeprefix("/models/")
                model = find_model(self.models, name)
                return self._json(public(model)) if model is not None else self.refuse(_unknown_model(name))
            if route == "/users/me/balance":
                data = msgspec.to_builtins(self.balance)
                return self._json({"code": 0, "data": data, "scode": "0x0", "status": True})
            if found := re.fullmatch(r"/formulas/(.+)/tools", route):
                return self._formula_tools(found[1])
        if method == "POST":
            request = _parse(body)
            if route == "/chat/completions":
                try:
                    return self._chat(request, headers, now)
                except RecursionError:
                    return self.refuse(
                        Refusal(400, "invalid_request_error", "Invalid request: nested too deeply")
                    )
            if route == "/tokenizers/estimate-token-count":
                return self._estimate(request)
            if route == "/signatures/verify":
                return self._verify(request)
            if found := re.fullmatch(r"/formulas/(.+)/fibers", route):
                return self._fiber(found[1], request)
        # The wording of a wrong path was only seen on the Kimi Code host.
        return self.refuse(Refusal(404, "resource_not_found_error", "method not found"))

    def check_key(self, headers: Mapping[str, str]) -> Refusal | None:
        """The 401 for these headers, or None: no or garbled key, then a key that is not ours."""
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.startswith("sk-"):
            return error_reply("incorrect_api_key")
        return None if key == self.api_key else error_reply("invalid_authentication")

    def refuse(self, refusal: Refusal) -> Answer:
        """The answer that carries `refusal`; account ids are in its headers only once the key was right."""
        account = None if refusal.status == 401 else self.account
        headers = self._headers(refusal.content_type, account) + list(refusal.headers)
        kind = refusal.kind or refusal.type
        self.rejected[kind] += 1
        return Answer(refusal.status, headers, refusal.payload(), refused=kind)

    def _headers(self, content_type: str, account: Account | None) -> list[tuple[str, str]]:
        return headers_for(self.ordinal, seed=self.seed, account=account, content_type=content_type)

    def _json(self, value: object, *extra: tuple[str, str], delay: float = 0.0) -> Answer:
        headers = self._headers(_JSON, self.account) + list(extra)
        return Answer(200, headers, json_bytes(value), delay=delay, pace=self.pace)

    # --- chat -------------------------------------------------------------------------------------------

    def _chat(self, request: dict[str, object] | None, headers: Mapping[str, str], now: float) -> Answer:
        if request is None:
            return self.refuse(_not_json())
        refusal = check_chat(request, self.models, strict=self.strict_history)
        if refusal is not None:
            return self.refuse(refusal)
        model = find_model(self.models, request["model"])
        assert model is not None
        permit = Permit()
        if self.limits is not None:
            tokens = estimate_tokens(request) + budget_of(request, model)
            permit = self.limits.admit(now, tokens)
            if permit.refusal is not None:
                answer = self.refuse(permit.refusal)
                answer.delay, answer.closing = permit.delay, permit.release
                return answer
        answer = self._admitted(model, request, headers)
        answer.closing = permit.release
        return answer

    def complete(self, request: Mapping[str, object]) -> tuple[int, object]:
        """Status and body of the reply to one chat request that is not streamed and not limited, as batches want it."""
        refusal = check_chat(request, self.models, strict=self.strict_history)
        model = find_model(self.models, request.get("model"))
        if refusal is not None or model is None:
            return _refused_value(refusal or _unknown_model(str(request.get("model"))))
        self.ordinal += 1
        answer = self._admitted(model, {**request, "stream": False}, {})
        return answer.status, msgspec.json.decode(answer.body)

    def _admitted(self, model: ModelInfo, request: dict[str, object], headers: Mapping[str, str]) -> Answer:
        turn = self.turn(model, request)
        if isinstance(turn, Refusal):
            return self.refuse(turn)
        generated = generate(turn, budget=budget_of(request, model), stop=stop_words(request))
        prompt_tokens = estimate_tokens(request)
        cached = self._cached(request, prompt_tokens)
        usage = usage_of(generated, prompt_tokens, cached)
        id_ = (
            "chatcmpl-" + hashlib.blake2b(f"{self.seed}:{self.ordinal}".encode(), digest_size=12).hexdigest()
        )
        created = int(self._wall())
        signature = self._sign(headers, model.id)
        if not request.get("stream"):
            value = completion(generated, id=id_, created=created, model=model.id, usage=usage)
            saved = [("Msh-Context-Cache-Token-Saved", str(cached))] if cached else []
            delay = self.pace.whole(generated.completion_tokens)
            return self._json(value, *saved, *signature, delay=delay)
        options = as_object(request.get("stream_options")) or {}
        payloads = chunks(
            generated,
            id=id_,
            created=created,
            model=model.id,
            usage=usage,
            include_usage=options.get("include_usage") is True,
            tokens_per_chunk=self.pace.tokens_per_chunk,
        )
        stream_headers = self._headers("text/event-stream", self.account) + signature
        stream_headers.insert(1, ("Cache-Control", "no-cache"))
        return Answer(200, stream_headers, payloads=payloads, delay=self.pace.headers, pace=self.pace)

    def turn(self, model: ModelInfo, request: dict[str, Any]) -> Turn | Refusal:
        """
        What the model says to `request`, before budgets and stop words.

        Asked in this order: `responder`, `queue`, the deterministic model. A partial message is honoured whoever
        wrote the text: only what follows the given prefix comes back.
        """
        said: Turn | str | Refusal | None = self.responder(request) if self.responder is not None else None
        if said is None and self.queue:
            said = self.queue.popleft()
        if isinstance(said, Refusal):
            return said
        if isinstance(said, str):
            said = Turn(said)
        turn = think(model, request, seed=self.seed, words=self.words) if said is None else said
        partial = partial_message(request)
        return turn if partial is None else continue_from(turn, partial, seed=self.seed)

    def _cached(self, request: Mapping[str, object], prompt_tokens: int) -> int:
        """
        Prompt tokens that an earlier request left in the cache.

        The same prompt again is a whole hit; a longer one hits what it shares in whole messages, in steps of
        256 tokens (both measured by users). Tools come first in the hashed prefix.
        """
        digest = hashlib.blake2b(
            json.dumps([request.get("model"), request.get("tools")]).encode(), digest_size=16
        )
        messages = as_list(request.get("messages"))
        known = 0
        keys: list[str] = []
        for message in messages:
            digest.update(json.dumps(message, sort_keys=True).encode())
            keys.append(digest.hexdigest())
            known = self._prompts.get(keys[-1], known)
        if keys:
            if keys[-1] in self._prompts:
                known = prompt_tokens
            else:
                known = known // 256 * 256
                self._prompts[keys[-1]] = prompt_tokens
            self._prompts.move_to_end(keys[-1])
            if len(self._prompts) > 4096:
                self._prompts.popitem(last=False)
        return known

    # --- the rest ---------------------------------------------------------------------------------------

    def _estimate(self, request: Mapping[str, object] | None) -> Answer:
        refusal = _not_json() if request is None else check_estimate(request, self.models)
        if request is None or refusal is not None:
            return self.refuse(refusal or _not_json())
        return self._json({"data": {"total_tokens": estimate_tokens(request)}})

    def _sign(self, headers: Mapping[str, str], model: str) -> list[tuple[str, str]]:
        """The two signature headers if the request carries one non-empty nonce."""
        nonce = headers.get("X-Msh-Request-Nonce", "").strip()
        if not nonce:
            return []
        timestamp = int(self._wall() * 1000)
        return [
            ("Msh-Request-Timestamp", str(timestamp)),
            ("Msh-Request-Signature", self._signature(nonce, timestamp, model)),
        ]

    def _signature(self, nonce: str, timestamp: int, model: str) -> str:
        text = f"{nonce}\n{timestamp}\n{model}".encode()
        return "reqsigv1_" + hmac.new(self.api_key.encode(), text, hashlib.sha256).hexdigest()

    def _verify(self, request: Mapping[str, object] | None) -> Answer:
        fields = request or {}
        nonce, stamp, model = fields.get("nonce"), fields.get("timestamp"), fields.get("model")
        if not isinstance(nonce, str) or not isinstance(stamp, int) or not isinstance(model, str):
            return self.refuse(
                Refusal(
                    400, "invalid_request_error", "Invalid request: nonce, timestamp, model and signature"
                )
            )
        signature = str(fields.get("signature"))
        valid = hmac.compare_digest(self._signature(nonce, stamp, model).encode(), signature.encode())
        return self._json({"valid": valid})

    def _formula_tools(self, uri: str) -> Answer:
        function = _FORMULAS.get(uri)
        if function is None:
            return self.refuse(Refusal(404, "resource_not_found_error", f"formula {uri} not found"))
        return self._json({"object": "list", "tools": [{"type": "function", "function": function}]})

    def _fiber(self, uri: str, request: Mapping[str, object] | None) -> Answer:
        function = _FORMULAS.get(uri)
        if function is None:
            return self.refuse(Refusal(404, "resource_not_found_error", f"formula {uri} not found"))
        fields = request or {}
        name, arguments = fields.get("name"), fields.get("arguments")
        if name != function["name"] or not isinstance(arguments, str):
            return self.refuse(
                Refusal(
                    400,
                    "invalid_request_error",
                    "Invalid request: name and arguments (a string) are required",
                )
            )
        token = hashlib.blake2b(f"{uri}{arguments}".encode(), digest_size=16).hexdigest()
        try:
            json.loads(arguments)
        except ValueError:
            status, extra = "failed", {"error": "arguments is not valid JSON"}
        else:
            secret = f"----MOONSHOT ENCRYPTED BEGIN----{token}----MOONSHOT ENCRYPTED END----"
            status, extra = "succeeded", {"encrypted_output": secret}
        context = {"input": json.dumps({"name": name, "arguments": arguments}), **extra}
        return self._json(
            {
                "id": f"fiber-{token}",
                "object": "fiber",
                "created_at": int(self._wall()),
                "lambda_id": f"lambda-{token[:16]}",
                "status": status,
                "context": context,
                "formula": uri,
                "organization_id": self.account.organization,
                "project_id": self.account.project,
            }
        )


_FORMULAS: dict[str, dict[str, object]] = {
    "moonshot/web-search:latest": {
        "name": "web_search",
        "description": "Search the web for information",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to search for"}},
            "required": ["query"],
        },
    },
}


def _refused_value(refusal: Refusal) -> tuple[int, object]:
    return refusal.status, msgspec.json.decode(refusal.payload())


def _parse(body: bytes) -> dict[str, object] | None:
    try:
        return as_object(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _not_json() -> Refusal:
    return Refusal(400, "invalid_request_error", "Invalid request: the body is not a JSON object")


def _unknown_model(name: str) -> Refusal:
    return Refusal(404, "resource_not_found_error", f"Not found the model {name} or Permission denied")

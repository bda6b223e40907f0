"""
The same chat request, tried where it can succeed: one host after another, by the cause of each failure.

It stands outside retries and limits, each host having its own: what reaches it is what a whole client could not mend.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, cast

import msgspec

from ...codec import json as codec
from ...codec.refusals import classify
from ...errors import Attempt, ConfigurationError, KimiError
from ...providers.hosts import Provider
from ...redact import redact, redacted, secrets_of
from ...transport.exchange import Request, Response
from ...types._base import held
from ...types.completions import ChatCompletion
from ..chain import Handler
from .needs import lacks, needs_of, translated
from .policy import Health, Order, Rotation, cause_of, goes_on, order

__all__ = ["Failover", "FailoverTarget"]

# How long a host's list of models is believed. A new model is rare, and asking costs a call.
LIST_AGE: Final = 600.0
# A host that cannot say which models it has within so many seconds is not asked for one of them.
LIST_PATIENCE: Final = 5.0

CHAT: Final = "/chat/completions"


@dataclass(slots=True, kw_only=True)
class FailoverTarget:
    """
    A host to go on to.

    :ivar client: its own `AsyncKimi`, with key, limits and timeouts of its own. It is closed with the client it stands by for.
    :ivar weight: for `order="weight"`: its share of the calls.
    :ivar models: ids there, by the id that calls name, where neither form nor the host's list of models tells them.
    :ivar name: what attempts say; the provider's name, else the host, by default.
    """

    client: Any
    weight: float = 1.0
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    name: str = ""


@dataclass(slots=True)
class _Host:
    """One host and what is known of it. The first has no client: the chain goes on to it."""

    name: str
    row: Provider | None
    client: Any
    models: Mapping[str, str]
    health: Health = field(default_factory=Health)
    listed: tuple[float, tuple[str, ...] | None] | None = None


@dataclass(slots=True)
class _Outcome:
    """What a host answered: a reply, or an error; and the cause, `""` where no other host can do better."""

    response: Response | None
    error: KimiError | None
    cause: str
    attempt: Attempt | None = None


class Failover:
    """
    Goes on to another host where the first cannot answer: overload, unavailable, exhausted quota, the day's tokens, a dead host,
    a revoked key. A wrong request, moderation and a conversation that is too long are the same everywhere and do not.

        AsyncKimi(provider="moonshot", fallback=[AsyncKimi(provider="openrouter")])
        AsyncKimi(fallback=Failover([openrouter, vllm], order="free"))

    The model's id is translated to what the host calls it, by the ids that the host lists; what a host cannot take (uploaded
    files, partial mode, `$web_search`) is known before it is asked. A host that failed is asked again after a second or so, by
    one request at first, and is preferred again as soon as it answers.

    :param hosts: clients, or `FailoverTarget`s where one has a weight or names of its own.
    :param order: `in_order`: the client's own host first, then these. `weight`: in proportion to the weights. `free`: whose
        limiter would send it soonest. Hosts that are ill come last in each.
    :param weight: of the client's own host, for `order="weight"`.
    :param longer: a model with a larger window, by the id of the one whose window overflows: the request is then sent again
        with it. Without an entry an overflow is raised.
    :param hedge_after: seconds after which, with no answer yet (a stream: no first event), the next host is asked as well; who
        answers first wins, the other is cancelled. It costs a second request each time, charged by both hosts. Off by default.
    """

    per_call: ClassVar[bool] = True

    def __init__(
        self,
        hosts: Sequence[object],
        *,
        order: Order = "in_order",
        weight: float = 1.0,
        longer: Mapping[str, str] | None = None,
        hedge_after: float | None = None,
    ) -> None:
        if isinstance(hosts, (str, bytes)) or not isinstance(hosts, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                "fallback must be a list of clients: fallback=[AsyncKimi(provider='openrouter')]"
            )
        if not hosts:
            raise ConfigurationError("fallback is empty: name at least one client to go on to")
        if order not in ("in_order", "weight", "free"):
            raise ConfigurationError(f"order must be 'in_order', 'weight' or 'free'; got {order!r}")
        if hedge_after is not None and not hedge_after > 0:
            raise ConfigurationError(
                f"hedge_after must be a number of seconds above 0, or None; got {hedge_after!r}"
            )
        targets = [one if isinstance(one, FailoverTarget) else FailoverTarget(client=one) for one in hosts]
        for target in targets:
            if not callable(getattr(target.client, "build_request", None)):
                raise ConfigurationError(
                    f"fallback must hold clients (AsyncKimi) or Targets; got {type(target.client).__name__}"
                )
            if not target.weight > 0:
                raise ConfigurationError(f"weight must be above 0; got {target.weight!r}")
        self._order: Order = order
        self.longer: dict[str, str] = dict(longer or {})
        self.hedge_after = hedge_after
        self._rotation = Rotation([weight, *(target.weight for target in targets)])
        self._hosts = [_Host("", None, None, {}), *(_host_of(target) for target in targets)]

    def stands_by_for(self, client: object) -> None:
        """Tells whose calls these are: the client whose middleware this is."""
        first = _host_of(FailoverTarget(client=client))
        self._hosts[0].name, self._hosts[0].row = first.name, first.row
        self._own = client

    _own: Any = None

    async def aclose(self) -> None:
        """Closes the clients that stand by."""
        for host in self._hosts[1:]:
            await host.client.close()

    async def __call__(self, request: Request, send: Handler) -> Response:
        if not request.path.endswith(CHAT) or not isinstance(request.body, bytes):
            return await send(request)  # only chats are the same everywhere
        turn = self._rotation.next() if self._order == "weight" else 0
        now = asyncio.get_running_loop().time()
        hosts = [
            self._hosts[index]
            for index in order(
                self._order, [host.health for host in self._hosts], now, first=turn, waits=self._waits()
            )
        ]
        return await _Call(self, request, send, hosts).run()

    def _waits(self) -> list[float]:
        if self._order != "free":
            return []
        own = 0.0 if self._own is None else self._own.limiter.stats().eta
        return [own, *(host.client.limiter.stats().eta for host in self._hosts[1:])]


def _host_of(target: FailoverTarget) -> _Host:
    row = getattr(target.client, "provider", None)
    name = target.name or (row.name if row is not None else str(getattr(target.client, "base_url", "")))
    return _Host(name, row, target.client, target.models)


class _Call:
    """One request on its way over the hosts."""

    def __init__(self, failover: Failover, request: Request, send: Handler, hosts: list[_Host]) -> None:
        self.failover = failover
        self.request = request
        self.send = send
        self.hosts = hosts
        self.body: dict[str, Any] | None = None
        self.skipped: list[str] = []

    async def run(self) -> Response:
        """The first good reply; else the last host's refusal, with what had failed before it."""
        last: _Outcome | None = None
        waiting = list(self.hosts)
        while waiting:
            outcome = await self._hedged(waiting)
            if outcome is None:
                continue  # this one cannot take the request; why is in `skipped`
            if outcome.response is not None and outcome.response.status < 300:
                if last is not None:
                    self._forget(last)
                outcome.response.request.history[:] = self.request.history
                return outcome.response
            if outcome.cause == "context_length" and self._lengthen():
                waiting = list(self.hosts)
                self._forget(outcome)
                continue
            if not goes_on(outcome.cause):
                return self._final(outcome)
            if last is not None:
                self._forget(last)
            last = outcome
        if last is None:
            raise ConfigurationError("no host can take this request: " + "; ".join(self.skipped))
        return self._final(last)

    def _forget(self, outcome: _Outcome) -> None:
        """Its attempt goes into the history of the call, now that another follows."""
        if outcome.attempt is not None:
            history = self.request.history
            history.append(replace(outcome.attempt, number=len(history) + 1))
        if outcome.response is not None:
            outcome.response.close()

    def _final(self, outcome: _Outcome) -> Response:
        if outcome.error is not None:
            error = cast("Any", outcome.error)
            if hasattr(error, "attempts"):
                error.attempts = tuple(self.request.history)
            if self.skipped and hasattr(error, "given_up"):
                error.given_up = "; ".join(filter(None, (error.given_up, *self.skipped)))
            raise outcome.error
        response = cast("Response", outcome.response)
        if self.skipped:
            response.given_up = "; ".join(self.skipped)
        return response

    def _lengthen(self) -> bool:
        """Takes the model with the larger window, where the caller named one."""
        body = self._fields()
        longer = self.failover.longer.get(str(body.get("model")))
        if longer is None:
            return False
        body["model"] = longer
        self.request.body = codec.encode(body)
        return True

    def _fields(self) -> dict[str, object]:
        if self.body is None:
            self.body = cast("dict[str, object]", msgspec.json.decode(cast("bytes", self.request.body)))
        return self.body

    async def _hedged(self, waiting: list[_Host]) -> _Outcome | None:
        """Asks the next host; after `hedge_after` without an answer the one after it as well. Takes them off the list."""
        after = self.failover.hedge_after
        if after is None or len(waiting) < 2:
            host = waiting.pop(0)
            return await self._ask(host, last=not waiting)
        first = asyncio.ensure_future(self._ask(waiting.pop(0), last=False))
        tasks = [first]
        try:
            await asyncio.wait(tasks, timeout=after)
            if not first.done():
                tasks.append(asyncio.ensure_future(self._ask(waiting.pop(0), last=not waiting)))
            best: _Outcome | None = None
            while tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in [one for one in tasks if one in done]:
                    tasks.remove(task)
                    outcome = task.result()
                    if outcome is None:
                        continue
                    if outcome.response is not None and not outcome.cause:
                        return outcome
                    if best is not None:
                        self._forget(best)
                    best = outcome
            return best
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                await _ended(task)

    async def _ask(self, host: _Host, *, last: bool) -> _Outcome | None:
        """One host's answer, or None where it is known beforehand that it cannot give one."""
        loop = asyncio.get_running_loop()
        request = await self._request_for(host, last)
        if request is None:
            return None
        host.health.asked(loop.time())
        began = loop.time()
        try:
            response = await (self.send(request) if host.client is None else host.client.send(request))
        except KimiError as error:
            self._take_over(request, host)
            cause = cause_of(error)
            self._tell(host, cause)
            return _Outcome(None, error, cause, _attempt(host, cause, error, None, loop.time() - began))
        except BaseException:
            host.health.left()
            raise
        self._take_over(request, host)
        if response.status < 300:
            host.health.worked()
            _sign(response.value, host.name)
            return _Outcome(response, None, "")
        body = await response.read()
        shape = classify(response.status, response.headers, body)
        self._tell(host, shape.kind)
        refused = _attempt(host, shape.kind, None, response, loop.time() - began, shape.message, shape.type)
        return _Outcome(response, None, shape.kind, refused)

    def _tell(self, host: _Host, cause: str) -> None:
        if goes_on(cause):
            host.health.failed(asyncio.get_running_loop().time())
        else:
            host.health.worked()  # the host did its part

    def _take_over(self, request: Request, host: _Host) -> None:
        """Attempts that a host's own retries made belong to the call."""
        history = self.request.history
        history += [
            replace(one, number=len(history) + at, host=host.name)
            for at, one in enumerate(request.history, 1)
        ]
        request.history.clear()

    async def _request_for(self, host: _Host, last: bool) -> Request | None:
        """
        The request as this host takes it. While another host is left, its own retries do not repeat what failed here.
        """
        asked = self.request
        changes: dict[str, Any] = {"history": [], "max_retries": asked.max_retries if last else 0}
        if host.client is None:
            return asked.copy(**changes)
        body = self._fields()
        why = lacks(host.row, needs_of(body), own_files=False)
        if why is not None:
            self._skip(host, why)
            return None
        model = translated(str(body.get("model")), await self._listed(host), names=host.models, row=host.row)
        if model is None:
            self._skip(host, f"it has no model {body.get('model')!r}")
            return None
        names = codec.REASONING if host.row is None else host.row.request_reasoning
        messages = [_outgoing(message, names) for message in cast("list[Any]", body.get("messages") or [])]
        data = codec.encode({**body, "model": model, "messages": messages})
        try:
            request: Request = await host.client.build_request(
                "POST", "chat/completions", data, stream=asked.stream
            )
        except KimiError as error:
            self._skip(host, str(error))
            return None
        request.accept, request.history = asked.accept, []
        request.max_retries = changes["max_retries"]
        request.deadline = asked.deadline if asked.deadline is not None else request.deadline
        request.priority = asked.priority
        return request

    def _skip(self, host: _Host, why: str) -> None:
        self.skipped.append(f"{host.name} was not asked: {why}")

    async def _listed(self, host: _Host) -> tuple[str, ...] | None:
        """The ids that a host has, asked once in a while; None where it has no list."""
        now = asyncio.get_running_loop().time()
        if host.listed is None or now - host.listed[0] > LIST_AGE:
            if host.row is not None and not host.row.supports("models"):
                ids = None
            else:
                try:
                    page = await host.client.with_options(max_retries=0).models.list(timeout=LIST_PATIENCE)
                    ids = tuple(model.id for model in page.data)
                except KimiError:
                    return None  # asked again next time
            host.listed = (now, ids)
        return host.listed[1]


def _sign(value: object, name: str) -> None:
    """Says in an answer who gave it; a stream says so itself (`stream.response.url`)."""
    answer = cast("tuple[object, ...]", value)[0] if isinstance(value, tuple) else value
    if isinstance(answer, ChatCompletion):
        held(answer)["_host"] = name


def _outgoing(message: object, names: tuple[str, ...]) -> object:
    """A message under the names that the host reads; reasoning that came under another one goes along."""
    if not isinstance(message, dict):
        return message
    fields = cast("dict[str, object]", message)
    told = fields.get("reasoning_content", fields.get("reasoning"))
    if fields.get("role") != "assistant" or told is None:
        return fields
    rest = {name: value for name, value in fields.items() if name not in ("reasoning", "reasoning_content")}
    return {**rest, **dict.fromkeys(names, told)}


def _attempt(
    host: _Host,
    cause: str,
    error: KimiError | None,
    response: Response | None,
    elapsed: float,
    message: str = "",
    kind: str | None = None,
) -> Attempt:
    secrets = () if response is None else secrets_of(response.request)
    return Attempt(
        number=0,
        cause=cause,
        status=response.status if response is not None else getattr(error, "status_code", None),
        error_type=redacted(kind, secrets) if error is None else getattr(error, "type", None),
        message=redact(message or str(getattr(error, "message", error)), secrets),
        elapsed=elapsed,
        host=host.name,
    )


async def _ended(task: "asyncio.Task[_Outcome | None]") -> None:
    """Waits for a task that was cancelled; an answer that came all the same is given back."""
    await asyncio.wait((task,))
    if task.cancelled() or task.exception() is not None:
        return
    outcome = task.result()
    if outcome is not None and outcome.response is not None:
        value = outcome.response.take_value()
        close: Callable[[], Any] | None = getattr(value, "close", None)
        if close is not None and hasattr(value, "__anext__"):
            await close()
        outcome.response.close()

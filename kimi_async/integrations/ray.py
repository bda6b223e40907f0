"""
Bulk work on Ray, and a quota that its workers share.

    from kimi_async.integrations.ray import map_dataset

    answered = map_dataset(ds, model="kimi-k3", prompt="question", id="id", limits="tier5", journal="/nfs/run7")

`AsyncKimi(limits="tier5", shared="ray")` is the quota alone: it is kept by a named actor of the cluster, which is made by whoever asks
first, outlives its job, and is told again what was sent if it has to start anew.

Needs `pip install 'kimi-async[ray]'`.
"""

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..client import AsyncKimi
from ..errors import ConfigurationError
from ..middleware.rate_limit.limits import RateLimits
from ..middleware.rate_limit.shared.ledger import State, sync
from ..middleware.rate_limit.shared.message import Answer, LedgerUnavailable, Sync

__all__ = ["RayLedger", "map_dataset", "open_ledger"]

# Its actor may be on another machine, and Python runs there: slower than Redis, quick enough for answers of seconds.
TIMEOUT = 1.0
# A process for it has to be started first, and its imports take seconds on a busy machine.
START = 60.0
NAMESPACE = "kimi_async"
# Rows in one batch. What comes out of an actor is a block, and it is held until its slowest row is there.
BATCH = 64
IN_FLIGHT = 4_096


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigurationError("this needs Ray: pip install 'kimi-async[ray]'") from None


# --- a quota -----------------------------------------------------------------------------------------------------------


class LedgerActor:
    """What runs in the actor: the arithmetic, and the clock of its machine."""

    def __init__(self) -> None:
        self._state = State()

    def ready(self) -> None:
        """Answers when it is there."""

    def sync(self, message: bytes) -> bytes:
        said = msgspec.msgpack.decode(message, type=Sync)
        return msgspec.msgpack.encode(sync(self._state, said, int(time.monotonic() * 1000) + 1))


class RayLedger:
    """
    A ledger in a named actor of the Ray cluster that this process belongs to.

    :param quota: names the organisation.
    """

    patience: float = 2 * START
    """Seconds for which whoever never reached it waits before that is an error."""

    def __init__(self, quota: str = "default") -> None:
        self._ray = _ray()
        self._errors: Any = import_module("ray.exceptions")
        self.name: str = f"kimi-limits-{quota}"
        self._actor: Any = None

    def _find(self) -> object:
        if not self._ray.is_initialized():
            raise LedgerUnavailable("this process belongs to no Ray cluster: call ray.init() first")
        remote = self._ray.remote(LedgerActor)
        actor = remote.options(
            name=self.name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
        ).remote()
        try:
            self._ray.get(actor.ready.remote(), timeout=START)
        except self._errors.GetTimeoutError:
            raise LedgerUnavailable(f"the actor {self.name} did not start within {START:g} s") from None
        return actor

    async def sync(self, message: Sync) -> Answer:
        """:raises LedgerUnavailable: the actor is being started or started again, or did not answer within a second."""
        errors = self._errors
        try:
            if self._actor is None:
                self._actor = await asyncio.to_thread(self._find)  # the first look-up blocks
            reference = self._actor.sync.remote(msgspec.msgpack.encode(message))
            answer = await asyncio.wait_for(asyncio.wrap_future(reference.future()), TIMEOUT)
        except TimeoutError:
            raise LedgerUnavailable(f"the actor {self.name} did not answer within {TIMEOUT:g} s") from None
        except errors.RayActorError as error:
            if isinstance(error, errors.ActorDiedError):
                self._actor = None  # for good: the next message finds or makes another
            raise LedgerUnavailable(f"the actor {self.name} is away: {type(error).__name__}") from error
        return msgspec.msgpack.decode(answer, type=Answer)

    async def aclose(self) -> None:
        """The actor stays, for the others."""


def open_ledger(address: str, quota: str) -> RayLedger:
    return RayLedger(quota)


# --- a data set --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every actor of a run is told."""

    model: str
    prompt: str | None
    messages: str | None
    request: Callable[[dict[str, object]], Mapping[str, object]] | None
    id: str | None
    defaults: Mapping[str, object]
    response_format: object
    journal: str | None
    on_error: Literal["row", "raise"]
    timings: bool
    client: Mapping[str, Any]

    def body(self, row: dict[str, Any]) -> dict[str, object]:
        """The arguments of the call for a row."""
        if self.request is not None:
            body = dict(self.request(row))
        elif self.prompt is not None:
            body = {"messages": [{"role": "user", "content": row[self.prompt]}]}
        else:
            given = row[self.messages or ""]
            body = {"messages": json.loads(given) if isinstance(given, str) else list(given)}
        return {"model": self.model, **self.defaults, **body}


def map_dataset(
    ds: Any,
    *,
    model: str,
    prompt: str | None = None,
    messages: str | None = None,
    request: Callable[[dict[str, Any]], Mapping[str, object]] | None = None,
    id: str | None = None,
    defaults: Mapping[str, object] | None = None,
    response_format: object = None,
    actors: int = 1,
    concurrency: int | None = None,
    limits: RateLimits | str | None = None,
    shared: object = "ray",
    quota: str | None = None,
    journal: str | os.PathLike[str] | None = None,
    on_error: Literal["row", "raise"] = "row",
    timings: bool = False,
    client: Mapping[str, object] | None = None,
) -> Any:
    """
    A `ray.data.Dataset` with an answer for each row. Lazy, as all of Ray Data is.

    All columns are kept, and these added: `text` (or `parsed`, with `response_format`), `error` (None, or what went wrong), `usage`
    (prompt_tokens, completion_tokens, total_tokens) and `attempts`; with `timings` also `began` and `ended`, seconds since the epoch.
    A name that the data set has already gets `kimi_` before it. Rows may come out in another order; join by a column of yours.

    :param prompt: the column with what the user says; or `messages`, the column with whole conversations (lists, or JSON); or `request`,
        a function that makes the fields of a request of a row. Exactly one of the three.
    :param id: the column that names a row. Needed for a journal.
    :param defaults: more fields for every request: `max_completion_tokens`, `thinking`, …
    :param response_format: as for `parse`: a type, of which `parsed` holds the fields.
    :param actors: one is enough for any limit of Kimi's; more are for more processor.
    :param concurrency: rows under way in each actor at most; 4,096. What may really be under way, `limits` say.
    :param journal: a folder that every machine sees. Each actor writes a file of its own there, a line for each answer; a run that was
        killed and is started again sends nothing that was answered.
    :param on_error: `"row"` puts a failure into the row's `error`. `"raise"` fails the task, and Ray repeats, and you pay for, its batch.
    :param client: more arguments of `AsyncKimi`. Without `api_key` each worker's environment must have one.

    :raises ConfigurationError: what is wrong with which argument.
    """
    _ray()
    if sum(each is not None for each in (prompt, messages, request)) != 1:
        raise ConfigurationError("pass exactly one of prompt, messages and request")
    if journal is not None and id is None:
        raise ConfigurationError("a journal needs id: the column that names each row")
    if on_error not in ("row", "raise"):
        raise ConfigurationError(f"on_error must be 'row' or 'raise'; got {on_error!r}")
    if actors < 1 or (concurrency is not None and concurrency < 1):
        raise ConfigurationError("actors and concurrency must be 1 or more")
    job = _Job(
        model=model,
        prompt=prompt,
        messages=messages,
        request=request,
        id=id,
        defaults=dict(defaults or {}),
        response_format=response_format,
        journal=None if journal is None else os.fspath(journal),
        on_error=on_error,
        timings=timings,
        client={"limits": limits, "shared": shared, "quota": quota, **(client or {})},
    )
    in_flight = concurrency or IN_FLIGHT
    batch = min(BATCH, in_flight)
    batches = max(1, in_flight // batch)
    data: Any = import_module("ray.data")
    return ds.map_batches(
        Mapper,
        fn_constructor_args=(job,),
        batch_size=batch,
        batch_format="pyarrow",
        # Both are needed: what Ray hands to an actor at once, and what the actor takes up at once.
        compute=data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=batches),
        max_concurrency=batches,
    )


class Mapper:
    """One actor of a run: a client, and a file of the journal."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._client = AsyncKimi(**job.client)
        self._journal = None if job.journal is None else Journal(job.journal)

    async def __call__(self, table: Any) -> AsyncIterator[Any]:
        rows: list[dict[str, object]] = table.to_pylist()
        if self._journal is not None:
            self._journal.read()  # also what an actor wrote whose batch this was before it died
        outcomes = await asyncio.gather(*(self._row(row) for row in rows))
        yield with_outcomes(
            table, outcomes, parsed=self._job.response_format is not None, timings=self._job.timings
        )

    async def _row(self, row: dict[str, Any]) -> "Outcome":
        job, journal = self._job, self._journal
        began = time.time()
        try:
            body = job.body(row)
            key = "" if job.id is None else str(row[job.id])
            print_ = "" if journal is None else fingerprint(body)
            known = None if journal is None else journal.known(key, print_)
            if known is not None:
                return known
            outcome = await self._ask(body)
        except Exception as error:  # one raised row fails a task, and the whole batch would be paid again
            if job.on_error == "raise":
                raise
            attempts = len(getattr(error, "attempts", ()) or ())
            return Outcome(
                error=f"{type(error).__name__}: {error}", attempts=attempts, began=began, ended=time.time()
            )
        outcome.began, outcome.ended = began, time.time()
        if journal is not None:
            journal.write(key, print_, outcome)
        return outcome

    async def _ask(self, body: dict[str, object]) -> "Outcome":
        completions: Any = self._client.chat.completions  # the fields come from a row
        outcome = Outcome()
        completion: Any
        if self._job.response_format is not None:
            completion = await completions.parse(response_format=self._job.response_format, **body)
            outcome.parsed = msgspec.to_builtins(completion.choices[0].message.parsed)
        else:
            completion = await completions.create(**body)
        outcome.text = completion.choices[0].message.content
        usage = completion.usage
        if usage is not None:
            outcome.usage = {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            }
        outcome.attempts = 1 + len(getattr(completion, "attempts", ()) or ())
        return outcome


@dataclass(slots=True)
class Outcome:
    """What came of a row."""

    text: str | None = None
    parsed: Any = None
    error: str | None = None
    usage: dict[str, int] | None = None
    attempts: int = 0
    began: float = 0.0
    ended: float = 0.0


def with_outcomes(table: Any, outcomes: list[Outcome], *, parsed: bool, timings: bool) -> Any:
    """The table, with a column for each part of the outcomes."""
    pa: Any = import_module("pyarrow")
    counts = pa.struct(
        [(name, pa.int64()) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    )
    columns: list[tuple[str, object]] = [("text", pa.string())]
    if parsed:
        columns = [("parsed", None)]
    columns += [("error", pa.string()), ("usage", counts), ("attempts", pa.int64())]
    if timings:
        columns += [("began", pa.float64()), ("ended", pa.float64())]
    had = set(table.column_names)
    for name, kind in columns:
        values = pa.array([getattr(outcome, name) for outcome in outcomes], type=kind)
        table = table.append_column(f"kimi_{name}" if name in had else name, values)
    return table


# --- a journal of many writers -----------------------------------------------------------------------------------------


def fingerprint(body: Mapping[str, object]) -> str:
    """Tells whether a row asks what it asked before."""
    said = json.dumps(body, sort_keys=True, default=repr, ensure_ascii=False).encode()
    return hashlib.blake2b(said, digest_size=12).hexdigest()


@dataclass
class _Seen:
    offset: int = 0
    rest: bytes = field(default=b"", repr=False)


class Journal:
    """
    Answers in a folder: every writer has a file of its own and reads all. No two ever write to one file, so that nothing need be
    locked, on whatever kind of disk. A line that was cut by a crash is none.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mine = self._folder / f"{uuid.uuid4().hex}.jsonl"
        self._file = -1
        self._files: dict[str, _Seen] = {}
        self._answers: dict[tuple[str, str], Outcome] = {}
        self.read()

    def read(self) -> None:
        """Takes in what has been written since."""
        for path in sorted(self._folder.glob("*.jsonl")):
            if path == self._mine:
                continue
            seen = self._files.setdefault(path.name, _Seen())
            try:
                with path.open("rb") as file:
                    file.seek(seen.offset)
                    data = file.read()
            except OSError:
                continue  # taken away in between
            seen.offset += len(data)
            *lines, seen.rest = (seen.rest + data).split(b"\n")
            for line in lines:
                try:
                    said: Any = json.loads(line)
                    key = (said["id"], said["fingerprint"])
                    self._answers[key] = Outcome(**said["outcome"])
                except (ValueError, KeyError, TypeError):
                    continue

    def known(self, key: str, print_: str) -> Outcome | None:
        """What was answered to this row, if it asked the same."""
        return self._answers.get((key, print_))

    def write(self, key: str, print_: str, outcome: Outcome) -> None:
        """Written before it is handed out: a kill loses only what was under way."""
        if self._file < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._file = os.open(self._mine, flags, 0o600)
        fields = {name: getattr(outcome, name) for name in Outcome.__slots__}
        line = json.dumps({"id": key, "fingerprint": print_, "outcome": fields}, ensure_ascii=False)
        os.write(self._file, line.encode("utf-8", "surrogatepass") + b"\n")
        self._answers[(key, print_)] = outcome

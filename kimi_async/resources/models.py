"""
`client.models`: what can be asked.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Unpack

import msgspec

from ..config import hide
from ..errors import APIResponseValidationError, ConfigurationError, KimiError, NotFoundError
from ..providers.hosts import foreign_model_message
from ..providers.ids import gateway_of_model_id
from ..types._base import Reply
from ..types.models import Model
from ._base import Resource
from .arguments import path_segment, with_query
from .caller import Caller, CallOptions
from .pagination import AsyncPage, AsyncPaginator

__all__ = ["AsyncModels", "explain_missing_model"]


class ModelList(Reply):
    __children__: ClassVar[tuple[str, ...]] = ("data",)

    data: list[Model] = msgspec.field(default_factory=list[Model])
    object: str = "list"


class AsyncModels(Resource["RawModels", "StreamingModels"]):
    """Models. The list is live: ids come and go (`kimi-k2.5` went on 2026-08-31), so ask rather than guess."""

    def list(
        self,
        **call: Unpack[CallOptions],
    ) -> AsyncPaginator[Model, AsyncPage[Model]]:
        """All models of the account. Await it for the page, or iterate it; Kimi gives all of them on one page."""

        hide(call)

        async def fetch(params: Mapping[str, object]) -> AsyncPage[Model]:
            reply = await self._client.request(
                "GET",
                "models",
                ModelList,
                **with_query(call, params),
            )
            return AsyncPage(reply.data, object=reply.object)

        return AsyncPaginator(fetch)

    async def retrieve(
        self,
        model: str,
        **call: Unpack[CallOptions],
    ) -> Model:
        """
        One model by its id.

        Kimi documents no endpoint for this; where `GET /models/{id}` gives 404, or no model, the list is searched.

        :raises NotFoundError: no such model, or none that this key may use.
        """
        hide(call)
        segment = path_segment("model", model)
        try:
            return await self._client.request(
                "GET",
                f"models/{segment}",
                Model,
                **call,
            )
        except (NotFoundError, APIResponseValidationError) as missing:
            async for each in self.list(**call):
                if each.id == model:
                    return each
            raise missing

    async def resolve(
        self,
        model: str,
        **call: Unpack[CallOptions],
    ) -> Model:
        """
        The model that a name means on this host: `"kimi-k2.6"` is `moonshotai/kimi-k2.6` at OpenRouter.

        Asks `GET /models` instead of guessing. An id that exists is itself; otherwise the one id that names the same model,
        whatever gateway's form either has.

        :raises ConfigurationError: there is none, or more than one; the ids that exist are told.
        """
        hide(call)
        path_segment("model", model)
        known = [each async for each in self.list(**call)]
        for each in known:
            if each.id == model:
                return each
        wanted = _canonical(model)
        same = [each for each in known if _canonical(each.id) == wanted]
        if len(same) == 1:
            return same[0]
        ids = ", ".join(each.id for each in (same or known)[:50]) or "none"
        told = foreign_model_message(model, self._client.provider) or ""
        raise ConfigurationError(
            f"{model!r} could be any of {ids}; say which"
            if same
            else f"there is no model {model!r} on this host, which has {ids}. {told}".rstrip()
        )


def _canonical(model: str) -> str:
    """
    A model's name without what gateways add: `kimi-k2.6` for `moonshotai/kimi-k2.6`, `moonshot/kimi-k2-6` and `Kimi-K2.6`.
    """
    gateway = gateway_of_model_id(model)
    name = (gateway.official_id if gateway is not None else model).lower()
    return name.rpartition("/")[2].replace("-", "").replace(".", "")


async def explain_missing_model(client: Caller, model: str, error: NotFoundError) -> None:
    """
    Adds to the error, where the id has another gateway's form, whose form it is and which ids exist here.

    Asks for the list of models once, for five seconds at most; without an answer the error is only shorter.
    """
    if gateway_of_model_id(model) is None:
        return
    known: tuple[str, ...] = ()
    try:
        models = AsyncModels(client.with_options(max_retries=0))
        known = tuple([each.id async for each in models.list(timeout=5.0)])
    except KimiError:
        pass
    told = foreign_model_message(model, client.provider, known[:50])
    if told:
        error.message = f"{error.message}. {told}"
        error.args = (error.message,)


if TYPE_CHECKING:
    from .raw_replies import WithRawResponse, WithStreamingResponse, raw, streaming

    class RawModels(WithRawResponse):
        list: Final = raw(AsyncModels.list)
        retrieve: Final = raw(AsyncModels.retrieve)
        resolve: Final = raw(AsyncModels.resolve)

    class StreamingModels(WithStreamingResponse):
        list: Final = streaming(AsyncModels.list)
        retrieve: Final = streaming(AsyncModels.retrieve)
        resolve: Final = streaming(AsyncModels.resolve)

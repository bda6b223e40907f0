"""
The 400s and 404s of the simulator: what Kimi refuses before it generates anything.

`check_chat` returns the first refusal, or None. Texts in quotes below were captured on the official host or
stand in its documentation (platform.kimi.ai/docs/api/errors, /chat, /guide/kimi-k3-quickstart); for the rest
the status and the type are known and the wording is ours. Unknown top-level fields pass, as they do live.
"""

import re
from collections.abc import Mapping, Sequence

from ...providers.models import ModelInfo
from ...schema import check_mfjs
from .chat_model import estimate_tokens, partial_message
from .models import budget_default, family, find_model, thinking_enabled
from .replies import Refusal
from .words import as_list, as_object

__all__ = ["budget_of", "check_chat", "check_estimate", "check_model", "stop_words"]


def _is_list(value: object) -> bool:
    """`isinstance` without narrowing, so that what is inside stays `Any` for the type checkers."""
    return isinstance(value, list)


def _bad(message: str) -> Refusal:
    return Refusal(400, "invalid_request_error", message)


def check_chat(
    request: Mapping[str, object], models: Sequence[ModelInfo], *, strict: bool = False
) -> Refusal | None:
    """The first thing wrong with the body of `POST /v1/chat/completions`; `strict` misses reasoning on K3 as on K2."""
    refusal = check_model(request, models)
    if refusal is not None:
        return refusal
    model = find_model(models, request.get("model"))
    assert model is not None
    for check in (
        _check_plain,
        _check_sampling,
        _check_thinking,
        _check_tools,
        _check_tool_choice,
        _check_format,
    ):
        refusal = check(request, model)
        if refusal is not None:
            return refusal
    refusal = _check_messages(request, model, strict)
    if refusal is not None:
        return refusal
    prompt = estimate_tokens(request)
    if prompt + budget_of(request, model, explicit=True) > model.context:
        requested = prompt + budget_of(request, model, explicit=True)
        return _bad(
            f"Invalid request: Your request exceeded model token limit: {model.context} "
            f"(requested: {requested})"
        )
    return None


def check_estimate(request: Mapping[str, object], models: Sequence[ModelInfo]) -> Refusal | None:
    """The first thing wrong with the body of `POST /v1/tokenizers/estimate-token-count`."""
    refusal = check_model(request, models)
    if refusal is None and not as_list(request.get("messages")):
        refusal = _bad("Invalid request: messages is required")
    return refusal


def check_model(request: Mapping[str, object], models: Sequence[ModelInfo]) -> Refusal | None:
    """A missing model is a 400; one that is unknown or was removed is a 404."""
    name = request.get("model")
    if not isinstance(name, str) or not name:
        return _bad("Invalid request: model is required")
    if find_model(models, name) is None:
        return Refusal(404, "resource_not_found_error", f"Not found the model {name} or Permission denied")
    return None


def budget_of(request: Mapping[str, object], model: ModelInfo, *, explicit: bool = False) -> int:
    """
    `max_completion_tokens`, else its old name `max_tokens`, else the model's default.

    With `explicit` an omitted budget counts 0: only a budget that was asked for can overflow the context.
    """
    for key in ("max_completion_tokens", "max_tokens"):
        value = request.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0 if explicit else budget_default(model)


def stop_words(request: Mapping[str, object]) -> list[str]:
    """`stop` as a list."""
    stop = request.get("stop")
    return [stop] if isinstance(stop, str) else [word for word in as_list(stop) if isinstance(word, str)]


# --- fields ---------------------------------------------------------------------------------------------


def _check_plain(request: Mapping[str, object], model: ModelInfo) -> Refusal | None:
    for key in ("stream", "logprobs"):
        if request.get(key) is not None and not isinstance(request[key], bool):
            return _bad(f"Invalid request: {key} must be a boolean")
    for key in ("max_completion_tokens", "max_tokens"):
        value = request.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            return _bad(f"Invalid request: {key} must be a positive integer")
    stop = request.get("stop")
    if stop is not None:
        words: object = [stop] if isinstance(stop, str) else stop
        if not _is_list(words) or not all(isinstance(word, str) for word in as_list(words)):
            return _bad("Invalid request: stop must be a string or an array of strings")
        words = stop_words(request)
        if len(words) > 5:
            return _bad(f"stop array too long. Expected an array with maximum length 5, but got {len(words)}")
        if any(len(word.encode()) > 32 for word in words):
            return _bad("Invalid request: a stop sequence must not be longer than 32 bytes")
    top = request.get("top_logprobs")
    if top is not None and (
        not isinstance(top, int) or not 0 <= top <= 20 or request.get("logprobs") is not True
    ):
        return _bad("Invalid request: top_logprobs must be between 0 and 20 and requires logprobs")
    effort = request.get("reasoning_effort")
    if effort is not None and not isinstance(effort, str):
        # Unknown strings are tolerated on the official chat face.
        return _bad("Invalid request: reasoning_effort must be a string")
    return None


def _check_sampling(request: Mapping[str, object], model: ModelInfo) -> Refusal | None:
    """Every current model has its sampling fixed: only the fixed value may be sent."""
    thinking = thinking_enabled(model, request)
    # Without thinking 0.6 is K2.6's; that K3, where it can be switched off, takes both is only believed.
    temperature = 1 if thinking or (family(model) == "k3" and request.get("temperature") != 0.6) else 0.6
    fixed = {"temperature": temperature, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
    for key, only in fixed.items():
        value = request.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or value != only
        ):
            return _bad(f"invalid {key}: only {only} is allowed for this model")
    return None


def _check_thinking(request: Mapping[str, object], model: ModelInfo) -> Refusal | None:
    raw = request.get("thinking")
    if raw is None:
        return None
    thinking = as_object(raw)
    if thinking is None or thinking.get("type", "enabled") not in ("enabled", "disabled"):
        return _bad("invalid thinking: type must be enabled or disabled")
    if unknown := sorted(thinking.keys() - {"type", "keep", "effort", "budget_tokens"}):
        return _bad(f"invalid thinking: unknown field {unknown[0]}")
    if family(model) == "k2.7" and thinking.get("type", "enabled") != "enabled":
        return _bad("invalid thinking: only type=enabled is allowed for this model")
    if thinking.get("keep") not in (None, "all"):
        return _bad("invalid thinking: keep must be null or all")
    if thinking.get("effort") not in (None, "low", "high", "max"):
        return _bad("invalid thinking: effort must be low, high or max")
    if family(model) == "k2.6" and request.get("reasoning_effort") is not None:
        # Seen on kimi-k2.5, and documented as not allowed on its successors.
        return _bad("cannot specify both 'thinking' and 'reasoning_effort'")
    return None


# --- tools ----------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,255}\Z")


def _check_tools(request: Mapping[str, object], model: ModelInfo) -> Refusal | None:
    tools = request.get("tools")
    if tools is not None and not _is_list(tools):
        return _bad("Invalid request: tools must be an array")
    if len(as_list(tools)) > 128:
        return _bad("Invalid request: at most 128 tools are supported")
    seen: set[str] = set()
    refusal = _check_definitions(as_list(tools), seen)
    if refusal is not None:
        return refusal
    for raw in as_list(request.get("messages")):
        message = as_object(raw) or {}
        if "tools" not in message:
            continue
        if message.get("role") != "system":
            return _bad("Invalid request: tools are only allowed in system messages")
        if message.get("content"):
            return _bad("Invalid request: a message with tools must not have content")
        if not _is_list(message["tools"]):
            return _bad("Invalid request: tools must be an array")
        refusal = _check_definitions(as_list(message["tools"]), seen)
        if refusal is not None:
            return refusal
    return None


def _check_definitions(tools: Sequence[object], seen: set[str]) -> Refusal | None:
    for raw in tools:
        tool = as_object(raw) or {}
        kind = tool.get("type", "")
        if kind not in ("function", "builtin_function", "plugin"):
            return _bad(
                f"Invalid request: unknown tool type: {kind}, "
                "currently only function and plugin are supported"
            )
        function = as_object(tool.get("function"))
        if function is None:
            return _bad("Invalid request: a tool must have a function")
        name = function.get("name")
        if kind == "builtin_function":
            if not isinstance(name, str) or not name.startswith("$"):
                return _bad(f"Invalid request: unknown builtin function: {name}")
            continue
        if not isinstance(name, str) or not _NAME.match(name):
            return _bad(
                f"Invalid request: function name {name!r} is invalid, "
                "must match ^[a-zA-Z_][a-zA-Z0-9-_]{0,255}$"
            )
        if name in seen:
            return _bad(f"Invalid request: function name {name} is duplicated")
        seen.add(name)
        strict = function.get("strict", True)
        if not isinstance(strict, bool):
            return _bad("Invalid request: strict must be a boolean")
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            return _bad(f"Invalid request: parameters of function {name} must be an object")
        faults = check_mfjs(parameters, level="strict") if strict and parameters is not None else []
        if faults:
            return _bad(f"Invalid request: function {name}: {_at_path(faults[0])}")
    return None


def _check_tool_choice(request: Mapping[str, object], model: ModelInfo) -> Refusal | None:
    choice = request.get("tool_choice")
    if choice is None or choice in ("auto", "none"):
        return None
    thinking = thinking_enabled(model, request)
    if choice == "required":
        if thinking and family(model) != "k3":
            return _bad("tool_choice 'required' is incompatible with thinking enabled")
        # Those that system messages declare along the way count as well (K3's dynamic tools).
        if not _tools_anywhere(request):
            return _bad("tool_choice 'required' needs tools")
        return None
    fields = as_object(choice)
    function = as_object((fields or {}).get("function"))
    if fields is None or fields.get("type") != "function" or function is None:
        return _bad(f"Invalid request: invalid tool_choice: {choice}")
    if thinking:
        return _bad("tool_choice 'specified' is incompatible with thinking enabled")
    names = [
        (as_object((as_object(tool) or {}).get("function")) or {}).get("name")
        for tool in _tools_anywhere(request)
    ]
    if function.get("name") not in names:
        return _bad(f"Invalid request: tool_choice names an unknown function: {function.get('name')}")
    return None


def _tools_anywhere(request: Mapping[str, object]) -> list[object]:
    dynamic = (as_list((as_object(raw) or {}).get("tools")) for raw in as_list(request.get("messages")))
    return [*as_list(request.get("tools")), *(tool for tools in dynamic for tool in tools)]


def _check_format(request: Mapping[str, object], model: ModelInfo) -> Refusal | None:
    raw = request.get("response_format")
    if raw is None:
        return None
    fields = as_object(raw)
    kind = (fields or {}).get("type")
    if fields is None or kind not in ("text", "json_object", "json_schema"):
        return _bad(f"Invalid request: unknown response_format type: {kind}")
    if kind == "json_object" and partial_message(request) is not None:
        # The documentation says not to combine the two; the simulator refuses what it says.
        return _bad("Invalid request: partial is incompatible with response_format json_object")
    if kind != "json_schema":
        return None
    schema = as_object(fields.get("json_schema"))
    if schema is None or not isinstance(schema.get("name"), str) or not schema["name"]:
        return _bad("Invalid request: response_format.json_schema.name is required")
    if not isinstance(schema.get("strict", True), bool):
        return _bad("Invalid request: response_format.json_schema.strict must be a boolean")
    if not isinstance(schema.get("schema"), dict):
        return _bad("Invalid request: response_format.json_schema.schema must be an object")
    strict = schema.get("strict", True)
    faults = check_mfjs(schema["schema"], level="strict") if strict else []
    return _bad(f"Invalid request: response_format: {_at_path(faults[0])}") if faults else None


def _at_path(problem: str) -> str:
    """A sentence of `check_mfjs` as the servers' validator words its place."""
    pointer, _, text = problem.partition(": ")
    return f"At path '{'' if pointer == '/' else pointer}': {text}"


# --- messages -------------------------------------------------------------------------------------------


def _check_messages(request: Mapping[str, object], model: ModelInfo, strict: bool) -> Refusal | None:
    messages = request.get("messages")
    if not _is_list(messages) or not messages:
        return _bad("Invalid request: messages is required")
    thinking = thinking_enabled(model, request)
    partial = partial_message(request)
    listed = as_list(messages)
    waiting: list[str] = []  # ids of calls that still need their answer
    for position, raw in enumerate(listed):
        message = as_object(raw)
        if message is None:
            return _bad("Invalid request: tokenization failed")
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            return _bad(f"Invalid request: invalid role: {role}")
        if waiting and role != "tool":
            return _missing(waiting)
        if role == "tool":
            id_ = message.get("tool_call_id")
            if not isinstance(id_, str) or id_ not in waiting:
                return _bad(f"tool_call_id {id_ if isinstance(id_, str) else ''} is not found")
            waiting.remove(id_)
        refusal = _check_content(message, position, partial is message)
        if refusal is not None:
            return refusal
        if role != "assistant":
            continue
        calls = as_list(message.get("tool_calls"))
        if (
            calls
            and thinking
            and (strict or family(model) != "k3")
            and not isinstance(message.get("reasoning_content"), str)
        ):
            return _bad(
                "thinking is enabled but reasoning_content is missing in assistant tool call message "
                f"at index {position}"
            )
        for call in calls:
            id_ = (as_object(call) or {}).get("id")
            if not isinstance(id_, str) or not id_:
                return _bad("Invalid request: a tool call must have an id")
            if id_ in waiting:
                return _bad(f"Invalid request: tool_call_id {id_} is duplicated")
            waiting.append(id_)
    return _missing(waiting) if waiting else None


def _missing(ids: list[str]) -> Refusal:
    return _bad(
        "an assistant message with 'tool_calls' must be followed by tool messages responding to each "
        f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(ids)}"
    )


def _check_content(message: Mapping[str, object], position: int, is_partial: bool) -> Refusal | None:
    role, content = message.get("role"), message.get("content")
    if "tools" in message and role == "system":
        return None
    if isinstance(content, list):
        for raw in as_list(message["content"]):
            refusal = _check_part(as_object(raw))
            if refusal is not None:
                return refusal
    elif content is not None and not isinstance(content, str):
        return _bad("Invalid request: tokenization failed")
    if content or message.get("tool_calls"):
        return None
    if role == "assistant" and not (is_partial and (message.get("reasoning_content") or message.get("name"))):
        return _bad(f"the message at position {position} with role 'assistant' must not be empty")
    if role == "user" and content is None:
        return _bad("Invalid request: content is required")
    return None


def _check_part(part: Mapping[str, object] | None) -> Refusal | None:
    kind = (part or {}).get("type")
    if part is None or kind not in ("text", "image_url", "video_url"):
        return _bad("Invalid request: tokenization failed")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            return _bad("Invalid request: tokenization failed")
        return _bad("text content is empty") if part["text"] == "" else None
    inner = as_object(part.get(kind))
    url: object = part.get(kind) if inner is None else inner.get("url")
    if not isinstance(url, str) or not url.startswith(("data:", "ms://")):
        return _bad("unsupported image url")
    return None

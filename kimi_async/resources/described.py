"""
What `help()` says of the options that several methods take by name, and whose signatures show only `**params`.
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

__all__ = ["CALL", "CHAT", "describes"]

F = TypeVar("F", bound=Callable[..., object])

CALL = """
Options of every call:

:param timeout: seconds for each phase, a `Timeout`, or None for no limit; in place of the client's.
:param extra_headers: headers for this call; None as a value takes one away.
:param extra_query: query parameters for this call.
:param extra_body: fields that are merged over the named ones, for what this client does not know.
"""

SENT = """
Options that are sent as they are given, and not sent where they are not given. Kimi fixes `temperature`, `top_p`, `n` and the
penalties per model and answers 400 to other values.

:param max_completion_tokens: budget for reasoning, content and tool arguments together; charged against tokens per minute when
    the request arrives. `max_tokens` is its old name.
:param reasoning_effort: K3 family: `"low"`, `"high"` or `"max"`.
:param thinking: K2 family: `{"type": "disabled"}` (K2.6), `{"keep": "all"}` to preserve earlier reasoning.
:param tool_choice: `"auto"`, `"none"`, `"required"` or a tool by name; `parallel_tool_calls` allows several at once.
:param stop: at most 5 strings of at most 32 bytes.
:param prompt_cache_key: a stable id of the conversation or task, which raises the rate of cache hits.
:param prompt_cache_options: `{"mode": "implicit", "ttl": "5m"}`, or `"1h"`; `prompt_cache_retention` is OpenAI's.
:param safety_identifier: a stable, hashed id of the end user; `user` is its old name.
:param stream_options: `{"include_usage": True}`.
:param logprobs: with `top_logprobs`, log probabilities of the tokens.

Also audio, frequency_penalty, function_call, functions, logit_bias, metadata, modalities, moderation, n, prediction,
presence_penalty, seed, service_tier, store, temperature, top_p, verbosity and web_search_options: code written for OpenAI sends
them, and the server decides.
"""

LEAKED = """
:param leaked_tools: `"mend"` makes calls of tool markup that a host left in the text (`<|tool_call_begin|>…`), where it is whole
    and the tool was offered; `"warn"`, the default, tells a whole answer that holds some as a `KimiWarning`; `"off"` does not look.
:param gather: with a stream, seconds (0.05: 20 times a second) for which what comes after the first token may gather, so that
    one wake-up brings many chunks: for those who need not each of them at once. 5 at most.
"""

CHAT = SENT + LEAKED + CALL


def describes(text: str) -> Callable[[F], F]:
    """Adds the text to the method's docstring."""

    def change(method: F) -> F:
        if method.__doc__ is not None:  # python -OO has none
            method.__doc__ = f"{inspect.cleandoc(method.__doc__)}\n{text}"
        return method

    return change

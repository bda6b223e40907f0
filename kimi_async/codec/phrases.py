"""
What hosts say when they refuse, and what it means: one row a phrase, with where it was read.

A row's pattern is searched in the message in lower case, and only if one of its `words` is there. `statuses` says under which
replies it is believed; errors in a stream, which have no status of their own, are always looked through. The words of a refusal
may quote the request: where a phrase is common speech, it is believed only under the statuses that mean it anyway.

Each `said` is a text of the source, and a test.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = ["PHRASES", "Phrase", "meant"]

Meaning = Literal["quota", "overloaded", "context_length", "content_filter", "too_large", "unavailable"]


class Phrase(NamedTuple):
    """One wording of one cause."""

    kind: Meaning
    words: tuple[str, ...]
    pattern: str
    said: str
    statuses: frozenset[int]
    source: str


# Under these a refusal is about money, permission or limits whatever it says, and common words may be believed.
_ACCOUNT = frozenset((402, 403, 429))
_ANY = frozenset((400, 402, 403, 412, 413, 422, 429, 500, 502, 503))
_SIZE = frozenset((400, 413, 422, 500, 502))
_BAD = frozenset((400, 403, 422, 451))

_KIMI = "platform.kimi.ai/docs/api/errors"
_KIMI_CLIENT = "github.com/MoonshotAI/kimi-code, packages/kosong, kimi-errors"
_KIMI_PLAN = "www.kimi.com/code/docs/en/kimi-code/error-reference.html"
_OPENAI = "platform.openai.com/docs/guides/error-codes"
_NEW_API = "github.com/QuantumNous/new-api/issues/6306"
_VLLM = "github.com/vllm-project/vllm, vllm/entrypoints and vllm/renderers"
_TGI = "github.com/huggingface/chat-ui/issues/340"
_DASHSCOPE = "help.aliyun.com/zh/model-studio/error-code"
_ARK = "www.volcengine.com/docs/82379/1299023"
_OPENROUTER = "openrouter.ai/docs/api/reference/errors-and-debugging"

PHRASES: tuple[Phrase, ...] = (
    # --- money, or a plan that is used up
    Phrase(
        "quota", ("quota",), r"exceeded?\s+(?:your\s+)?current\s+(?:token\s+)?quota",
        "You exceeded your current token quota: 1, please check your account balance", _ANY, _KIMI,
    ),
    Phrase(
        "quota", ("balance",), r"check\s+your\s+account\s+balance",
        "please check your account balance", _ACCOUNT, _KIMI,
    ),
    Phrase(
        "quota", ("balance", "credit", "quota", "funds"),
        r"(?:insufficient|not\s+enough|low)\s+(?:account\s+)?(?:balance|credits?|quota|funds)"
        r"|(?:balance|quota|credits?)\s+(?:is|are)\s+(?:insufficient|exhausted|used\s+up|not\s+enough)",
        "Insufficient Balance", _ANY, "api-docs.deepseek.com/quick_start/error_codes",
    ),
    Phrase(
        "quota", ("balance", "credit"), r"(?:credit\s+)?balance\s+is\s+(?:too\s+)?low",
        "Your credit balance is too low to access the API. Please go to Plans & Billing to upgrade or purchase credits.",
        _ANY, "docs.anthropic.com/en/api/errors",
    ),
    Phrase(
        "quota", ("recharge",), r"recharge\s+your\s+account|please\s+recharge",
        "Your account is suspended, please recharge your account", _ACCOUNT, _KIMI_CLIENT,
    ),
    Phrase(
        "quota", ("arrear", "overdue", "good standing"),
        r"account\s+(?:is\s+)?in\s+arrears|\barrearage\b|overdue\s+(?:account|balance|payment)|account\s*overdue"
        r"|make\s+sure\s+your\s+account\s+is\s+in\s+good\s+standing",
        "Access denied, please make sure your account is in good standing.", _ANY, _DASHSCOPE,
    ),
    Phrase(
        "quota", ("overdue",), r"account\s+has\s+an\s+overdue\s+balance",
        "The request failed because your account has an overdue balance.", _ANY, _ARK,
    ),
    Phrase(
        "quota", ("spend", "budget"),
        r"(?:spending|spend|budget)\s+limit|budget\s+has\s+been\s+exceeded|exceeded\s+(?:your\s+|the\s+)?budget|max\s+budget",
        "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0", _ANY, "docs.litellm.ai/docs/proxy/error_reference",
    ),
    Phrase(
        "quota", ("spending",), r"suspended.{0,80}spending\s+limit",
        "Your account is suspended, possibly due to reaching the monthly spending limit.", _ANY,
        "docs.fireworks.ai/guides/quotas_usage/account-quotas",
    ),
    Phrase(
        "quota", ("key limit",), r"\bkey\s+limit\s+exceeded",
        "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys", _ANY,
        "github.com/MCPJam/inspector/issues/1287",
    ),
    Phrase(
        "quota", ("额度", "余额", "欠费", "充值"), r"额度不足|预扣费额度失败|余额不足|已欠费|账户欠费|请充值",
        "预扣费额度失败, 用户剩余额度: ¥0.230000, 需要预扣费额度: ¥0.290000", _ANY, _NEW_API,
    ),
    Phrase("quota", ("额度",), r"用户额度不足", "用户额度不足, 剩余额度: ¥0.000000", _ANY, _NEW_API),
    Phrase(
        "quota", ("quota is not enough",), r"quota\s+is\s+not\s+enough",
        "token quota is not enough, token remain quota: 1, need quota: 2", _ANY, _NEW_API,
    ),
    Phrase(
        "quota", ("suspended", "disabled", "not active"),
        r"is\s+suspended|account\s+has\s+been\s+disabled|is\s+not\s+active",
        "Your account org-1 is suspended, please check your plan and billing details", _ACCOUNT, _KIMI,
    ),
    Phrase(
        "quota", ("billing", "credit"), r"plan\s+and\s+billing\s+details|out\s+of\s+credits?|billing\s+cycle",
        "You exceeded your current quota, please check your plan and billing details.", _ACCOUNT, _OPENAI,
    ),
    Phrase(
        "quota", ("usage limit", "quota", "membership"),
        r"(?:your|monthly|weekly[^.]{0,20}|5-hour)\s+usage\s+limit|quota\s+will\s+be\s+refreshed|membership\s+benefits",
        "You've reached your weekly usage limit", _ACCOUNT, _KIMI_PLAN,
    ),
    Phrase(
        "quota", ("included",), r"exceeded\s+your\s+monthly\s+included\s+credits",
        "You have exceeded your monthly included credits for Inference Providers.", _ANY,
        "huggingface.co/docs/inference-providers/pricing",
    ),
    # --- no capacity
    Phrase(
        "overloaded", ("overloaded", "too many"),
        r"engine\s+is\s+currently\s+overloaded|receiving\s+too\s+many\s+requests\s+at\s+the\s+moment",
        "The engine is currently overloaded, please try again later", _ACCOUNT, _KIMI,
    ),
    Phrase(
        "unavailable", ("degraded",), r"degraded\s+function\s+cannot\s+be\s+invoked",
        "Function id '1' version id '2': DEGRADED function cannot be invoked", frozenset((400, 404, 500)),
        "forums.developer.nvidia.com, NIM",
    ),
    # --- larger than a limit: waiting does not help
    Phrase(
        "too_large", ("request too large",), r"request\s+too\s+large\b.{0,400}\blimit\s+\d+,\s+requested\s+\d+",
        "Request too large for model `llama-3.1-8b-instant` in organization `org_1` service tier `on_demand` on tokens per "
        "minute (TPM): Limit 6000, Requested 6294, please reduce your message size and try again.",
        frozenset((400, 413, 429)), "github.com/elizaOS/eliza/issues/4040",
    ),
    # --- longer than the model
    Phrase(
        "context_length", ("token limit",),
        r"request.{0,80}exceed.{0,80}model\s+token\s+limit|exceeded\s+model\s+token\s+limit",
        "Invalid request: Your request exceeded model token limit: 262144", _SIZE, _KIMI,
    ),
    Phrase(
        "context_length", ("too long",), r"input\s+token\s+length\s+too\s+long", "Input token length too long", _SIZE, _KIMI
    ),
    Phrase(
        "context_length", ("context length",),
        r"maximum\s+context\s+length|longer\s+than\s+the\s+model'?s\s+(?:maximum\s+)?context\s+length",
        "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens", _SIZE,
        "github.com/vllm-project/vllm/issues/20409",
    ),
    Phrase(
        "context_length", ("context",),
        r"context_length_exceeded|exceeds?\s+the\s+(?:model'?s\s+)?(?:maximum\s+)?context\s+(?:length|window|size)"
        r"|context\s+(?:length|window|size)\s+(?:is\s+)?(?:exceeded|too\s+long)|exceeds?\s+(?:the\s+)?available\s+context\s+size",
        "Context length exceeded", _SIZE, _OPENAI,
    ),
    Phrase(
        "context_length", ("you passed",),
        r"you\s+passed\s+\d+\s+input\s+(?:tokens|characters)(?:\s+and\s+requested\s+\d+\s+output\s+tokens)?",
        "You passed 40961 input tokens and requested 100 output tokens. However, the model's context length is only 40960 "
        "tokens, resulting in a maximum input length of 40860 tokens.", _SIZE, _VLLM,
    ),
    Phrase(
        "context_length", ("prompt is too long", "prompt too long", "input is too long"),
        r"(?:prompt|input)\s+(?:is\s+)?too\s+long\b",
        "prompt is too long: 208310 tokens > 200000 maximum", _SIZE, "docs.anthropic.com/en/build-with-claude/context-windows",
    ),
    Phrase(
        "context_length", ("max_seq_len", "max_total_tokens"),
        r"max_total_tokens.{0,60}must\s+be\s+less\s+than\s+or\s+equal\s+to\s+max_seq_len",
        "max_total_tokens (9000) must be less than or equal to max_seq_len (8192)", _SIZE,
        "github.com/NVIDIA/TensorRT-LLM",
    ),
    Phrase(
        "context_length", ("max_new_tokens",), r"`?inputs`?\s+tokens\s+\+\s+`?max_new_tokens`?\s+must\s+be",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1512. Given: 1000 `inputs` tokens and 1024 "
        "`max_new_tokens`", _SIZE, _TGI,
    ),
    Phrase(
        "context_length", ("must have less than",), r"`?inputs`?\s+must\s+have\s+less\s+than\s+\d+\s+tokens",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 1168", _SIZE,
        "github.com/huggingface/text-generation-inference/issues/695",
    ),
    Phrase(
        "context_length", ("range of input length",), r"range\s+of\s+input\s+length\s+should\s+be\s+\[",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 258048]", _SIZE,
        "github.com/CortexReach/memory-lancedb-pro/issues/251",
    ),
    Phrase(
        "context_length", ("exceeded max", "exceeds max"), r"exceed(?:ed|s)\s+max(?:imum)?\s+(?:input\s+)?tokens",
        "Exceeded max tokens", _SIZE, "docs.sambanova.ai/cloud/docs/api-reference/errors",
    ),
    Phrase(
        "context_length", ("input token count", "maximum number of tokens"),
        r"input\s+token\s+count\b.{0,60}\bexceeds\s+the\s+maximum\s+number\s+of\s+tokens",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", _SIZE,
        "ai.google.dev/gemini-api/docs/troubleshooting",
    ),
    Phrase(
        "context_length", ("is longer than", "too many tokens", "reduce the length"),
        r"(?:input|prompt)\s*(?:\(\d+\s+tokens\)\s*)?is\s+longer\s+than\s+the\s+(?:model|maximum)|too\s+many\s+(?:input\s+)?tokens"
        r"|reduce\s+the\s+length\s+of\s+the\s+(?:messages|prompt|input)",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).", _SIZE,
        "github.com/sgl-project/sglang",
    ),
    # --- moderation
    Phrase("content_filter", ("high risk",), r"considered\s+high\s+risk", "The request was rejected because it was considered high risk", _BAD, _KIMI),
    Phrase(
        "content_filter", ("inappropriate content",), r"may\s+contain\s+inappropriate\s+content",
        "Input data may contain inappropriate content.", _BAD, _DASHSCOPE,
    ),
    Phrase(
        "content_filter", ("sensitive information",), r"(?:input|output)\s+\w+\s+may\s+contain\s+sensitive\s+information",
        "The request failed because the input text may contain sensitive information.", _BAD, _ARK,
    ),
    Phrase(
        "content_filter", ("敏感", "违规"), r"不安全或敏感内容|包含敏感内容|内容违规",
        "系统检测到输入或生成内容可能包含不安全或敏感内容", _BAD, "docs.bigmodel.cn/cn/faq/api-code",
    ),
    Phrase(
        "content_filter", ("usage guidelines",), r"content\s+violates\s+usage\s+guidelines",
        "Content violates usage guidelines.", _BAD, "github.com/Wei-Shaw/sub2api/pull/5359",
    ),
)  # fmt: skip


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def meant(text: str, status: int | None) -> Meaning | None:
    """
    What a message means, the first row that fits; None if no row does.

    :param text: the message in lower case.
    :param status: None for an error in a stream, or for a text that another host's reply quotes.
    """
    for row in PHRASES:
        if (
            (status is None or status in row.statuses)
            and any(word in text for word in row.words)
            and _compiled(row.pattern).search(text) is not None
        ):
            return row.kind
    return None

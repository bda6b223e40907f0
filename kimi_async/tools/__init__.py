"""
Functions that a model may call: `@tool` describes one, the run calls them in turn until the model is content.

May use schema, streaming and types, and from outside anyio.
"""

from .function import (
    EchoTool,
    FunctionTool,
    Tool,
    ToolArgumentsError,
    ToolContext,
    ToolError,
    parse_docstring,
    result_text,
    tool,
    tool_from,
    web_search,
)

__all__ = [
    "EchoTool",
    "FunctionTool",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolError",
    "parse_docstring",
    "result_text",
    "tool",
    "tool_from",
    "web_search",
]

"""
Functions that a model may call: `@tool` describes one, the run calls them in turn until the model is content.

May use schema, streaming and types, and from outside anyio.
"""

from .base import EchoTool, Tool, ToolArgumentsError, ToolContext, ToolError, result_text, web_search
from .docstrings import parse_docstring
from .function import FunctionTool, tool, tool_from
from .leaks import Leak, LeakedCall, LeakedToolsError, find_leak

__all__ = [
    "EchoTool",
    "FunctionTool",
    "Leak",
    "LeakedCall",
    "LeakedToolsError",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolError",
    "find_leak",
    "parse_docstring",
    "result_text",
    "tool",
    "tool_from",
    "web_search",
]

"""
`python -m asyncio` for input that is no terminal: from 3.13 on the real one reads a block of several lines only from a terminal.

Run as a program: reads lines as they are pasted, awaits at top level, prints what an expression gives.
"""

import ast
import asyncio
import code
import inspect
import types
from typing import Any

__all__ = ["AsyncioConsole"]


class AsyncioConsole(code.InteractiveConsole):
    def __init__(self, runner: asyncio.Runner) -> None:
        super().__init__()
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.runner = runner

    def runcode(self, code: types.CodeType) -> None:
        async def run() -> Any:
            result = types.FunctionType(code, self.locals)()  # type: ignore[arg-type]
            return await result if inspect.isawaitable(result) else result

        try:
            self.runner.run(run())
        except Exception:
            self.showtraceback()


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        AsyncioConsole(runner).interact(banner="", exitmsg="")

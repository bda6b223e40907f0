"""
Options that several commands have.
"""

from typing import Annotated

import typer

__all__ = ["Json", "Simulator", "System"]

Simulator = Annotated[
    bool, typer.Option("--simulator", help="Ask a Kimi simulated on this machine instead: no key, no cost.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
System = Annotated[str | None, typer.Option("--system", "-s", help="The system message.", show_default=False)]

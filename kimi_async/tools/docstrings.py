"""
What a docstring says of a function and of its parameters.
"""

import inspect
import re

__all__ = ["parse_docstring"]

_PARAMETERS = re.compile(
    r"(args|arguments|parameters|params|keyword args|keyword arguments|other parameters):?", re.I
)
_SECTION = re.compile(
    r"(returns?|yields?|raises?|examples?|notes?|see also|warnings?|warns|attributes|references|todo):?", re.I
)
_SPHINX = re.compile(r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*?\s)?\*{0,2}(\w+)\s*:\s*(.*)")
_GOOGLE = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def parse_docstring(doc: str | None) -> tuple[str, dict[str, str]]:
    """
    The text above the sections of a docstring, and what it says of each parameter, in Google, NumPy or Sphinx style.

    Lines are joined by blanks. A docstring in no known style is text as a whole.
    """
    lines = inspect.cleandoc(doc).splitlines() if doc else []
    text: list[str] = []
    told: dict[str, list[str]] = {}
    current: str | None = None
    section = ""  # "", "google", "numpy", "sphinx", "other"
    margin = -1  # of the entries of a Google section; its first one says
    at = 0
    while at < len(lines):
        line = lines[at]
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        underlined = at + 1 < len(lines) and len(bare) > 2 and re.fullmatch(r"\s*-{3,}\s*", lines[at + 1])
        if underlined:
            section = "numpy" if _PARAMETERS.fullmatch(bare) else "other"
            current = None
            at += 2
            continue
        if indent == 0 and bare.endswith(":") and (_PARAMETERS.fullmatch(bare) or _SECTION.fullmatch(bare)):
            section = "google" if _PARAMETERS.fullmatch(bare) else "other"
            current, margin = None, -1
        elif found := _SPHINX.fullmatch(bare):
            section, current = "sphinx", str(found[1])
            told[current] = [str(found[2])]
        elif bare.startswith(":") and re.match(r":\w+[^:]*:", bare):  # :returns:, :raises X:
            section, current = "other", None
        elif section == "google":
            if indent == 0 and bare:
                section, current = "other", None
            elif bare:
                if margin < 0:
                    margin = indent
                entry = _GOOGLE.fullmatch(bare) if indent <= margin else None
                if entry:
                    current = str(entry[1])
                    told[current] = [str(entry[2])]
                elif current is not None:
                    told[current].append(bare)
        elif section == "numpy":
            if indent == 0 and bare:
                names = [n.strip().lstrip("*") for n in bare.partition(":")[0].split(",")]
                current = names[0]
                for each in names:
                    told[each] = told[current] if current in told and each != current else []
            elif bare and current is not None:
                told[current].append(bare)
        elif section == "sphinx":
            if bare and current is not None:
                told[current].append(bare)
            elif not bare:
                current = None
        elif section == "":
            text.append(line)
        at += 1
    described = {
        name: joined for name, said in told.items() if (joined := " ".join(s for s in said if s).strip())
    }
    return "\n".join(text).strip(), described

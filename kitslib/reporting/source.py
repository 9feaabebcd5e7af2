"""The library's own code as an output of a notebook."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from IPython.display import Markdown, display


def show_source(thing: Any) -> None:
    """Display the source of a function, class or (cached) property, highlighted.

    Raises OSError where Python has no source for it.
    """
    thing = getattr(thing, "func", getattr(thing, "fget", thing))
    source = textwrap.dedent(inspect.getsource(thing)).strip()
    display(Markdown(f"````python\n{source}\n````"))

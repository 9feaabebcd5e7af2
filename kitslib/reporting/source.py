"""The library's own code as an output of a notebook."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Markdown, display


def show_source(thing: Callable | type) -> None:
    """Display the source of a function or class, highlighted in JupyterLab and on the page.

    Raises OSError where Python has no source for it.
    """
    source = textwrap.dedent(inspect.getsource(thing)).strip()
    display(Markdown(f"````python\n{source}\n````"))

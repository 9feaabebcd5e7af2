"""`python -m kitslib COMMAND`: see `kitslib.commands`."""

from __future__ import annotations

import sys

from kitslib.commands import main

if __name__ == "__main__":
    sys.exit(main())

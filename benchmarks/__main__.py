"""Run one benchmark, `python -m benchmarks JOB`: a job is a module here that has a `main`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def jobs() -> dict[str, str]:
    """The jobs by name, each with the first line of its docstring."""
    names = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")
    )
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {
        name: (m.__doc__ or "").split("\n")[0] for name, m in modules.items() if hasattr(m, "main")
    }


def main(arguments: list[str]) -> int:
    """Hand the arguments to the job that the first one names; 2 when there is no such job."""
    known = jobs()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m benchmarks JOB [options]\n")
        print("\n".join(f"  {name:16s}{text}" for name, text in known.items()))
        return 0
    if arguments[0] not in known:
        names = ", ".join(known)
        print(f"benchmarks: no job is called {arguments[0]!r}; there are: {names}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m benchmarks [NAME…]`: run every file here that has a `main`, or those named."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from benchmarks.numbers import say
from orchestrator import logs


def run(names: list[str]) -> int:
    logs.configure(level="ERROR")
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    wanted = names or found
    for name in wanted:
        if name not in found or name == "__main__":
            say(f"there is no benchmark {name}; there are: {', '.join(sorted(set(found) - {'numbers', '__main__'}))}")
            return 2
        main = getattr(importlib.import_module(f"benchmarks.{name}"), "main", None)
        if main is not None:
            say(f"— {name}")
            main()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""`python -m benchmarks [NAME…]`: run every file here that has a `main`, or those named."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path

from benchmarks.numbers import say
from orchestrator import logs

MAY = "--may"  # only say whether this user may run them
AS_ANYBODY = {"decide"}


def run(names: list[str]) -> int:
    only_ask, names = MAY in names, [name for name in names if name != MAY]
    if os.geteuid() != 0 and not (names and set(names) <= AS_ANYBODY):
        say("the benchmarks need root: they mount volumes and give files to other users, as tenants have them.")
        say("  Run `make bench` as root; as this user: make bench ONLY=decide")
        return 1
    if only_ask:
        return 0
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

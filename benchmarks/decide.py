"""How long one decision takes with a thousand rules: `decide_p99_s`."""

from __future__ import annotations

import gc
import statistics
import time

from benchmarks.numbers import emit, percentile
from orchestrator.core.allowlist.load import load
from orchestrator.core.allowlist.request import CommandRequest

RULES = 1_000
PROGRAMS = 50
RUNS = 20_000
HEAD = """
version: 1
roots: {workspace: {path: /workspace, access: rw}, data: {path: /data, access: ro}}
programs:
"""
RULE = """
  - id: r{n}
    program: tool{p}
    subcommand: [verb{n}]
    switches: [-l, -a, -r, --stat, --short]
    flags: {{-n: {{type: int, max: 100}}, -m: text}}
    clusters: true
    positionals: [{{name: files, value: path, min: 0, max: 20}}]
    decision: {decision}
    reason: For the measurement.
    match: [tool{p} verb{n}]
"""


def _text() -> str:
    programs = "".join(f"  tool{p}: {{path: /usr/bin/tool{p}}}\n" for p in range(PROGRAMS))
    decisions = ("allow", "approval", "deny")
    rules = "".join(RULE.format(n=n, p=n % PROGRAMS, decision=decisions[n % 3]) for n in range(RULES))
    return f"{HEAD}{programs}rules:{rules}"


def _requests() -> list[CommandRequest]:
    made = []
    for n in range(0, RULES, 7):
        p = n % PROGRAMS
        made.append(CommandRequest(argv=(f"tool{p}", f"verb{n}", "-la", "-n", "5", "a/b.csv", "/workspace/c.csv")))
        made.append(CommandRequest(argv=(f"tool{p}", f"verb{n}", "--unlisted", "a")))
        made.append(CommandRequest(argv=(f"/usr/bin/tool{p}", f"verb{n}", "-n", "500", "/etc/passwd")))
        made.append(CommandRequest(argv=("unlisted", f"verb{n}")))
    return made


def main() -> None:
    """Decide a mixture of allowed, approval-class and denied requests, one after the other."""
    gate = load(_text(), source="benchmark").gate(profile="office", tenant="north")
    requests = _requests()
    for request in requests:
        gate.decide(request)
    taken = []
    gc.collect()
    for number in range(RUNS):
        request = requests[number % len(requests)]
        start = time.perf_counter()
        gate.decide(request)
        taken.append(time.perf_counter() - start)
    emit("decide_p99_s", taken, "s", value=percentile(taken, 0.99), median=statistics.median(taken), rules=RULES)

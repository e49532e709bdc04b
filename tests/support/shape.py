"""The house's own rules about form: lengths, names, and a project that speaks of itself alone."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = ("orchestrator", "sandbox_image", "benchmarks", "tests")
FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
READS_BODIES = {"api", "web"}  # a request is read in the event loop; whatever follows runs in the thread pool
SHELL = re.compile(r"shell\s*=\s*True|os\.system\(")


def complaints() -> Iterator[str]:
    """Every breach, as file:line and what is wrong."""
    for room in ROOMS:
        for path in sorted((PROJECT / room).rglob("*.py")):
            if "migrations" not in path.parts:
                yield from _of_file(path)


def _of_file(path: Path) -> Iterator[str]:
    where = path.relative_to(PROJECT)
    text = path.read_text()
    is_test = where.parts[0] == "tests"
    if path.stem in VAGUE_NAMES:
        yield f"{where}: the name says nothing about what is inside"
    lines = text.count("\n")
    if lines > FILE_LINES_MAX * (2 if is_test else 1):
        yield f"{where}: {lines} lines"
    if SHELL.search(text) and path != Path(__file__).resolve():
        yield f"{where}: starts a shell"
    try:
        tree = ast.parse(text)
    except SyntaxError as failure:
        yield f"{where}:{failure.lineno}: {failure.msg}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_test:
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{where}:{node.lineno}: {node.name} has {length} lines"
        if (
            isinstance(node, ast.AsyncFunctionDef)
            and where.parts[0] == "orchestrator"
            and not READS_BODIES & {*where.parts}
        ):
            yield f"{where}:{node.lineno}: {node.name} is asynchronous"


def main() -> int:
    found = list(complaints())
    for complaint in found:
        sys.stderr.write(complaint + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

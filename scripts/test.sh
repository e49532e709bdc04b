#!/usr/bin/env bash
# The whole suite in two goes: what needs nothing in parallel, then what uses the engine or a browser in one process.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest=(.venv/bin/python -m pytest --durations=10)
status=0

go() {
    local name=$1 started=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "${pytest[@]}" "$@" || status=1
    printf '== %s took %s s\n' "$name" "$((SECONDS - started))"
}

go "tests that need no engine" -n 3 --dist loadfile -m "not engine and not trip and not browser and not chaos"
go "tests with the container engine, journeys and the browser" -m "(engine or trip or browser) and not chaos"
exit $status

#!/usr/bin/env bash
# Everything that reads the code without running it. All of it runs; one failure fails the whole.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
status=0

check() {
    printf '%s\n' "check: $*" >&2
    "$@" || status=1
}

check $bin/ruff check --quiet .
check $bin/ruff format --check --quiet .
check $bin/mypy
check $bin/lint-imports
check $bin/deptry .
mapfile -t dockerfiles < <(find . -name Dockerfile -not -path './.venv/*' -not -path './var/*' | sort)
check $bin/hadolint "${dockerfiles[@]}"
check $bin/python -m tests.support.shape
exit $status

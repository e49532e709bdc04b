#!/usr/bin/env bash
# Make .venv from requirements.lock: with uv where it is installed, else with pip. Again is quick. With --check only say
# whether it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

stamp=.venv/.ready
wanted=$(cat requirements.lock pyproject.toml | sha256sum)
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted $PWD" ]; then
    exit 0
fi
if [ "${1:-}" = --check ]; then
    say "FAIL  Python environment: .venv is not there, or not of this version"
    say "      Run make setup; the other checks need it."
    exit 1
fi

# One that was made by a Python that is gone is made anew.
[ -x .venv/bin/python ] && ! .venv/bin/python -c '' 2> /dev/null && rm -rf .venv

python=
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && command -v "$candidate" > /dev/null \
        && "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2> /dev/null; then
        python=$(command -v "$candidate")
        break
    fi
done
may_install() { [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; }
install_packages() {
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=180 update > /dev/null 2>&1 || say "the package lists could not all be refreshed"
    apt-get -o DPkg::Lock::Timeout=180 install -y --no-install-recommends "$@" > /dev/null
}
if [ -z "$python" ]; then
    if ! may_install; then
        say "Python 3.11 or newer is needed. As root: apt-get install python3 python3-venv"
        exit 1
    fi
    install_packages python3 python3-venv
    python=$(command -v python3)
fi

with_uv() {
    command -v uv > /dev/null && uv --version > /dev/null 2>&1 || return 1
    { [ -x .venv/bin/python ] || uv venv --quiet --clear --python "$python" .venv; } \
        && uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock \
        && uv pip install --quiet --python .venv/bin/python --no-deps -e .
}

with_pip() {
    if ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
        if ! may_install; then
            say "Python's venv module is missing. As root: apt-get install python3-venv"
            return 1
        fi
        install_packages python3-venv
    fi
    "$python" -m venv .venv \
        && .venv/bin/python -m pip install --quiet --retries 5 --require-hashes -r requirements.lock \
        && .venv/bin/python -m pip install --quiet --retries 5 --no-deps -e .
}

say "preparing the Python environment in .venv (about a minute the first time)"
started=$SECONDS
if ! with_uv; then
    with_pip || { say "the Python environment could not be prepared"; exit 1; }
fi
printf '%s' "$wanted $PWD" > "$stamp"
say "Python environment: ok (took $((SECONDS - started)) s)"

#!/bin/sh
# Runs pytest with the arguments it is given, on the newest Python of this machine that is not of
# the release of .venv, in .venv/other. Passes where there is none, and says so.
set -eu

# A shim of pyenv's runs only the release that is named to it.
path_of() {
    PYENV_VERSION=$(pyenv latest "3.$1" 2>/dev/null || :) \
        "python3.$1" -c 'import ensurepip, sys; print(sys.executable)' 2>/dev/null
}

newest_other() {
    own=$(.venv/bin/python -c 'import sys; print(sys.version_info.minor)')
    for minor in $(seq 20 -1 11); do # from 3.20 down to 3.11, the oldest that notifier runs on
        if [ "$minor" != "$own" ] && path_of "$minor"; then return; fi
    done
}

install_into() {
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r requirements/build.txt -r requirements/dev.txt
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation --editable .
}

python=$(newest_other)
if [ -z "$python" ]; then
    echo "No second release of Python, 3.11 or newer and with its venv module, is on the PATH: nothing to check."
    exit 0
fi
"$python" --version

made_of="$python $(cat requirements/build.txt requirements/dev.txt pyproject.toml | cksum)"
if [ "$(cat .venv/other/made-of 2>/dev/null)" != "$made_of" ]; then
    "$python" -m venv --clear .venv/other
    install_into .venv/other
    echo "$made_of" >.venv/other/made-of
fi
exec .venv/other/bin/python -m pytest "$@"

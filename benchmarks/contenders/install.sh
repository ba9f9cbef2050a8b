#!/bin/sh
# Installs those contenders that a package manager has: with apt as root, else only Node's packages.
# Never starts a system service. Who stays missing is named in the table.
set -eu
cd "$(dirname "$0")"
sh ../../tests/support/install-services.sh bench
cd servers/socketio

# Of a file that is not there, not every shell says that the other one is newer.
installed=node_modules/.package-lock.json
if command -v npm >/dev/null 2>&1 && { [ ! -e "$installed" ] || [ package-lock.json -nt "$installed" ]; }; then
    npm ci --no-audit --no-fund --loglevel error
fi

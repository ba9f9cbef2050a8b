#!/bin/sh
# Installs those contenders that a package manager has: with apt as root, else only Node's packages.
# Never starts a system service. Who stays missing is named in the table.
set -eu
cd "$(dirname "$0")/servers/socketio"

has() { command -v "$1" >/dev/null 2>&1; }

apt_packages() {
    has redis-server || echo redis-server
    has rabbitmqctl || echo rabbitmq-server
    has cc || echo gcc libc6-dev
    if ! has nginx || [ ! -e /usr/lib/nginx/modules/ngx_nchan_module.so ]; then
        echo nginx libnginx-mod-nchan
    fi
}

# Packages start their services when installed, unless a policy-rc.d says 101.
policy=/usr/sbin/policy-rc.d
if [ "$(id -u)" = 0 ] && has apt-get && [ ! -e "$policy" ]; then
    packages=$(apt_packages)
    if [ -n "$packages" ]; then
        echo "Installing" $packages "(no service is started)"
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $packages
    fi
fi

# Of a file that is not there, not every shell says that the other one is newer.
installed=node_modules/.package-lock.json
if has npm && { [ ! -e "$installed" ] || [ package-lock.json -nt "$installed" ]; }; then
    npm ci --no-audit --no-fund --loglevel error
fi

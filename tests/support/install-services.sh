#!/bin/sh
# Installs what the scenarios need and this machine lacks: with apt as root, else nothing but
# Chromium. Never starts a system service. What stays missing, the tests name when they need it.
# `install-services.sh image` installs what builds and runs the container image too; `bench` installs
# the contenders of the benchmarks, and nothing for the scenarios; with `new` or
# `newest` it makes a root folder with the servers of Debian 13, or of Debian's unstable suite.
set -eu

has() { command -v "$1" >/dev/null 2>&1; }
docker_answers() { has docker && docker info >/dev/null 2>&1; }
chromium_is_there() {
    [ -n "${TEST_CHROMIUM:-}" ] || has chromium || has chromium-browser || has google-chrome ||
        [ -d "/Applications/Google Chrome.app" ]
}
is_debian() { grep -qsx 'ID=debian' /etc/os-release; }

# As in tests/support/generations.py.
roots=/var/cache/notifier-tests
case "${1:-}" in
new) suite=trixie ;;
newest) suite=sid ;;
*) suite= ;;
esac

servers() {
    has redis-server || echo redis-server
    has rabbitmqctl || echo rabbitmq-server
}
contenders() {
    has cc || echo gcc libc6-dev
    has haproxy || has /usr/sbin/haproxy || echo haproxy
    if ! has nginx || [ ! -e /usr/lib/nginx/modules/ngx_nchan_module.so ]; then
        echo nginx libnginx-mod-nchan
    fi
}

apt_packages() {
    if [ "$1" = bench ]; then
        servers
        contenders
        return
    fi
    if ! has node || ! has npm; then echo nodejs npm; fi
    if [ "$1" = image ]; then
        for tool in buildah debootstrap runc; do has "$tool" || echo "$tool"; done
    fi
    if [ -n "$suite" ]; then has debootstrap || echo debootstrap; fi
    has amqp-publish || echo amqp-tools
    has faketime || echo faketime
    # For the system's Python, as it has no wheels.
    /usr/bin/python3 -c 'import proton' 2>/dev/null || echo python3-qpid-proton
    has promtool || echo prometheus
    # nginx and HAProxy are in /usr/sbin, which is not on everybody's PATH.
    has nginx || has /usr/sbin/nginx || echo nginx-light
    has haproxy || has /usr/sbin/haproxy || echo haproxy
    has caddy || echo caddy
    # On Ubuntu the package is a snap, which containers and servers cannot run.
    if is_debian; then chromium_is_there || echo chromium; fi
    if [ -n "$suite" ] || docker_answers; then return; fi
    servers
}

# Packages start their services when installed, unless a policy-rc.d says 101.
policy=/usr/sbin/policy-rc.d
kept=
deny_service_starts() {
    if [ -e "$policy" ]; then kept=$(mktemp -u "$policy.XXXXXX") && mv "$policy" "$kept"; fi
    trap allow_service_starts EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}
allow_service_starts() {
    rm -f "$policy"
    if [ -n "$kept" ]; then mv "$kept" "$policy"; fi
}

# debootstrap starts no service: it puts a start-stop-daemon that does nothing in the way.
make_root() {
    mirror=
    if is_debian; then
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    fi
    echo "Making $roots/$1 with the servers of Debian $1; takes some minutes, once"
    mkdir -p "$roots"
    rm -rf "$roots/$1.making"
    debootstrap --variant=minbase --include=rabbitmq-server,redis-server,valkey-server \
        "$1" "$roots/$1.making" $mirror >"$roots/$1.log" || { tail "$roots/$1.log"; exit 1; }
    echo '127.0.0.1 localhost' >"$roots/$1.making/etc/hosts"
    rm -rf "$roots/$1.making/var/cache/apt/archives" "$roots/$1.making/var/lib/apt/lists"
    mv "$roots/$1.making" "$roots/$1"
}

if [ "$(id -u)" = 0 ] && has apt-get; then
    packages=$(apt_packages "${1:-}")
    if [ -n "$packages" ]; then
        echo "Installing" $packages "(no service is started)"
        deny_service_starts
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $packages
    fi
    # Chromium without windows, for half of the CPU time, where Debian has it.
    if [ -z "${1:-}" ] && is_debian && [ -z "${TEST_CHROMIUM:-}" ] && ! has chromium-headless-shell; then
        apt-get install -qqy --no-install-recommends chromium-headless-shell >/dev/null 2>&1 || :
    fi
    if [ -n "$suite" ] && [ ! -d "$roots/$suite" ]; then make_root "$suite"; fi
fi

# Debian has no Helm; of Go's modules it is made in minutes, once.
if [ "${1:-}" = image ] && has go && ! has helm3; then
    made=$(mktemp -d)
    GOBIN="$made" go install helm.sh/helm/v3/cmd/helm@v3.18.6 &&
        install "$made/helm" /usr/local/bin/helm3
    rm -rf "$made"
fi

if [ "${1:-}" = bench ]; then exit 0; fi

# Playwright's own build, in the user's cache: without root, or where Chromium is a snap.
chromium_is_there || .venv/bin/playwright install chromium ||
    echo "Chromium could not be installed: the tests of the page will fail."

#!/bin/sh
# Installs what the scenarios need and this machine lacks: with apt as root, else nothing but
# Chromium. Never starts a system service. What stays missing, the tests name when they need it.
# `install-services.sh image` installs what builds and runs the container image too.
set -eu

has() { command -v "$1" >/dev/null 2>&1; }
docker_answers() { has docker && docker info >/dev/null 2>&1; }
chromium_is_there() {
    [ -n "${TEST_CHROMIUM:-}" ] || has chromium || has chromium-browser || has google-chrome ||
        [ -d "/Applications/Google Chrome.app" ]
}
is_debian() { grep -qsx 'ID=debian' /etc/os-release; }

apt_packages() {
    if [ "$1" = image ]; then
        for tool in buildah debootstrap runc; do has "$tool" || echo "$tool"; done
    fi
    has amqp-publish || echo amqp-tools
    has promtool || echo prometheus
    # On Ubuntu the package is a snap, which containers and servers cannot run.
    if is_debian; then chromium_is_there || echo chromium; fi
    docker_answers && return
    has redis-server || echo redis-server
    has rabbitmqctl || echo rabbitmq-server
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

if [ "$(id -u)" = 0 ] && has apt-get; then
    packages=$(apt_packages "${1:-}")
    if [ -n "$packages" ]; then
        echo "Installing" $packages "(no service is started)"
        deny_service_starts
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $packages
    fi
fi

# Playwright's own build, in the user's cache: without root, or where Chromium is a snap.
chromium_is_there || .venv/bin/playwright install chromium ||
    echo "Chromium could not be installed: the tests of the page will fail."

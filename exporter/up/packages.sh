#!/bin/sh
# Installs the Debian packages named as arguments where they are missing, and leaves no
# service of theirs running: we start the programs ourselves, on ports that we choose.
set -eu

command -v dpkg-query >/dev/null || {
    echo "This is no Debian system. Install what these packages bring by other means: $*" >&2
    exit 1
}

missing=""
for package in "$@"; do
    state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case "$state" in
        ii*) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "These Debian packages are missing, and installing them needs root. Run:" >&2
    echo "  sudo apt-get update" >&2
    echo "  sudo apt-get install --no-install-recommends$missing" >&2
    case "$missing" in
        *prometheus*)
            echo "and, as flow-exporter starts Prometheus and Alertmanager by itself:" >&2
            echo "  sudo systemctl disable --now prometheus prometheus-alertmanager" >&2 ;;
    esac
    exit 1
fi

echo "Installing Debian packages:$missing"
# policy-rc.d is Debian's way to keep package scripts from starting services.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # the list is words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
if command -v systemctl >/dev/null; then
    for package in $missing; do
        # Not at the next boot either. Units that do not exist are no error here.
        systemctl disable "$package" >/dev/null 2>&1 || true
    done
fi

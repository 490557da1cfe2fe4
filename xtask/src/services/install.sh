# Installs the Debian packages "$@"; run by root.
set -eu

export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d

# The packages would start a server of their own. Forbid that, as Debian's policy-rc.d is meant
# for, but only where nobody else has said anything about it.
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

apt() {
    apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

apt update || echo "apt-get update failed; trying with the lists there are"
apt install -y --no-install-recommends "$@"

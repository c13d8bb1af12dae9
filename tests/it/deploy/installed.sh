#!/bin/sh
# Installs a Debian package into a copy of this machine that is in memory, runs its service as systemd runs it,
# and purges the package when the service has ended.
# usage: unshare --mount installed.sh PACKAGE PROGRAM --config.file CONFIG ARGUMENT...
# The program and the configuration of the harness give way to those of the package. What was found is written
# into the folder `found`.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
package=$1
shift 4
found=$PWD/found
mkdir "$found"

memory=$PWD/memory
mkdir "$memory"
mount -t tmpfs tmpfs "$memory"
mkdir "$memory/changed" "$memory/work" "$memory/root"
root=$memory/root
mount -t overlay -o "lowerdir=/,upperdir=$memory/changed,workdir=$memory/work" overlay "$root"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
cp "$package" "$root/package.deb"

inside() {
    chroot "$root" "$@"
}

# Without the triggers of other packages, such as that of the manual, which take long.
inside dpkg --no-triggers --install /package.deb >"$found/log" 2>&1 || {
    cat "$found/log" >&2
    exit 1
}
unit=cekura-exporter.service
inside systemctl is-enabled "$unit" >"$found/enabled"
inside systemd-analyze verify "$unit" >"$found/verified" 2>&1
inside stat -c '%a %U:%G %n' /etc/cekura-exporter/api-key /etc/cekura-exporter/config.yaml >"$found/configuration"

setting() { # NAME
    sed -n "s/^$1=//p" "$root/usr/lib/systemd/system/$unit"
}
# systemd refuses to start the service if a credential is missing, and so does this.
credentials=/run/credentials/$unit
mkdir -p "$root$credentials"
setting LoadCredential | while IFS=: read -r name path; do
    cp "$root$path" "$root$credentials/$name"
done
state=$(setting StateDirectory)
mkdir -p "$root/var/lib/private/$state"
# The service sees this folder, which only root can enter, as one that it can.
chmod 0755 "$root/var/lib/private"
ln -s "private/$state" "$root/var/lib/$state"
inside chown -R cekura-exporter: "$credentials" "/var/lib/private/$state"
# What a new user does first.
sed -i 's/^agents: \[\]$/agents:/; s/^#  - {agent_id/  - {agent_id/' "$root/etc/cekura-exporter/config.yaml"

# shellcheck disable=SC2046 # No part of the settings has a space.
chroot "$root" setpriv --reuid cekura-exporter --regid cekura-exporter --clear-groups --no-new-privs --pdeathsig KILL \
    env $(setting Environment | sed "s,%d,$credentials,") $(setting ExecStart) "$@" &
service=$!
trap 'kill "$service"' TERM
# The first wait ends with the signal.
wait "$service" || true
status=0
wait "$service" || status=$?
# As systemd does. The state is for the package to remove.
rm -r "$root$credentials"
[ -s "$root/var/lib/$state/state" ]

inside dpkg --no-triggers --purge cekura-exporter >>"$found/log" 2>&1
find "$memory/changed" -name '*cekura*' >&2
[ -z "$(find "$memory/changed" -name '*cekura*')" ]
exit "$status"

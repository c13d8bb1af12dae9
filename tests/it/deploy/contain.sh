#!/bin/sh
# Runs the command of an unpacked image as a container engine runs it: the image is the root and
# read-only, the user is 65532, and what the folder `mounts` has is mounted over it. Of that,
# /var/lib/cekura-exporter belongs to the user and can be written.
# usage: unshare --mount contain.sh ROOT COMMAND... -- PROGRAM --config.file CONFIG ARGUMENT...
# The program and the configuration of the harness give way to those of the image.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
root=$1
shift
command=
while [ "$1" != -- ]; do
    command="$command $1"
    shift
done
shift 4

mkdir -p mounts/etc/cekura-exporter mounts/var/lib/cekura-exporter
cp config.yaml mounts/etc/cekura-exporter/
chown -R 65532:65532 mounts/var/lib/cekura-exporter
mount --bind "$root" "$root"
(cd mounts && find . -type f) | while read -r file; do
    mkdir -p "$root/${file%/*}"
    : >>"$root/$file"
    mount --bind "mounts/$file" "$root/$file"
    mount -o remount,bind,ro "$root/$file"
done
mount --bind mounts/var/lib/cekura-exporter "$root/var/lib/cekura-exporter"
mkdir -p "$root/proc"
mount --bind /proc "$root/proc"
mount -o remount,bind,ro "$root"
# shellcheck disable=SC2086 # No part of the command has a space.
exec setpriv --no-new-privs "$(command -v chroot)" --userspec=65532:65532 "$root" $command "$@"

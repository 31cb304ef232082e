#!/bin/sh
# Builds the Dockerfile as it is, without a registry, and runs the result: as its own user, on a read-only root, without
# a shell. Needs root, and Debian's buildah and debootstrap. The base image is made of Debian and the Python 3.13 given
# as $1, under the name that FROM has. Ports 15006, 15021, 15000 and 15001 must be free.
#   tests/deploy/image.sh ~/.pyenv/versions/3.13.0/bin/python3.13
set -eu
python=${1:?the Python to put into the base}
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
base=docker.io/library/python:$(sed -n 's/^ARG PYTHON=//p' "$here/Dockerfile")
store() { buildah --storage-driver vfs --root "$work/store" --runroot "$work/run" "$@"; }
told() { store inspect --type image --format "$1" localhost/sidecar:test; }

debootstrap --variant=minbase --include=ca-certificates,libsqlite3-0,libffi8,zlib1g,libbz2-1.0,liblzma5,libssl3 \
    bookworm "$root" >"$work/debootstrap.log"
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
cp -a "$prefix/." "$root/usr/local/"
rm -rf "$root/usr/local/lib/python3.13/test" "$root/usr/local/lib/python3.13/site-packages"
mkdir "$root/usr/local/lib/python3.13/site-packages"
find "$root/usr/local" \( -name '*.a' -o -name '*.pyc' \) -delete
ln -sf python3.13 "$root/usr/local/bin/python"
chroot "$root" /sbin/ldconfig
chroot "$root" /usr/local/bin/python -m ensurepip >/dev/null
ln -sf pip3 "$root/usr/local/bin/pip"
# this machine's way to its package index
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"

container=$(store from scratch)
store copy -q "$container" "$root" /
store config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
store commit -q "$container" "$base"
store bud --isolation chroot --pull-never --format docker -t sidecar:test -f "$here/Dockerfile" "$here"

echo "user $(told '{{.Docker.Config.User}}'), stop signal $(told '{{.Docker.Config.StopSignal}}')"
echo "entrypoint $(told '{{.Docker.Config.Entrypoint}}'), healthcheck $(told '{{.Docker.Config.Healthcheck.Test}}')"
told '{{range $name, $value := .Docker.Config.Labels}}{{$name}}={{$value}}{{"\n"}}{{end}}'
environment=$(told '{{range .Docker.Config.Env}}{{.}} {{end}}')
image=$(store mount "$(store from --pull-never localhost/sidecar:test)")
echo "/opt/sidecar: $(du -sm "$image/opt/sidecar" | cut -f1) MiB," \
    "compressed $(tar -C "$image" -cf - opt/sidecar | gzip | wc -c) bytes"

# $environment is split into words on purpose
# shellcheck disable=SC2086
unshare --mount sh -eu -s "$image" $environment <<'RUN'
image=$1
shift
mount --bind "$image" "$image"
mount -o remount,bind,ro "$image"
mount --rbind /dev "$image/dev"
mount -t proc proc "$image/proc"
test ! -e "$image/bin/sh"
within() { exec env -i "$@"; }
(within "$@" /usr/sbin/chroot --userspec=65532:65532 "$image" sidecar check /etc/sidecar/sidecar.yaml)
(within "$@" /usr/sbin/chroot --userspec=65532:65532 "$image" sidecar run) &
running=$!
(within "$@" /usr/sbin/chroot --userspec=65532:65532 "$image" sidecar healthcheck --wait 20s)
echo "user of the process: $(ps -o uid= -p "$running"), resident $(ps -o rss= -p "$running") KiB"
(within "$@" /usr/sbin/chroot --userspec=65532:65532 "$image" sidecar drain)
(within "$@" /usr/sbin/chroot --userspec=65532:65532 "$image" sidecar healthcheck) || echo "after drain: exit $?"
kill -TERM "$running"
wait "$running"
echo "after SIGTERM: exit $?"
RUN

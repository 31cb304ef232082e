#!/bin/sh
# Builds the Dockerfile as it is, without a registry, and runs the result. Needs root, and Debian's buildah and
# debootstrap. The base image is made of Debian and the Python 3.13 given as $1, under the name that FROM has.
#   tests/deploy/image.sh /usr/local/bin/python3.13
set -eu
python=${1:?the Python to put into the base}
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
root=$work/root
base=docker.io/library/python:$(sed -n 's/^ARG PYTHON=//p' "$here/Dockerfile")
store() { buildah --storage-driver vfs --root "$work/store" --runroot "$work/run" "$@"; }

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
store images

container=$(store from --pull-never localhost/sidecar:test)
store run --isolation chroot "$container" -- sidecar check /etc/sidecar/sidecar.yaml
store run --isolation chroot "$container" -- sidecar run &
running=$!
"$python" - <<'PYTHON'
import time, urllib.request
for _ in range(200):
    try:
        print("readyz:", urllib.request.urlopen("http://127.0.0.1:15021/readyz").status)
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("not ready")
PYTHON
child=$(pgrep -f "^/opt/sidecar/bin/python .*sidecar run" | tail -1)
echo "user: $(ps -o uid= -p "$child")"
kill -TERM "$child"
wait "$running" && echo "ended: 0"
rm -rf "$work"

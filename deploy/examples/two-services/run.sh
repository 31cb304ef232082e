#!/bin/sh
# Two services on one machine, each behind its own sidecar, started as a Compose file would: `shop` asks `stock` by
# way of both sidecars. Ctrl-C ends all four.
set -eu
cd "$(dirname "$0")"
started=
trap 'trap - INT TERM; kill $started; wait' INT TERM

http_proxy=http://127.0.0.1:15101 python3 service.py 8101 http://stock &
started="$started $!"
python3 service.py 8102 &
started="$started $!"

# One file for both: what differs is in the environment.
APP_PORT=8101 INBOUND_PORT=15106 OUTBOUND_PORT=15101 ADMIN_PORT=15100 PROBES_PORT=15121 sidecar run sidecar.yaml &
started="$started $!"
APP_PORT=8102 INBOUND_PORT=15206 OUTBOUND_PORT=15201 ADMIN_PORT=15200 PROBES_PORT=15221 sidecar run sidecar.yaml &
started="$started $!"
wait

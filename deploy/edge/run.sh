#!/bin/sh
# Serves by the VCL of the gateway, and takes the new one when other segments begin to matter.
#   GATEWAY host:port as the edge reaches it   EDGE_KEY_FILE an API key of kind edge   EDGE_MEMORY 256m   EDGE_FOLLOW_S 2
set -eu
work=/work
key="X-Api-Key: $(cat "$EDGE_KEY_FILE")"

fetch() { curl -fsS --max-time 5 -H "$key" "http://$GATEWAY/admin/v1/edge/vcl?backend=$GATEWAY" -o "$work/next.vcl"; }

until fetch; do sleep 1; done
cp "$work/next.vcl" "$work/now.vcl"
varnishd -F -n "$work/run" -a :8080 -f "$work/now.vcl" -s "malloc,${EDGE_MEMORY:-256m}" &
server=$!
trap 'kill "$server"' TERM INT

number=0
while kill -0 "$server" 2>/dev/null; do
    sleep "${EDGE_FOLLOW_S:-2}" & wait $! || true
    if fetch 2>/dev/null && ! cmp -s "$work/next.vcl" "$work/now.vcl"; then
        number=$((number + 1))
        cp "$work/next.vcl" "$work/now.vcl"
        varnishadm -n "$work/run" vcl.load "v$number" "$work/now.vcl" >/dev/null \
            && varnishadm -n "$work/run" vcl.use "v$number" >/dev/null \
            && echo "vcl v$number in use"
    fi
done
wait "$server"

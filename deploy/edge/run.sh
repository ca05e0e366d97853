#!/bin/sh
# Serves by edge.vcl: nothing that a merchant does needs another one.
#   GATEWAY host:port as the edge reaches it   EDGE_MEMORY 256m
#   CONTEXT_KEYS_FILE, EDGE_KEYS_FILE   lists `id:secret,id:secret`, the newest first, as the gateway has them
#   FRONT_KEY_FILE, PURGE_KEY_FILE
set -eu
entry() { cut -d, -f"$2" "$1"; } # of a list; what has no comma is its own second entry, and as good

context=$(entry "$CONTEXT_KEYS_FILE" 1) old=$(entry "$CONTEXT_KEYS_FILE" 2) edge=$(entry "$EDGE_KEYS_FILE" 1)
export CONTEXT_ID="${context%%:*}" CONTEXT_KEY="${context#*:}" CONTEXT_ID_OLD="${old%%:*}" CONTEXT_KEY_OLD="${old#*:}"
export EDGE_ID="${edge%%:*}" EDGE_KEY="${edge#*:}"
FRONT_KEY=$(cat "$FRONT_KEY_FILE") PURGE_KEY=$(cat "$PURGE_KEY_FILE")
export FRONT_KEY PURGE_KEY

sed -e "s/@HOST@/${GATEWAY%:*}/" -e "s/@PORT@/${GATEWAY##*:}/" /edge/gateway.vcl > /scratch/backend.vcl
# Headers: as many as Varnish can count (the gateway takes 100, but a copy is had without it), of the size that a front lets through.
# Threads: those of both pools are within the pids_limit of docker-compose.yml. Who takes nothing of an answer has one for 10 s.
exec varnishd -F -n /scratch/run -a :8080 -f /edge/edge.vcl -p vcl_path=/scratch -s "malloc,${EDGE_MEMORY:-256m}" \
    -p http_max_hdr=255 -p http_req_hdr_len=34k -p http_req_size=72k -p workspace_client=160k -p workspace_backend=160k \
    -p thread_pool_max=900 -p idle_send_timeout=10 -p send_timeout=30

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
# Headers: the 100 that the gateway takes, and what the edge says of itself.
exec varnishd -F -n /scratch/run -a :8080 -f /edge/edge.vcl -p vcl_path=/scratch -p http_max_hdr=160 -s "malloc,${EDGE_MEMORY:-256m}"

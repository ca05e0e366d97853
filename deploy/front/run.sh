#!/bin/sh
# Serves by front.conf.
#   EDGE host:port as the front reaches it   FRONT_KEY_FILE
set -eu
umask 077 # the file has the key
key=$(cat "$FRONT_KEY_FILE")
case "$key" in *[!A-Za-z0-9_+/=.-]*) echo "the front key has a character that cannot be written into front.conf" >&2; exit 1 ;; esac

sed -e "s|@EDGE@|$EDGE|" -e "s|@LISTEN@|8080|" -e "s|@FRONT_KEY@|$key|" /front/front.conf > /scratch/front.conf
ulimit -n "$(ulimit -H -n)" # what an engine allows may be less than front.conf asks for: then that is what there is
exec nginx -p /scratch -c /scratch/front.conf

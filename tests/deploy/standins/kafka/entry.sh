#!/bin/bash
# KAFKA_SOME_NAME=value becomes some.name=value, as in the image this stands for.
set -euo pipefail
config=/etc/kafka/server.properties
env | grep '^KAFKA_' | grep -v '^KAFKA_HEAP_OPTS=' | while IFS='=' read -r name value; do
    name=${name#KAFKA_}; name=${name,,}
    echo "${name//_/.}=$value"
done >"$config"
read -ra heap <<<"$KAFKA_HEAP_OPTS"
java=(java "${heap[@]}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*')
"${java[@]}" kafka.tools.StorageTool format --ignore-formatted -t 5L6g3nShT-eMCtK--X86sw -c "$config"
exec "${java[@]}" kafka.Kafka "$config"

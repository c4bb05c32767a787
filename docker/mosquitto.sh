#!/bin/sh
# Make the broker's password file from the environment, then become the broker.
set -eu
umask 077
# It asks twice. As an argument `ps` would show the password, and -U would cut it off at a colon.
printf '%s\n' "${MQTT_PASSWORD:?}" "$MQTT_PASSWORD" | mosquitto_passwd -c /tmp/passwords streamproc >/dev/null
exec mosquitto -c /mosquitto/mosquitto.conf

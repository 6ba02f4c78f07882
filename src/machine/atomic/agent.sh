#!/bin/sh
# Does what a test of this system asks for, on a port that leads out of the machine. A command is a line of base64;
# the answer to it is the line "answer CODE BASE64".
port=
while [ -z "$port" ]; do
    for name in /sys/class/virtio-ports/*/name; do
        if [ "$(cat "$name" 2>/dev/null)" = org.debforge.test ]; then
            port=${name%/name}
            port=/dev/${port##*/}
        fi
    done
    [ -c "$port" ] || { port= && sleep 0.2; }
done
exec 3<>"$port"
echo "hello $(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r line <&3; do
    [ -n "$line" ] || continue
    output=$(mktemp /run/debforge-test.XXXXXX)
    printf %s "$line" | base64 -d | sh >"$output" 2>&1 3>&-
    echo "answer $? $(base64 -w0 "$output")" >&3
    rm -f "$output"
done

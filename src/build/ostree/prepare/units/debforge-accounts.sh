#!/bin/sh
# Adds locked lines to /etc/shadow and /etc/gshadow for users and groups that an update brought. A machine on which
# somebody has changed a password keeps its own shadow, while its passwd is replaced; systemd-sysusers makes only what
# passwd lacks, and PAM turns away whom shadow does not know.
set -eu
etc=${1:-/etc}

# complete FILE SHADOW REST: for names of FILE that SHADOW has no line of. `members` puts those of a group behind REST.
complete() {
    [ -e "$etc/$1" ] && [ -e "$etc/$2" ] || return 0
    missing=$(awk -F: -v shadow="$etc/$2" -v rest="$3" -v members="${4:-}" '
        BEGIN { while ((getline line < shadow) > 0) { sub(/:.*/, "", line); known[line] } }
        $2 == "x" && !($1 in known) { print $1 rest (members ? $4 : "") }' "$etc/$1")
    [ -n "$missing" ] || return 0
    cp -p "$etc/$2" "$etc/$2.new"
    { [ -z "$(tail -c 1 "$etc/$2")" ] || echo; printf '%s\n' "$missing"; } >>"$etc/$2.new"
    sync "$etc/$2.new"
    mv "$etc/$2.new" "$etc/$2"
    printf '%s\n' "$missing" | while IFS=: read -r name _; do
        echo "added $name to $etc/$2, locked"
    done
}

complete passwd shadow ':!*:::::::'
complete group gshadow ':!*::' members

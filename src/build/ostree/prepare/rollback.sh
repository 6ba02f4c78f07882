#!/bin/sh
# Makes the other deployment the one that is started next: that before an update, or, run again, the update.
set -eu

if [ "${1:-}" = --help ]; then
    echo "usage: debforge-rollback"
    echo "Has the deployment before the running one started next; nothing is removed."
    exit 0
fi
[ "$(id -u)" = 0 ] || { echo "debforge-rollback: only root can do this" >&2; exit 1; }
[ -e /run/ostree-booted ] || { echo "debforge-rollback: this system was not started by OSTree" >&2; exit 1; }

# Deployments are listed in the order of the boot menu; the running one has a star.
# The one before an update stands behind the running one; after a rollback the running one itself does.
index=$(ostree admin status | awk '
    /^[* ] [^ ]+ [0-9a-f]+\.[0-9]+/ {
        if ($1 == "*") { booted = count }
        count++
    }
    END { print booted == 0 ? (count > 1 ? 1 : -1) : booted }')
[ "$index" -gt 0 ] || { echo "debforge-rollback: there is only one deployment" >&2; exit 1; }

if ostree admin --help 2>&1 | grep -q set-default; then
    exec ostree admin set-default "$index"
fi

# OSTree before 2023: the menu's order is that of the entries' versions, so the entry gets the highest.
# One file is replaced at once; a power cut before or after leaves a system that starts.
exec unshare --mount sh -eu -c '
    mount -o remount,rw /sysroot 2>/dev/null || :
    mount -o remount,rw /boot 2>/dev/null || :
    entries=/boot/loader/entries
    ranks=$(for entry in "$entries"/*.conf; do
        echo "$(sed -n "s/^version //p" "$entry") $entry"
    done | sort -rn)
    highest=$(echo "$ranks" | sed -n "1s/ .*//p")
    entry=$(echo "$ranks" | sed -n "$(($1 + 1))s/^[0-9]* //p")
    sed "s/^version .*/version $((highest + 1))/" "$entry" >"$entry.new"
    sync "$entry.new"
    mv "$entry.new" "$entry"
    touch /sysroot/ostree/deploy
    if [ -e /boot/loader/grub.cfg ]; then
        grub-mkconfig -o /boot/loader/grub.cfg
    fi
    if [ -e /boot/loader/syslinux.cfg ]; then
        title=$(sed -n "s/^title //p" "$entry")
        # Titles have slashes: "Debian GNU/Linux".
        printf "DEFAULT %s\n" "$title" >/boot/loader/syslinux.cfg.new
        sed "/^DEFAULT /d" /boot/loader/syslinux.cfg >>/boot/loader/syslinux.cfg.new
        mv /boot/loader/syslinux.cfg.new /boot/loader/syslinux.cfg
    fi
    sync
    echo "the next start is: $(sed -n "s/^title //p" "$entry")"
' sh "$index"

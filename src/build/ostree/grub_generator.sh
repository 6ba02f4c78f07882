#!/bin/sh
# grub-mkconfig of systems that OSTree deploys: a menu of the deployments, newest first, from the entries that
# OSTree writes. OSTree calls it as `grub-mkconfig -o /boot/loader.N/grub.cfg`, before it switches to loader.N.
set -eu

output=
while [ $# -gt 0 ]; do
    case $1 in
        -o | --output)
            output=${2:?grub-mkconfig: -o wants a file}
            shift
            ;;
        --output=*) output=${1#*=} ;;
    esac
    shift
done
boot=${OSTREE_BOOT:-/boot}
case $output in
    */loader.[01]/grub.cfg | */loader/grub.cfg) entries=${output%/*}/entries ;;
    *) entries=$boot/loader/entries ;;
esac
if ! [ -d "$entries" ]; then
    if [ -x /usr/sbin/grub-mkconfig.distrib ]; then
        exec /usr/sbin/grub-mkconfig.distrib ${output:+-o "$output"}
    fi
    echo "grub-mkconfig: there is no $entries" >&2
    exit 1
fi

# The value of a key: value FILE KEY
value() { sed -n "s/^$2[[:space:]]\{1,\}//p" "$1" | head -n1; }

# As a path of the file system that has /boot, whether that is the root's or its own, where `boot` leads to itself.
below_boot() { echo "/boot${1#/boot}"; }

quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }

generate() {
    echo "# Written by grub-mkconfig for OSTree; changes are lost with the next update."
    if [ -e "$boot/grub/ostree.cfg" ]; then
        cat "$boot/grub/ostree.cfg"
    else
        printf 'set default=0\nset fallback=1\nset timeout=5\n'
    fi
    for entry in "$entries"/*.conf; do
        echo "$(value "$entry" version) $entry"
    done | sort -rn | while read -r version entry; do
        kernel=$(value "$entry" linux)
        [ -n "$kernel" ] || continue
        echo "menuentry $(quoted "$(value "$entry" title)") --id ostree-$version {"
        echo "    linux $(below_boot "$kernel") $(value "$entry" options)"
        for initrd in $(value "$entry" initrd); do
            echo "    initrd $(below_boot "$initrd")"
        done
        tree=$(value "$entry" devicetree)
        [ -z "$tree" ] || echo "    devicetree $(below_boot "$tree")"
        echo "}"
    done
}

if [ -n "$output" ]; then
    generate >"$output.new"
    mv "$output.new" "$output"
else
    generate
fi

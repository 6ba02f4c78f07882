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
below_boot() { printf '/boot%s' "${1#/boot}"; }

quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }

# The words of a kernel command line in GRUB's language. GRUB puts quotes around a word with a space, and a
# backslash before each quote and backslash but that of \x2d; the kernel takes quotes away that are around a word or
# its value. What would reach it otherwise is refused: better the menu that is there than one that starts nothing.
arguments() {
    printf '%s\n' "$1" | LC_ALL=C awk '
        function give(word,    bare, rest) {
            bare = word
            if (bare ~ /^"[^"]*"$/) { bare = substr(bare, 2, length(bare) - 2) }
            else if (match(bare, /^[^"=]*="[^"]*"$/)) {
                rest = index(bare, "=")
                bare = substr(bare, 1, rest) substr(bare, rest + 2, length(bare) - rest - 2)
            }
            rest = bare
            gsub(/\\x[0-9A-Fa-f][0-9A-Fa-f]/, "", rest)
            if (rest ~ /["\\\001-\037\177]/ || index(rest, quote)) {
                print "grub-mkconfig: GRUB cannot give the kernel the argument " word | "cat >&2"
                failed = 1
            }
            printf " %s", bare ~ /^[-_.\/:=,+@%^0-9A-Za-z]+$/ ? bare : quote bare quote
        }
        BEGIN { quote = sprintf("%c", 39) }
        {
            for (i = 1; i <= length($0); i++) {
                letter = substr($0, i, 1)
                if (letter == "\"") { inside = !inside }
                if (letter ~ /[ \t]/ && !inside) {
                    if (word != "") { give(word) }
                    word = ""
                } else { word = word letter }
            }
            if (word != "") { give(word) }
        }
        END { exit failed }'
}

generate() {
    echo "# Written by grub-mkconfig for OSTree; changes are lost with the next update."
    if [ -e "$boot/grub/ostree.cfg" ]; then
        cat "$boot/grub/ostree.cfg"
    else
        printf 'set default=0\nset fallback=1\nset timeout=5\n'
    fi
    for entry in "$entries"/*.conf; do
        printf '%s %s\n' "$(value "$entry" version)" "$entry"
    done | sort -rn | {
        while read -r version entry; do
            kernel=$(value "$entry" linux)
            [ -n "$kernel" ] || continue
            arguments=$(arguments "$(value "$entry" options)") || exit
            printf 'menuentry %s --id ostree-%s {\n' "$(quoted "$(value "$entry" title)")" "$version"
            printf '    linux %s%s\n' "$(below_boot "$kernel")" "$arguments"
            for initrd in $(value "$entry" initrd); do
                printf '    initrd %s\n' "$(below_boot "$initrd")"
            done
            tree=$(value "$entry" devicetree)
            [ -z "$tree" ] || printf '    devicetree %s\n' "$(below_boot "$tree")"
            echo "}"
        done
    }
}

if [ -n "$output" ]; then
    generate >"$output.new" || {
        rm -f "$output.new"
        exit 1
    }
    mv "$output.new" "$output"
else
    generate
fi

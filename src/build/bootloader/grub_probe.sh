#!/bin/sh
# Stands in for grub-probe and grub-mkrelpath while grub.cfg is made: there are no devices to ask, so
# the image's layout answers. The functions locate, about and inside follow, written for one image.
set -eu
target=fs device= what= relative=
case $0 in *mkrelpath) relative=1 ;; esac
while [ $# -gt 0 ]; do
    case $1 in
        -t | --target) target=$2; shift ;;
        --target=*) target=${1#*=} ;;
        -d | --device) device=1 ;;
        -*) ;;
        *) what=$1 ;;
    esac
    shift
done
case $what in
    /* | *=*) ;;
    *) what=$PWD/$what ;;
esac

#!/bin/sh
# Runs inside the root: setup.sh USER
set -eu
useradd --create-home --shell /bin/bash "$1"
systemctl enable systemd-networkd hello

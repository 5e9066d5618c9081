#!/bin/sh
# Starts the node of {{ site.name }} in the consortium {{ project.name }}; Ctrl-C or `stsmm site stop` ends it.
# STSMM_COMMAND names the command where it is not in the PATH: STSMM_COMMAND=/opt/stsmm/bin/stsmm ./start.sh
set -eu
umask 077
kit=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$kit/state"
exec "${STSMM_COMMAND:-stsmm}" site start "$kit"

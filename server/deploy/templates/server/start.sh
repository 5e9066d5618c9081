#!/bin/sh
# Starts the server of the consortium {{ project.name }}; Ctrl-C ends it.
# STSMM_COMMAND names the command where it is not in the PATH: STSMM_COMMAND=/opt/stsmm/bin/stsmm ./start.sh
set -eu
umask 077
kit=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
exec "${STSMM_COMMAND:-stsmm}" server start "$kit"

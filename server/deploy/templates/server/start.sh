#!/bin/sh
# Starts the server of the consortium {{ project.name }}; Ctrl-C ends it.
# STSMM names the command where it is not in the PATH: STSMM=/opt/stsmm/bin/stsmm ./start.sh
set -eu
umask 077
kit=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
exec "${STSMM:-stsmm}" server start "$kit"

"""The process of a real server: Flower's SuperLink with the app service beside it.

Started by `stsmm server start`; ends when that command is gone.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from server.deploy.app_service import app_service
from server.deploy.folder import ServerFolder
from server.deploy.processes import end_processes
from stsmm_core.kit import CA_FILE, REVOKED_FOLDER, SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE

GRACE_S = 3.0
LONGEST_WAIT_FOR_DATABASE_MS = 60_000
"""Where ten sites answered at once, Flower's own 5 s passed, and their answers were lost with an error 500."""


def main(kit: Path, parent: int) -> None:
    """Run until a signal comes or the process `parent` has ended."""
    folder = ServerFolder(kit)
    with app_service(folder) as address:
        os.environ["FLWR_SUPERGRID_API_URL"] = address  # read by Flower when it is imported
        _run_superlink(folder, parent)


def superlink_command(folder: ServerFolder) -> list[str]:
    """The arguments of Flower's `flower-superlink`."""
    address = folder.settings().server
    host = "[::]" if ":" in address.host else "0.0.0.0"
    return [
        "flower-superlink",
        *("--ssl-certfile", str(folder.kit / SERVER_CERTIFICATE_FILE)),
        *("--ssl-keyfile", str(folder.kit / SERVER_KEY_FILE)),
        *("--ssl-ca-certfile", str(folder.kit / CA_FILE)),
        *("--host", host.strip("[]"), "--port", str(address.port)),
        *("--health-server-address", f"{host}:{address.health_port}"),
        "--enable-supernode-auth",
        *("--database", str(folder.database)),
        *("--log-file", str(folder.superlink_log)),
        *("--log-rotation-interval-hours", "24", "--log-rotation-backup-count", "14"),
        "--disable-runtime-dependency-installation",
    ]


def _run_superlink(folder: ServerFolder, parent: int) -> None:
    from flwr.supercore import sql_mixin
    from flwr.supercore.object_store import object_store_factory
    from flwr.superlink import extensions
    from flwr.superlink.cli.flower_superlink import flower_superlink
    from starlette.middleware import Middleware

    from server.deploy.known_nodes import OnlyKnownNodes
    from server.deploy.node_state import NodeStateMiddleware
    from server.deploy.object_store import ObjectStore
    from server.deploy.this_machine import OnlyForNodes

    threading.Thread(target=_end_with, args=(folder, parent), daemon=True).start()
    extensions.get_middleware = lambda: (
        Middleware(OnlyForNodes),
        Middleware(OnlyKnownNodes),
        Middleware(NodeStateMiddleware, revoked=folder.kit / REVOKED_FOLDER),
    )
    settings = dict(sql_mixin.SQLITE_PRAGMAS) | {"busy_timeout": str(LONGEST_WAIT_FOR_DATABASE_MS)}
    sql_mixin.SQLITE_PRAGMAS = tuple(settings.items())  # type: ignore[assignment]
    object_store_factory.SqlObjectStore = ObjectStore  # type: ignore[misc]
    sys.argv = superlink_command(folder)
    flower_superlink()


def _end_with(folder: ServerFolder, parent: int) -> None:
    """End with all that was started here when the process `parent` has ended: Flower alone would wait for nodes."""
    while os.getppid() == parent:
        time.sleep(0.2)
    end_processes(folder, grace_s=GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

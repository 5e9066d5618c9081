"""The process of a real server: Flower's SuperLink with the app service beside it.

Started by `stsmm server start`; ends when that command is gone.
"""

import os
import sys
from pathlib import Path

from server.deploy.app_service import app_service
from server.deploy.folder import ServerFolder
from stsmm_core.kit import CA_FILE, SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE


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
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.superlink import extensions
    from flwr.superlink.cli.flower_superlink import flower_superlink
    from starlette.middleware import Middleware

    from server.deploy.this_machine import OnlyForNodes

    start_parent_process_monitor(parent)
    extensions.get_middleware = lambda: (Middleware(OnlyForNodes),)
    sys.argv = superlink_command(folder)
    flower_superlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""The processes of a running server: all that inherited the kit's variable, whoever their parent is by now."""

import contextlib
import os
from pathlib import Path

import psutil

from server.deploy.folder import ServerFolder
from server.registered import NODES_VARIABLE


def find_processes(folder: ServerFolder) -> list[psutil.Process]:
    """Living processes of the server of a kit, without this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            ours = process.environ().get(NODES_VARIABLE) == str(folder.nodes)
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_processes(folder: ServerFolder, *, grace_s: float) -> None:
    """End them: first politely, then not. One that went on alone could write into a run that is resumed."""
    for send in (psutil.Process.terminate, psutil.Process.kill):
        processes = find_processes(folder)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        psutil.wait_procs(processes, timeout=grace_s)


def end_process(folder: ServerFolder, file: Path, *, grace_s: float) -> None:
    """Wait for the server's process whose number the file holds, and end it if it does not end by itself."""
    number = file.read_text(encoding="utf-8") if file.exists() else ""
    found = [process for process in find_processes(folder) if str(process.pid) == number]
    _, living = psutil.wait_procs(found, timeout=grace_s)
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(living, timeout=grace_s)

"""Runs a command and leaves nothing of it behind, however this or the calling process ends.

The caller holds the write end of this process's standard input: when it closes, because the caller is done or was
killed, every process that inherited the run's token is ended, and then this one.
"""

import os
import subprocess
import sys
import threading

import psutil

TOKEN_VARIABLE = "STSMM_SIMULATION"
GRACE_S = 5.0


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input closes; its exit code, or 0 if it was told to end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    released = threading.Event()

    def wait_for_release() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when the caller's end closes
        released.set()

    threading.Thread(target=wait_for_release, daemon=True).start()
    try:
        while not released.wait(0.2) and process.poll() is None:
            pass
    finally:
        end_family(os.environ[TOKEN_VARIABLE], spare=os.getpid())
    return process.returncode or 0


def end_family(token: str, *, spare: int) -> None:
    """End every process of the family, except `spare`: first politely, then not."""
    family = find_family(token, spare=spare)
    for send in (psutil.Process.terminate, psutil.Process.kill):
        family = [*{*family, *find_family(token, spare=spare)}]
        for process in family:
            try:
                send(process)
            except psutil.NoSuchProcess:
                continue
        _, family = psutil.wait_procs(family, timeout=GRACE_S)


def find_family(token: str, *, spare: int) -> list[psutil.Process]:
    """Living processes whose environment holds the token, and their descendants.

    Descendants count because Ray's agents write their title over their environment.
    """
    family: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN_VARIABLE) == token:
                family |= {process, *process.children(recursive=True)}
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue  # another user's process, or one that has just ended: not of this run
    return [process for process in family if process.pid != spare and _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Faults made on this machine: a network that goes silent, a full disk, a wrong clock, an old version."""

import errno
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from importlib.metadata import distribution
from pathlib import Path

import stsmm_core

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift(void) { const char *text = getenv("CLOCK_SHIFT_S"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (!code && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return code;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
"""A library that is loaded before the C library: the calendar's clock goes wrong, the stopwatch's does not."""


def wrong_clock(folder: Path, seconds: int) -> dict[str, str]:
    """An environment for `stsmm site`, in which the clock is so many seconds ahead for it and the node's process."""
    library = folder / "clock.so"
    if not library.exists():
        source = folder / "clock.c"
        source.write_text(CLOCK, encoding="ascii")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return _for_node_too(folder / f"clock{seconds}", {"LD_PRELOAD": str(library), "CLOCK_SHIFT_S": str(seconds)})


def other_version(folder: Path, version: str) -> dict[str, str]:
    """An environment for `stsmm site`, in which another version of STSMM is installed for it and the node's process."""
    packages = folder / f"stsmm-{version}"
    metadata = packages / f"stsmm-{version}.dist-info"
    metadata.mkdir(parents=True)
    entries = distribution("stsmm").read_text("entry_points.txt") or ""
    (metadata / "entry_points.txt").write_text(entries, encoding="utf-8")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stsmm\nVersion: {version}\n", encoding="utf-8")
    # A checkout holds metadata of its own version, which Python would find first in the folder that this runs in.
    checkout = str(Path(stsmm_core.__file__).parents[1])
    paths = os.pathsep.join([str(packages), checkout, *filter(None, [os.environ.get("PYTHONPATH")])])
    return _for_node_too(folder / f"version-{version}", {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"})


def _for_node_too(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """The node's process gets next to nothing of the environment: a Python that sets the variables starts it."""
    folder.mkdir()
    python = folder / "python"
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    python.write_text(f'#!/bin/sh\nexec env {settings} {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o700)
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(python)!r}\n", encoding="utf-8")
    paths = [str(folder), variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return dict(os.environ) | variables | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PATH": programs}


def mount_small_disk(folder: Path, megabytes: int) -> bool:
    """Move a folder to a disk of its own; false where mounting is not allowed."""
    held = shutil.copytree(folder, folder.with_name(f"{folder.name}-held"))
    options = f"size={megabytes}m,mode=700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True)
    if mounted.returncode == 0:
        shutil.copytree(held, folder, dirs_exist_ok=True)
    shutil.rmtree(held)
    return mounted.returncode == 0


def unmount(folder: Path) -> None:
    """Take the disk away."""
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_disk(file: Path) -> None:
    """Write until not one byte more fits; the file's removal makes space again."""
    with file.open("wb", buffering=0) as out:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    out.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


class Proxy:
    """The hospital's way out: an HTTP proxy with CONNECT, whose network can be cut.

    A cut is the worst kind: nothing is refused or closed, packets are lost; and what was open then stays dead
    afterwards, as behind a firewall that forgot it.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._life = 0
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """For HTTPS_PROXY."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """From now on nothing gets through."""
        self._is_cut = True
        self._life += 1

    def mend(self) -> None:
        """New connections get through again."""
        self._life += 1
        self._is_cut = False

    def close(self) -> None:
        """No more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        life = self._life
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            byte = near.recv(1)
            if not byte:
                near.close()
                return
            asked += byte
        host, _, port = asked.split()[1].decode().rpartition(":")
        if self._is_cut:
            self._pass_on(near, None, life)
            return
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self._pass_on, args=(far, near, life), daemon=True).start()
        self._pass_on(near, far, life)

    def _pass_on(self, source: socket.socket, target: socket.socket | None, life: int) -> None:
        try:
            while data := source.recv(1 << 16):
                if target is not None and life == self._life and not self._is_cut:
                    target.sendall(data)
        except OSError:
            pass
        source.close()
        if target is not None and life == self._life:
            target.close()

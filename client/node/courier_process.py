"""`stsmm site courier`: the site's node works on one file, in a process with the node's minimal environment."""

import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

import client
from client.node.courier import COURIER_FOLDER, answer_file, open_desk
from client.node.gate import Gate
from client.node.node import LOCK_FILE, check_ready, environment
from client.node.process import check_flower
from client.node.reviewers import read_reviewers
from client.node.settings import PROXIES, read_settings, state_folder, write_site_file
from stsmm_core.courier.parcel import CourierError, Parcel, pack, unpack
from stsmm_core.errors import RunError, StsmmError
from stsmm_core.files import write_atomically

CONTEXTS_FOLDER = "contexts"
"""Within the state of the courier: what the app stored in its context."""
QUESTION_FILE, ANSWER_FILE = "question.parcel", "answer.parcel"
OUTPUT_FILE = "node.out"
"""What the process printed, of the last file."""
GRACE_S = 10.0
_START = (
    "import sys; sys.path.append(sys.argv.pop(1)); from client.node.courier_process import run_process; run_process()"
)


def answer(kit: Path, file: Path, out: Path) -> bool:
    """Answer a file from the server: whether the work was done now; False where it had been.

    Raises:
        StsmmError: when the kit or its settings are not in order, its node runs, or the file cannot be answered.
    """
    check_ready(kit)
    try:
        with FileLock(state_folder(kit) / LOCK_FILE, timeout=0):
            return answer_file(open_desk(kit), file, out, partial(_work, kit.resolve()))
    except Timeout:
        raise RunError(
            f"{kit}: a node of this kit runs; a site is connected or has a courier, not both. End it with "
            f"`stsmm site stop {kit}`, or wait for the other file that is being answered"
        ) from None


def run_process() -> None:
    """Entry of the process; its own software is that of the command that started it."""
    try:
        _answer(Path(sys.argv[1]))
    except StsmmError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


def _work(kit: Path, question: Parcel) -> Parcel:
    """Let a process of its own answer."""
    state = state_folder(kit) / COURIER_FOLDER
    asked, answered, output = (state / name for name in (QUESTION_FILE, ANSWER_FILE, OUTPUT_FILE))
    answered.unlink(missing_ok=True)
    write_atomically(asked, lambda temporary: temporary.write_bytes(pack(question)))
    command = [sys.executable, "-P", "-c", _START, str(Path(client.__file__).parents[1]), str(kit)]
    own = {name: value for name, value in environment(kit).items() if name.lower() not in PROXIES}
    output.touch(mode=0o600)
    try:
        with output.open("wb") as file:  # no pipe: a process of Flower may hold that open after the end
            process = subprocess.Popen(
                command, env=own, cwd=state, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        _wait(process)
        if process.returncode != 0 or not answered.exists():
            raise CourierError(f"the node could not work on the message; {output} says why, and stsmm site check {kit}")
        return unpack(answered.read_bytes())
    finally:
        asked.unlink(missing_ok=True)
        answered.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for the process; if this one is interrupted, end it and all that it started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        process.wait()
    except KeyboardInterrupt:
        for each in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, each)
                process.wait(GRACE_S)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(kit: Path) -> None:
    """Answer the question that lies in the state of the courier."""
    from client.node.courier_node import work_on  # starts Flower's node, which the command does not need

    check_flower()
    settings = read_settings(kit)
    state = state_folder(kit) / COURIER_FOLDER
    trusted = {key: reviewer.line for key, reviewer in read_reviewers(kit).items()}
    done = work_on(
        unpack((state / QUESTION_FILE).read_bytes()),
        gate=Gate(kit, settings),
        node_config={"site-file": str(write_site_file(kit, settings))},
        contexts=state / CONTEXTS_FOLDER,
        trusted=trusted if settings.policy.required_signatures else None,
    )
    write_atomically(state / ANSWER_FILE, lambda temporary: temporary.write_bytes(pack(done)))

"""A warm start for the jobs of one Snakemake: a server that has imported what they share forks for each of them.

Importing torch costs two seconds, and most jobs of a small study do less than that. Each stays a command of its own,
with its own restart and triggers; `stablevelocity <verb>` passes its arguments, folder, environment and standard
streams to the server that `STABLEVELOCITY_WARM_START` names, and waits. Without one it runs in its own process.

It takes commands of one thread only, since numerical libraries read the number when they are loaded, and is not started
where there is an accelerator, whose state no fork may inherit.

Only the standard library is imported here: this is what a job costs.
"""

import json
import os
import signal
import socket
import sys

VARIABLE = "STABLEVELOCITY_WARM_START"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_server = []  # its stdin stays open as long as this process lives


def run_warm() -> int | None:
    """Exit status of this command, run by the server; None when there is none, or not for such a command.

    A signal is passed on. When this process is killed, the server kills what it runs for it.
    """
    path = os.environ.get(VARIABLE)
    if not path or any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:  # it has ended
            return None
        request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        for number in FORWARDED:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        answer = connection.makefile().read()
    if not answer:
        sys.exit("error: the process that runs this command (a warm start of the workflow's) has died")
    status = int(answer)
    if status < 0:  # died of a signal, so this process does
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def start_server() -> None:
    """Start a server for the jobs of this process, which ends with it; none where that cannot be or one is named."""
    import atexit  # here, since no job needs them
    import shutil
    import subprocess
    import tempfile

    if os.environ.get(VARIABLE) or not sys.platform.startswith("linux") or any(map(os.path.exists, ACCELERATORS)):
        return
    folder = tempfile.mkdtemp(prefix="stablevelocity-")  # of this user alone
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(f"{folder}/socket")
        except OSError:  # the path is longer than a socket's may be
            return
        listener.listen(1000)  # commands may connect at once, and wait until the imports are done
        _server.append(
            subprocess.Popen(
                [sys.executable, "-m", "stablevelocity.cli.warm_server", str(listener.fileno())],
                env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1"),
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the commands, which pass it on
            )
        )
    os.environ[VARIABLE] = f"{folder}/socket"

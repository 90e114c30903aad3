"""The server of a warm start (`warm_start.py`): `python -m stablevelocity.cli.warm_server DESCRIPTOR` of its socket.

It has one thread and runs no operation of torch, so that a fork is a process that has just imported: the same bits come
out. It ends when its stdin is closed, and its jobs with it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import tempfile

from stablevelocity.cli import run_here
from stablevelocity.cli.warm_start import VARIABLE
from stablevelocity.provenance import read_code

# What the jobs of a small study import, and torch._dynamo, which the first AdamW does.
STAGES = (
    "cli.main cluster.launch data.stages.features data.stages.images data.stages.latents "
    "data.stages.manifests evaluation.stages evaluation.sweep_stage experiments.toy "
    "experiments.variance_study reporting.make reporting.page sampling.stages training.alignment_curve "
    "training.gradient_variance training.trainer"
)
LIBRARIES = [
    *(f"matplotlib.backends.backend_{kind}" for kind in ("agg", "pdf", "svg")),
    "sklearn.datasets",
    "torch._dynamo",
]
MODULES = [*(f"stablevelocity.{stage}" for stage in STAGES.split()), *LIBRARIES]


def serve(listener: socket.socket) -> None:
    """Fork for each command that connects, until stdin is closed."""
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        key = selector.select()[0][0]
        if key.fd == 0:
            os._exit(0)  # and the jobs with it
        elif key.fileobj is listener:
            connection = listener.accept()[0]
            request, streams = _receive(connection)
            if request:
                # One of multiprocessing's ends without Python's clean-up of modules, which takes longer than most jobs.
                job = multiprocessing.get_context("fork").Process(
                    target=_run, args=(request, streams, selector, connection, os.getpid())
                )
                job.start()
                assert job.pid
                os.setpgid(job.pid, job.pid)  # killed with what it starts
                selector.register(job.sentinel, selectors.EVENT_READ, (job, connection))
                selector.register(connection, selectors.EVENT_READ, (job, None))
            else:
                connection.close()
            for stream in streams:
                os.close(stream)
        elif key.data[1] is None:
            job, signals = key.data[0], os.read(key.fd, 100)
            with contextlib.suppress(ProcessLookupError):  # it may just have ended
                for number in signals:
                    os.kill(job.pid, number)
                if not signals:  # the command was killed
                    selector.unregister(key.fileobj)
                    os.killpg(job.pid, signal.SIGKILL)
        else:
            job, connection = key.data
            job.join()
            with contextlib.suppress(OSError):
                connection.sendall(str(job.exitcode).encode())
            with contextlib.suppress(KeyError):
                selector.unregister(connection)
            selector.unregister(job.sentinel)
            connection.close()
            job.close()


def _receive(connection: socket.socket) -> tuple[list, list[int]]:
    """(arguments, folder and environment of a command, its standard streams); nothing when it was killed meanwhile."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(head, "big")
    body = connection.recv(size, socket.MSG_WAITALL) if size else b""
    return (json.loads(body), streams) if size and len(body) == size else ([], streams)


def _run(
    request: list, streams: list[int], selector: selectors.BaseSelector, connection: socket.socket, server: int
) -> None:
    """Take the place of a command, in a forked process."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no job outlives the server
    if os.getppid() != server:
        os._exit(1)
    for other in [connection, *(key.fileobj for key in selector.get_map().values() if key.fd)]:
        other.close() if isinstance(other, socket.socket) else os.close(other)
    selector.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # New ones: Python's know whether the server's were terminals, or files in which one can seek.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    arguments, folder, environment = request
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    del os.environ[VARIABLE]  # it runs here
    sys.argv[:] = arguments
    tempfile.tempdir = None  # may have been looked up
    run_here()


if __name__ == "__main__":
    # As every job does, before the imports that read them.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["MPLBACKEND"] = "agg"
    for module in MODULES:
        with contextlib.suppress(ImportError):  # the job that needs it says so
            importlib.import_module(module)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("error: an import of the warm start has made a thread; jobs start cold")
    read_code()  # jobs run, and record, the code that was imported, whatever the files are by then
    gc.freeze()  # what was imported is not copied by a collection in a fork
    serve(socket.socket(fileno=int(sys.argv[1])))

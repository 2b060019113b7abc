"""A real Triton server on loopback, from the package nvidia-pytriton; on a CPU, without its Python part.

The package's server is Triton 2.51 with the Python backend alone, which needs numpy 1. So both are installed
into a folder of their own, without the package's other dependencies:

    python -m pip install --no-deps --target FOLDER nvidia-pytriton==0.7.0 "numpy<2"

FOLDER is the environment variable SRUP_TRITON, or `triton` in the virtual environment that runs the tests.
"""

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("SRUP_TRITON") or Path(sys.prefix) / "triton")
INSTALL = f'python -m pip install --no-deps --target {FOLDER} nvidia-pytriton==0.7.0 "numpy<2"'

_SERVER = FOLDER / "pytriton" / "tritonserver"
PYTHON_BACKEND = _SERVER / "backends" / "python"
_STUB = _SERVER / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
_LIBPYTHON = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "-")
_NOBODY = 65534
_START_SECONDS, _STOP_SECONDS = 300, 60


def missing() -> str:
    """Return why no server can run here; empty if one can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"Triton's server is for Linux x86_64, this is {sys.platform} {platform.machine()}"
    if not (_SERVER / "bin" / "tritonserver").is_file():
        return f"no Triton server; install it with: {INSTALL}"
    if not (FOLDER / "numpy").is_dir():
        return f"no numpy 1 beside the Triton server; install it with: {INSTALL}"
    if not _STUB.is_dir():
        return f"the Triton server has no Python backend for Python {sys.version.split()[0]}"
    if _LIBPYTHON.suffix == ".a" or not _LIBPYTHON.is_file():
        return "this Python is built without a shared library, which the Python backend loads"
    return ""


@contextmanager
def triton_server(repository: Path, folder: Path) -> Iterator[int]:
    """Serve a model repository; yield the port of gRPC; HTTP has the next one.

    Args:
        repository: its models are all loaded when this returns.
        folder: for the log and the backend.
    """
    backends, log = folder / "backends", folder / "server.log"
    shutil.copytree(PYTHON_BACKEND, backends / "python")
    shutil.copy(_STUB / "triton_python_backend_stub", backends / "python")
    port = _free_port()
    command = [
        *(_SERVER / "bin" / "tritonserver", f"--model-repository={repository}"),
        *(f"--backend-directory={backends}", "--allow-metrics=false", "--exit-timeout-secs=10"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={port}"),
        *("--http-address=127.0.0.1", f"--http-port={port + 1}"),
    ]
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{_LIBPYTHON.parent}:{FOLDER / 'nvidia_pytriton.libs'}",
        "PYTHONPATH": f"{FOLDER}:{ROOT}:{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    user = _unprivileged(environment, folder)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=user,
        )
    try:
        _wait_until_ready(server, port, log)
        yield port
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)  # processes of models, if any are left
            server.wait()


def _free_port() -> int:
    """Return a port that is free, as is the next."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _unprivileged(environment: dict[str, str], folder: Path) -> int | None:
    """Return a user without privileges that can run the server, where root runs the tests; else None."""
    if os.getuid() != 0:
        return None
    probe = f"import sr, numpy, os; os.listdir({str(folder)!r}); open({str(_LIBPYTHON)!r}).close()"
    ids = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
    try:
        command = [sys.executable, "-c", probe]
        answer = subprocess.run(command, env=environment, cwd="/", capture_output=True, **ids)
    except OSError:  # not even Python can be started
        return None
    return _NOBODY if answer.returncode == 0 else None


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    deadline = time.monotonic() + _START_SECONDS
    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(InferenceServerException):
                if client.is_server_ready():
                    return
            time.sleep(0.1)
    lines = log.read_text(errors="replace").splitlines()
    told = "\n".join(line for line in lines if line and line[0] not in "I|+")  # no information, no tables
    raise RuntimeError(f"the Triton server did not start:\n{told[-5000:]}")

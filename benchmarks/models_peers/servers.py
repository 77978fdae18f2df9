"""What is measured: a node, a plain nginx, LitServe. Each in a session of its own, ended as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import measure
from measure import ROOT

PEERS = ROOT / "benchmarks" / "models_peers"
LITSERVE = {"litserve": "0.2.19", "torch": "2.13.0"}
END_SECONDS = 20.0


class Server:
    """A program that listens on `port`."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._group = process.pid

    @property
    def pid(self) -> int:
        """The process that answers: the first child, where there is one."""
        return [*measure.with_children(self._group), self._group][:2][-1]

    def cpu_seconds(self) -> float:
        """Used so far by all of its processes."""
        return sum(measure.cpu_seconds(pid) for pid in measure.with_children(self._group))

    def rest(self) -> None:
        """Use no processor until `wake`."""
        os.killpg(self._group, signal.SIGSTOP)

    def wake(self) -> None:
        os.killpg(self._group, signal.SIGCONT)


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, **environment: str) -> Iterator[Server]:
    """Start it, wait until it listens, and leave nothing of it behind. Raises RuntimeError."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        measure.wait_for_port(port, process)
        yield Server(port, process)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{log.read_text()[-2000:]}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def node(**settings: object) -> Iterator[Server]:
    """A node on data of its own; `settings` by their names in grid_node.settings."""
    folder = Path(tempfile.mkdtemp(prefix="grid-bench-"))
    port = measure.free_port()
    given = {
        "data_dir": folder,
        "public_api_server_port": port,
        "scoring_processes": 0,
        "log_level": "error",
        "async_mode": "eventlet",
        **settings,
    }
    environment = {f"GRID_{name.upper()}": str(value) for name, value in given.items()}
    environment |= {"PYTHONWARNINGS": "ignore"}
    migrate = [sys.executable, "-m", "flask", "--app", "app", "db", "upgrade", "-d", "migrations"]
    quiet = subprocess.DEVNULL
    subprocess.run(migrate, cwd=ROOT, env={**os.environ, **environment}, check=True, stdout=quiet, stderr=quiet)
    gunicorn = [sys.executable, "-m", "gunicorn", "--no-control-socket", "wsgi:app"]
    try:
        with running(gunicorn, port, folder / "node.log", **environment) as server:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60).close()
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


NGINX_CONF = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
{user}
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {folder}/files; dav_methods PUT DELETE; }}
    }}
}}
"""


def nginx_program(wanted: str) -> str | None:
    """Path of nginx, or None when this machine has none."""
    return shutil.which(wanted) or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def nginx(program: str) -> Iterator[Server]:
    """A plain nginx that takes files by PUT and gives them out with sendfile."""
    folder = Path(tempfile.mkdtemp(prefix="grid-bench-"))
    (folder / "files").mkdir()
    port = measure.free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder, port=port, user=user))
    try:
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with running(command, port, folder / "log") as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def litserve_python(python: Path) -> Path:
    """The interpreter of LitServe's environment, which is made first where there is none."""
    if not python.exists():
        folder = python.parent.parent
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        wanted = [f"{name}=={version}" for name, version in LITSERVE.items()]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
    return python


@contextlib.contextmanager
def litserve(python: Path, weights: Path, batch: int) -> Iterator[Server]:
    """LitServe with one worker; `batch` 1 answers one by one."""
    port = measure.free_port()
    command = [str(python), str(PEERS / "litserve_app.py"), str(port), str(weights), str(batch)]
    with running(command, port, weights.with_suffix(".log")) as server:
        _wait_until_healthy(port)
        yield server


def _wait_until_healthy(port: int) -> None:
    """LitServe listens before its worker has the model."""
    ends = time.monotonic() + measure.START_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError("LitServe did not become healthy")


def rss_bytes(pid: int, field: str = "VmRSS") -> int:
    """`VmHWM` is the most since the last `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def ask(port: int, path: str, body: object = None) -> dict[str, object]:
    """One ordinary request; raises HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, object] = json.load(answer)
        return found

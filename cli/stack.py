"""The processes of one machine under supervisord: Prefect server, worker, MLflow UI, one service a model.

supervisord restarts what dies and stops whole process groups; this module only writes its configuration, starts it,
and waits until what it started answers.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import httpx

from everloop.adapters.automations import ensure_automations
from everloop.adapters.service import describe_service
from everloop.domain.errors import StackError
from everloop.domain.spec_values import parse_duration
from everloop.settings import PROJECT, WORK_POOL, Settings

SERVER, WORKER, MLFLOW = "prefect-server", "worker", "mlflow"


class Stack:
    """The running processes of one home; a context manager that stops them all."""

    def __init__(self, settings: Settings, *, models: Sequence[str] | None = None) -> None:
        self.settings = settings
        self.models = list(settings.model_names() if models is None else models)
        self._socket = _socket_of(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Afterwards every process runs and the Prefect server answers.

        Raises:
            StackError: this home is already up, a port is taken, or the server is not ready in time.
        """
        if _answers(self._socket):
            raise StackError(
                f"{self.settings.home} is already up; stop it with `everloop down`, or set another EVERLOOP_HOME"
            )
        self._require_free_ports()
        for folder in ("logs", "prefect", "bentoml"):
            (self.settings.home / folder).mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        config = self.settings.home / "supervisord.conf"
        config.write_text(self._configuration(), encoding="utf-8")
        config.chmod(0o600)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(config)],
            cwd=PROJECT,
            env=self.settings.environment(threads=self.settings.threads),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_for("supervisord", lambda: _answers(self._socket), SERVER)
            self._wait_for("the Prefect server", self.is_server_ready, SERVER)
            self._rpc().startProcess(WORKER, False)
            self._wait_for("the worker", self._has_work_pool, WORKER)
            self._wait_for("the MLflow server", self._is_mlflow_ready, MLFLOW)
            for model in self.models:
                self._rpc().startProcess(f"serve-{model}", False)
        except BaseException:
            self.stop()
            raise

    def deploy(self) -> None:
        """Afterwards the flows of prefect.yaml are deployed, with their schedules and automations, and alerts are sent.

        Raises:
            StackError: Prefect refuses it; the message quotes its last words.
            EverloopError: the notification block of EVERLOOP_ALERT_BLOCK does not exist.
        """
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(
            command, cwd=PROJECT, env=self.settings.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StackError(
                f"`prefect --no-prompt deploy --all` failed: {(done.stderr or done.stdout).strip()[-500:]}"
            )
        here = self.settings
        watched = [(model, parse_duration(here.spec(model).monitor.every)) for model in self.models]
        ensure_automations(watched, notify=here.alert_block or None, api=here.prefect_api)

    def addresses(self) -> list[str]:
        """One line a thing that a person may open."""
        here = self.settings
        lines = [f"Prefect   {here.prefect_api.removesuffix('/api')}", f"MLflow    http://127.0.0.1:{here.mlflow_port}"]
        lines += [f"service   {here.service_url(here.spec(model))}  ({model})" for model in self.models]
        return [*lines, f"home      {here.home}  (logs under logs/)", "Ctrl-C stops everything."]

    def wait(self) -> None:
        """Return when a person presses Ctrl-C or the process is asked to end.

        Raises:
            StackError: supervisord ended by itself.
        """
        assert self._process is not None

        def end(*_: Any) -> None:
            raise KeyboardInterrupt

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        with contextlib.suppress(KeyboardInterrupt):
            code = self._process.wait()
            if code == 0:
                return
            raise StackError(f"supervisord ended with code {code}; see {self.settings.home}/logs/supervisord.log")

    def stop(self) -> None:
        """Afterwards none of the processes runs."""
        if self._process is None:
            return
        processes = self._children()
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            for pid in processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._process = None
        self._socket.unlink(missing_ok=True)

    def pid_of(self, name: str) -> int | None:
        """The process id of one part: 'prefect-server', 'worker', 'mlflow' or 'serve-<model>'; None while it is not running.

        supervisord says 0 then, and a signal to process 0 would go to everything that the caller runs.
        """
        return int(self._rpc().getProcessInfo(name)["pid"]) or None

    def stop_part(self, name: str) -> None:
        """Afterwards one part is stopped and stays so."""
        self._rpc().stopProcess(name)

    def start_part(self, name: str) -> None:
        """Afterwards a stopped part runs again."""
        self._rpc().startProcess(name)

    def is_server_ready(self) -> bool:
        """True if the Prefect API answers."""
        return _is_ok(f"{self.settings.prefect_api}/health")

    def is_serving(self, model: str) -> bool:
        """True if the model's service answers."""
        spec = self.settings.spec(model)
        return describe_service(self.settings.service_url(spec), self.settings.api_keys(spec.serving)) is not None

    def _has_work_pool(self) -> bool:
        return _is_ok(f"{self.settings.prefect_api}/work_pools/{WORK_POOL}")

    def _is_mlflow_ready(self) -> bool:
        return _is_ok(f"http://127.0.0.1:{self.settings.mlflow_port}/health")

    def _children(self) -> list[int]:
        with contextlib.suppress(OSError, Fault):
            return [int(info["pid"]) for info in self._rpc().getAllProcessInfo() if info["pid"]]
        return []

    def _rpc(self) -> Any:
        return _supervisor(self._socket)

    def _wait_for(self, what: str, is_ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + self.settings.boot_seconds
        while not is_ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.settings.home / "logs" / f"{name}.log"
                raise StackError(f"{what} was not ready after {self.settings.boot_seconds:.0f} s; see {log}")
            time.sleep(0.2)

    def _require_free_ports(self) -> None:
        import socket

        here = self.settings
        wanted = {
            "EVERLOOP_MLFLOW_PORT": here.mlflow_port,
            **{f"the port of {m}": here.port_of(here.spec(m)) for m in self.models},
        }
        if self._starts_server:
            wanted["EVERLOOP_PREFECT_PORT"] = here.prefect_port
        for name, port in wanted.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as exc:
                    raise StackError(
                        f"port {port} of 127.0.0.1 is in use; stop what uses it or set another ({name})"
                    ) from exc

    @property
    def _starts_server(self) -> bool:
        return self.settings.prefect_api == f"http://127.0.0.1:{self.settings.prefect_port}/api"

    def _configuration(self) -> str:
        logs = self.settings.home / "logs"
        sections = [
            f"[unix_http_server]\nfile={self._socket}\nchmod=0700",
            f"[supervisord]\nlogfile={_escape(logs / 'supervisord.log')}\nsilent=true\n"
            f"pidfile={_escape(self.settings.home / 'supervisord.pid')}",
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            f"[eventlistener:reaper]\ncommand={_escape(shlex.join([sys.executable, '-m', 'cli.reaper']))}\n"
            f"directory={_escape(PROJECT)}\nevents=PROCESS_STATE_EXITED\nstderr_logfile={_escape(logs / 'reaper.log')}",
        ]
        for name, command in self._programs().items():
            sections.append(
                f"[program:{name}]\ncommand={_escape(shlex.join(command))}\ndirectory={_escape(PROJECT)}\n"
                f"autostart={'true' if name in (SERVER, MLFLOW) else 'false'}\nautorestart=true\nstartsecs=1\n"
                "startretries=1000000\nstopasgroup=true\nkillasgroup=true\nstopwaitsecs=15\nredirect_stderr=true\n"
                f"stdout_logfile={_escape(logs / name)}.log\nstdout_logfile_maxbytes=20MB\nstdout_logfile_backups=2"
            )
        return "\n\n".join(sections) + "\n"

    def _programs(self) -> dict[str, list[str]]:
        """The command of each process, by its name."""
        here, python = self.settings, [sys.executable, "-m"]
        local = ["--host", "127.0.0.1", "--port"]
        server = [*python, "prefect", "server", "start", *local, str(here.prefect_port)]
        worker = [*python, "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"]
        mlflow = [*python, "mlflow", "server", *local, str(here.mlflow_port), "--workers", "1"]
        stores = ["--backend-store-uri", here.mlflow, "--default-artifact-root", str(here.home / "mlartifacts")]
        services = {f"serve-{model}": [*python, "cli.main", "serve", model] for model in self.models}
        return {
            **({SERVER: server} if self._starts_server else {}),
            WORKER: worker,
            MLFLOW: [*mlflow, *stores],
            **services,
        }


def restart_service(settings: Settings, model: str) -> None:
    """Afterwards the model's service under a running `everloop up` is starting anew.

    Raises:
        StackError: `everloop up` does not run for this home, or does not know the model.
    """
    settings.spec(model)
    path = _socket_of(settings)
    if not _answers(path):
        raise StackError(
            f"`everloop up` does not run for {settings.home}; start it, or restart the service where you run it"
        )
    supervisor = _supervisor(path)
    try:
        supervisor.stopProcess(f"serve-{model}")
        supervisor.startProcess(f"serve-{model}")
    except Fault as exc:
        raise StackError(
            f"the service of {model} cannot be restarted: {exc.faultString}; restart `everloop up`"
        ) from exc


def shut_down(settings: Settings) -> None:
    """Afterwards no process of this home's stack runs.

    Raises:
        StackError: `everloop up` does not run for this home, or does not end.
    """
    path = _socket_of(settings)
    if not _answers(path):
        raise StackError(f"`everloop up` does not run for {settings.home}")
    _supervisor(path).shutdown()
    deadline = time.monotonic() + settings.boot_seconds
    while _answers(path) or path.exists():
        if time.monotonic() > deadline:
            raise StackError(f"supervisord of {settings.home} did not end; its process id is in supervisord.pid there")
        time.sleep(0.2)


def _socket_of(settings: Settings) -> Path:
    """A short path for the home's control socket: Unix sockets allow about 100 characters."""
    name = sha256(str(settings.home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"everloop-{os.getuid()}-{name}.sock"


def _supervisor(path: Path) -> Any:
    from supervisor.xmlrpc import SupervisorTransport

    return ServerProxy("http://127.0.0.1", SupervisorTransport(serverurl=f"unix://{path}")).supervisor


def _answers(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        return bool(_supervisor(path).getState()["statename"] == "RUNNING")
    except (OSError, Fault):
        return False


def _is_ok(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2).is_success
    return False


def _escape(text: object) -> str:
    """`text` for supervisord's configuration, where % starts a substitution."""
    return str(text).replace("%", "%%")

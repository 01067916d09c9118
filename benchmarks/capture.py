"""What was answered is kept: workers killed under load, and a disk that is full.

    python -m benchmarks.capture [--json] [--kills 20]

First part: a worker of two is ended by SIGKILL again and again while clients ask; every prediction id that a client has
received must be in the inference log. Second part: predictions are kept on a file system of eight megabytes (tmpfs, in a mount
namespace of its own); clients go on asking while it is full and after space was made. No request may fail, and the
predictions that the log does not hold must be exactly those that /metrics counts as lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lab import running_keeper, temporary_home, train_versions, worker_pids
from benchmarks.load import Client

if TYPE_CHECKING:
    from everloop.domain.spec import ModelSpec

CLIENTS = 8
MEGABYTE = 1_000_000
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--kills", type=int, default=20)
    wanted = parser.parse_args()
    _enter_own_mounts()
    with temporary_home(workers=2) as home:
        from tasks.wiring import registry

        spec, versions = train_versions(1)
        registry().promote(versions[0])
        rows = [request.row for request in registry().manifest(versions[0]).rehearsal]
        with running_keeper(spec, log=home / "keeper.log") as url:
            killed = _kill_workers(home, spec, url, rows, wanted.kills)
        with _small_disk(home / "small"):
            os.environ["EVERLOOP_CAPTURE"] = str(home / "small")
            _forget_settings()
            with running_keeper(spec, log=home / "keeper.log") as url:
                full = _fill_disk(home / "small", spec, url, rows)
    figures = killed | full
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26} {value}")


class Asking:
    """Clients that ask one row at a time until told to stop, and what they were answered."""

    def __init__(self, port: int, rows: list[dict[str, Any]]) -> None:
        self._bodies = [json.dumps({"rows": [row]}).encode() for row in rows]
        self._clients = [Client(port) for _ in range(CLIENTS)]
        self._stopped = False
        self.identifiers: list[str] = []
        self.failed = 0

    async def until(self, work: Any) -> None:
        """Ask for as long as the coroutine `work` runs."""
        asking = [asyncio.create_task(self._ask(client)) for client in self._clients]
        await work
        self._stopped = True
        await asyncio.gather(*asking)

    async def _ask(self, client: Client) -> None:
        position = 0
        while not self._stopped:
            answer = await client.post("/predict", self._bodies[position % len(self._bodies)])
            position += 1
            if answer.status == 200:
                self.identifiers += json.loads(answer.body)["prediction_ids"]
            else:
                self.failed += 1
                await asyncio.sleep(0.05)


def _kill_workers(home: Path, spec: ModelSpec, url: str, rows: list[dict[str, Any]], kills: int) -> dict[str, Any]:
    asking = Asking(spec.serving.port, rows)

    async def kill() -> None:
        for position in range(kills):
            while len(pids := await asyncio.to_thread(worker_pids, url)) < spec.serving.workers:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.3)
            os.kill(pids[position % len(pids)], signal.SIGKILL)
            print(f"killed {position + 1} of {kills} workers", file=sys.stderr)
        await asyncio.sleep(1)

    asyncio.run(asking.until(kill()))
    kept = _kept(home / "inference", spec)
    return {
        "kills": kills,
        "answered_not_captured": len(set(asking.identifiers) - kept),
        "answered_while_killing": len(asking.identifiers),
        "broken_by_a_kill": asking.failed,
    }


def _fill_disk(folder: Path, spec: ModelSpec, url: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from everloop.adapters.service import describe_service

    asking = Asking(spec.serving.port, rows)
    health: dict[str, str] = {}

    async def state() -> str:
        found = await asyncio.to_thread(describe_service, url)
        return str(found["health"]) if found else "no answer"

    async def fill() -> None:
        await asyncio.sleep(1)
        filler = folder / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(b"x" * 16 * MEGABYTE)
        await asyncio.sleep(3)
        health["while full"] = await state()
        filler.unlink()
        await asyncio.sleep(1)
        health["with space again"] = await state()
        with contextlib.suppress(OSError):
            filler.write_bytes(b"x" * 16 * MEGABYTE)
        await asyncio.sleep(2)

    asyncio.run(asking.until(fill()))
    lost = _lost(url)
    kept = _kept(folder, spec)
    return {
        "disk_full_failed": asking.failed,
        "disk_full_miscounted": abs(len(asking.identifiers) - len(kept) - lost),
        "disk_full_answered": len(asking.identifiers),
        "disk_full_captured": len(kept),
        "disk_full_lost": lost,
        "disk_full_health": health,
    }


def _kept(folder: Path, spec: ModelSpec) -> set[str]:
    from everloop.adapters.inference_log import read_captured

    return set(read_captured(folder, spec)["prediction_id"])


def _lost(url: str) -> int:
    import httpx

    found = re.findall(
        r'everloop_capture_lost_total\{kind="predictions".*\} ([0-9.e+]+)', httpx.get(f"{url}/metrics").text
    )
    return int(sum(float(value) for value in found))


@contextlib.contextmanager
def _small_disk(folder: Path) -> Any:
    """A file system of eight megabytes at `folder`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        # lazily: the last worker may not have let go of its segment yet
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _enter_own_mounts() -> None:
    """Give this process mounts of its own, so that a file system can be mounted and goes when the process ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        raise SystemExit(f"this machine allows no mount namespace ({os.strerror(ctypes.get_errno())}); run as root")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _forget_settings() -> None:
    from everloop.settings import settings

    settings.cache_clear()


if __name__ == "__main__":
    main()

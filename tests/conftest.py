"""Every test process has a home of its own, set before any tool is imported; nothing of the person's is touched."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_HOME = Path(tempfile.mkdtemp(prefix="everloop-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith(("EVERLOOP_", "PREFECT_", "MLFLOW_", "BENTOML_"))]:
    del os.environ[_name]
os.environ["EVERLOOP_HOME"] = str(_HOME / "home")

from everloop.settings import Settings  # noqa: E402 - after the environment is clean

Settings(threads=1).apply()
del os.environ["PREFECT_API_URL"]

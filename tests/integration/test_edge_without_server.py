"""What a site runs needs neither Prefect's server, its CLI nor a database: the satellite image has none of them."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    names = ("prefect.server", "prefect.cli", "sqlalchemy", "fastapi", "alembic", "asyncpg", "psycopg")

    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in self.names):
            raise ModuleNotFoundError(f"{name} is not installed at a site", name=name)

sys.meta_path.insert(0, Absent())
import harbor_satellite.cli, harbor_satellite.edge.agent
from harbor_satellite.edge.worker import own_flow

for flow in ("replicate_state", "report_status", "register_satellite"):
    assert own_flow(f"flows/{flow}.py:{flow}").name == flow.replace("_", "-")
print("complete")
"""


def test_edge_imports_without_prefect_server_or_database() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=60)

    assert done.stdout.strip() == "complete", done.stderr

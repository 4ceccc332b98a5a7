"""Logs: both kinds of loggers come out alike, on stderr, without secrets."""

import json
import subprocess
import sys

CODE = """
import logging, structlog
from pydantic import SecretStr
from shadow.observability import logs
logs.configure(level="info", json=True)
structlog.get_logger().info("workspace.created", workspace_id="ws_1", token="t0ken", key=SecretStr("k3y"))
logging.getLogger("shadow.x").info("workspace.renewed", extra={"workspace_id": "ws_2", "auth_token": "t0ken"})
logging.getLogger("shadow.x").debug("not asked for")
logging.getLogger("library").info("not ours")
"""


def test_events_and_records_come_out_alike_and_without_secrets():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    created, renewed = map(json.loads, done.stderr.splitlines())
    assert {
        "event": "workspace.created",
        "level": "info",
        "workspace_id": "ws_1",
        "token": "[hidden]",
    }.items() <= created.items()
    assert {"event": "workspace.renewed", "level": "info", "workspace_id": "ws_2"}.items() <= renewed.items()
    assert "k3y" not in done.stderr
    assert "t0ken" not in done.stderr

"""uvicorn without its command line, which ``import uvicorn`` loads too: click, multiprocessing, 2 MiB in every workspace."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _without_command_line() -> Generator[None]:
    name = "uvicorn.main"
    if "uvicorn" in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__dict__.update(Server=None, main=None, run=None)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]  # whoever wants it gets the real one


with _without_command_line():
    from uvicorn.config import Config
    from uvicorn.server import Server

__all__ = ["Config", "Server"]

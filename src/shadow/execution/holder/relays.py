"""Starts the relay to the egress proxy when somebody connects, and again when it is gone: unused, it costs one socket."""

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable

from shadow.execution.holder.config import HolderConfig, source_root
from shadow.execution.holder.loop import Loop
from shadow.execution.holder.relay import LISTEN_FD

_ABOVE_STDIO = 10
_BACKLOG = 256
_AGAIN_S = 0.2
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from shadow.execution.holder.relay import main; main()"


class RelaySupervisor:
    """``on_started`` gets the pid of each new relay."""

    def __init__(self, loop: Loop, config: HolderConfig, *, on_started: Callable[[int], None]) -> None:
        self._loop = loop
        self._config = config
        self._on_started = on_started
        self.pid: int | None = None
        self._listener: socket.socket | None = None
        if config.egress_port is not None:
            self._listener = socket.create_server(("127.0.0.1", config.egress_port), backlog=_BACKLOG)
            self._wait()

    def died(self) -> None:
        self.pid = None
        self._loop.call_later(_AGAIN_S, self._wait)  # one that cannot live is not started without pause

    def _wait(self) -> None:
        assert self._listener is not None
        self._loop.watch(self._listener.fileno(), self._start)

    def _start(self) -> None:
        assert self._listener is not None
        self._loop.unwatch(self._listener.fileno())
        # Out of the way of the number that it is to find it at.
        source = fcntl.fcntl(self._listener.fileno(), fcntl.F_DUPFD_CLOEXEC, _ABOVE_STDIO)
        refusal = (
            "This workspace may reach no host: no egress rule allows anything, or its proxy is gone.\n"
            f"Allow one: shadow workspace egress {self._config.workspace_id} --allow HOST"
        )
        argv = (sys.executable, "-I", "-S", "-c", _CODE, str(source_root()), self._config.egress_socket, refusal)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                argv,
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, source, LISTEN_FD)],
                setsid=True,
                setsigmask=(),
                setsigdef=[signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
            )
        except OSError as error:
            sys.stderr.write(f"holder: the relay does not start: {error!r}\n")
            self._loop.call_later(_AGAIN_S, self._wait)
        else:
            self._on_started(self.pid)
        finally:
            os.close(source)

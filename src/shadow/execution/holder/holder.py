"""The holder's parts put together: it answers requests, reaps, and ends the workspace when its lease is over."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import cast

from shadow.core.commands import CommandSpec, Overflow, StdinMode
from shadow.core.errors import Broken, LimitExceeded, Rejected, ShadowError
from shadow.core.terminals import TerminalSize, check_size
from shadow.execution.holder.commands import CommandTable
from shadow.execution.holder.config import HolderConfig
from shadow.execution.holder.connection import Connection
from shadow.execution.holder.journal import Journal, Record
from shadow.execution.holder.kernel import PR_SET_CHILD_SUBREAPER, prctl, send_signal
from shadow.execution.holder.loop import Loop, Timer
from shadow.execution.holder.relays import RelaySupervisor
from shadow.execution.holder.sidecars import Sidecar, SidecarSupervisor, start_sidecar
from shadow.version import __version__

SHUTDOWN_STEP_S = 0.02
SHUTDOWN_LIMIT_S = 10.0
_GROWING = frozenset({"write", "search_replace", "git_checkout"})
"""Operations of the executor that a checkout above its limits has no room for."""


class Holder:
    """``sidecar`` is the first one, which was started ahead; ``None``: there is none (in-process use)."""

    def __init__(self, config: HolderConfig, *, sidecar: Sidecar | None) -> None:
        self._config = config
        self._loop = Loop(on_children=self._reap, on_idle=self._after_events)
        self._journal = Journal(os.path.join(config.state_dir, "journal.jsonl"), epoch=config.epoch)
        self._commands = CommandTable(self._loop, self._journal, config)
        self._sidecars = SidecarSupervisor(self._loop)
        self._sidecar = sidecar
        self._relays = RelaySupervisor(self._loop, config, on_started=self._commands.helpers.add)
        self._connections = 0
        self._started_at = self._loop.time()
        self._lease: Timer | None = None
        self._shutting_down: float | None = None
        self._handlers: dict[str, Callable[[Connection, Record, bytes], Record | None]] = {
            "hello": self._hello,
            "lease": self._renew,
            "start": self._start,
            "list": lambda _c, _r, _b: {"commands": self._commands.describe_all(terminals=False)},
            "terminals": lambda _c, _r, _b: {"commands": self._commands.describe_all(terminals=True)},
            "get": lambda _c, request, _b: {"command": self._commands.get(_text(request, "command")).describe()},
            "wait": self._wait,
            "follow": self._follow,
            "unfollow": self._unfollow,
            "stdin": self._stdin,
            "type": self._type,
            "resize": self._resize,
            "signal": self._signal,
            "kill": self._kill,
            "close": self._close,
            "forget": self._forget,
            "begin": self._begin,
            "finish": self._finish,
        }

    def run(self) -> None:
        if os.getpid() != 1:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            # As PID 1 it must not be ended from inside; a manager ends it from outside, with SIGKILL.
            signal.signal(signal.SIGTERM, lambda _n, _f: self._shut_down())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        if self._config.lease_s is not None:
            self._set_lease(self._config.lease_s)
        if self._config.control_fd is not None:
            self._connect(socket.socket(fileno=self._config.control_fd))
        if self._sidecar is not None:
            self._welcome(self._sidecar)
        self._loop.run()

    # Requests

    def _connect(self, peer: socket.socket) -> None:
        self._connections += 1
        Connection(self._loop, peer, self._connections, on_request=self._request, on_closed=self._disconnected)

    def _disconnected(self, connection: Connection) -> None:
        self._commands.connection_gone(connection.number)
        if self._config.sidecar_argv is None:
            self._shut_down()

    def _request(self, connection: Connection, request: Record, blob: bytes) -> None:
        try:
            handler = self._handlers.get(_text(request, "op"))
            if handler is None:
                raise Rejected(f"The holder knows no request {request['op']!r}.")
            if "epoch" in request:
                self._journal.check_epoch(_whole(request, "epoch"))
            result = handler(connection, request, blob)
        except ShadowError as error:
            result = error
        except OSError as error:
            sys.stderr.write(f"holder: {request.get('op')}: {error!r}\n")
            result = Broken(f"The holder failed: {error.strerror}.")
        if result is not None:
            connection.answer(request.get("id"), result)

    def _reply(self, connection: Connection, request: Record) -> Callable[[Record | ShadowError], None]:
        return lambda result: connection.answer(request.get("id"), result)

    def _hello(self, _connection: Connection, _request: Record, _blob: bytes) -> Record:
        return {
            "version": __version__,
            "uptime_s": self._loop.time() - self._started_at,
            "epoch": self._journal.epoch,
            "lease_remaining_s": max(0.0, self._lease.at - self._loop.time()) if self._lease is not None else None,
            "commands_running": self._commands.visible_running,
            "sidecar_restarts": self._sidecars.restarts,
        }

    def _renew(self, _connection: Connection, request: Record, _blob: bytes) -> Record:
        lease_s = _number(request, "lease_s")
        if not 0 < lease_s < 10 * 365 * 86400:
            raise Rejected(f"A lease must be longer than 0 seconds and shorter than ten years, not {lease_s}.")
        self._set_lease(lease_s)
        return {}

    def _start(self, connection: Connection, request: Record, _blob: bytes) -> None:
        self._commands.start(
            _spec(_object(request, "spec")),
            operation=_text(request, "operation"),
            wait_s=_number(request, "wait_s") if request.get("wait_s") is not None else None,
            reply=self._reply(connection, request),
            hidden=request.get("hidden") is True,
            size=_size(request) if request.get("columns") is not None else None,
        )

    def _wait(self, connection: Connection, request: Record, _blob: bytes) -> None:
        timeout_s = _number(request, "timeout_s") if request.get("timeout_s") is not None else None
        self._commands.wait(_text(request, "command"), timeout_s=timeout_s, reply=self._reply(connection, request))

    def _follow(self, connection: Connection, request: Record, _blob: bytes) -> None:
        self._commands.follow(
            _text(request, "command"),
            after=_whole(request, "after"),
            timeout_s=_number(request, "timeout_s"),
            reader=(connection.number, _text(request, "reader")),
            reply=self._reply(connection, request),
            size=_size(request) if request.get("columns") is not None else None,
        )

    def _unfollow(self, connection: Connection, request: Record, _blob: bytes) -> Record:
        self._commands.unfollow(_text(request, "command"), (connection.number, _text(request, "reader")))
        return {}

    def _stdin(self, connection: Connection, request: Record, blob: bytes) -> None:
        self._commands.get(_text(request, "command")).stdin.write(
            blob,
            offset=_whole(request, "offset") if request.get("offset") is not None else None,
            close=request.get("close") is True,
            reply=self._reply(connection, request),
        )

    def _type(self, connection: Connection, request: Record, blob: bytes) -> None:
        self._commands.get(_text(request, "command")).stdin.type(
            blob,
            writer=_text(request, "writer"),
            offset=_whole(request, "offset"),
            reply=self._reply(connection, request),
        )

    def _resize(self, _connection: Connection, request: Record, _blob: bytes) -> Record:
        # Safe to repeat: it says what the size is to be.
        return {"command": self._commands.resize(_text(request, "command"), _size(request))}

    def _close(self, connection: Connection, request: Record, _blob: bytes) -> None:
        self._commands.close(
            _text(request, "command"),
            grace_s=_number(request, "grace_s"),
            reply=self._reply(connection, request),
        )

    def _signal(self, _connection: Connection, request: Record, _blob: bytes) -> Record:
        operation = _text(request, "operation")
        done = self._journal.begin(operation, what="signal")
        if done is None:
            try:
                done = {"command": self._commands.signal(_text(request, "command"), _whole(request, "signal"))}
            except ShadowError:
                self._journal.finish(operation, None)
                raise
            self._journal.finish(operation, done)
        return done

    def _kill(self, connection: Connection, request: Record, _blob: bytes) -> None:
        # Safe to repeat: the second finds nothing left to end.
        self._commands.kill(
            _text(request, "command"),
            grace_s=_number(request, "grace_s"),
            reply=self._reply(connection, request),
        )

    def _forget(self, _connection: Connection, request: Record, _blob: bytes) -> Record:
        self._commands.forget(_text(request, "command"))
        return {}

    def _begin(self, connection: Connection, request: Record, _blob: bytes) -> Record | None:
        operation, what = _text(request, "operation"), _text(request, "what")
        reply = self._reply(connection, request)

        def begin(refusal: LimitExceeded | None) -> None:
            try:
                reply(refusal or {"result": self._journal.begin(operation, what=what)})
            except ShadowError as error:
                reply(error)

        is_new = operation not in self._journal.operations
        if what in _GROWING and is_new and not self._commands.watch.checkout.before_write(begin):
            return None
        return {"result": self._journal.begin(operation, what=what)}

    def _finish(self, _connection: Connection, request: Record, _blob: bytes) -> Record:
        if "result" not in request:
            raise Rejected("'result' is missing.")
        self._journal.finish(_text(request, "operation"), request["result"])
        return {}

    # Life

    def _set_lease(self, lease_s: float) -> None:
        if self._lease is not None:
            self._lease.cancel()
        self._lease = self._loop.call_later(lease_s, self._shut_down)

    def _start_sidecar(self) -> None:
        if self._shutting_down is None:
            self._sidecar = start_sidecar(self._config)
            self._welcome(self._sidecar)

    def _welcome(self, sidecar: Sidecar) -> None:
        self._sidecars.started()
        self._commands.helpers.add(sidecar.pid)
        self._connect(sidecar.connection)

    def _reap(self) -> None:
        dead = self._commands.reap()
        if self._shutting_down is not None:
            return
        if self._sidecar is not None and self._sidecar.pid in dead:
            self._sidecar = None
            self._loop.call_later(self._sidecars.died(), self._start_sidecar)
        if self._relays.pid in dead:
            self._relays.died()

    def _after_events(self) -> None:
        self._commands.after_events()

    def _shut_down(self) -> None:
        """End everything, then ourselves; as PID 1 the kernel ends what is left with us."""
        if self._shutting_down is None:
            self._shutting_down = self._loop.time() + SHUTDOWN_LIMIT_S
            for pid in self._commands.helpers:
                send_signal(pid, signal.SIGKILL)
        if os.getpid() == 1 or self._commands.kill_everything() or self._loop.time() > self._shutting_down:
            self._loop.stop()
        else:
            self._loop.call_later(SHUTDOWN_STEP_S, self._shut_down)


def _spec(value: Record) -> CommandSpec:
    argv, env = value.get("argv"), _object(value, "env")
    if not isinstance(argv, list):
        raise Rejected("'argv' must be a list.")
    if not all(isinstance(text, str) for text in (*cast("list[object]", argv), *env.values())):
        raise Rejected("'argv' and the values of 'env' must be text.")
    try:
        return CommandSpec(
            argv=tuple(cast("list[str]", argv)),
            cwd=_text(value, "cwd"),
            env=env,
            stdin=StdinMode(value["stdin"]),
            timeout_s=_number(value, "timeout_s") if value.get("timeout_s") is not None else None,
            log_limit_bytes=_whole(value, "log_limit_bytes"),
            overflow=Overflow(value["overflow"]),
        )
    except (KeyError, ValueError) as error:
        raise Rejected(f"The command cannot be understood: {error}.") from error


def _object(request: Record, name: str) -> Record:
    value = request.get(name)
    if not isinstance(value, dict):
        raise Rejected(f"{name!r} must be an object.")
    return cast("Record", value)


def _size(request: Record) -> TerminalSize:
    size = TerminalSize(columns=_whole(request, "columns"), rows=_whole(request, "rows"))
    check_size(size)
    return size


def _text(request: Record, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise Rejected(f"{name!r} must be text.")
    return value


def _whole(request: Record, name: str) -> int:
    value = request.get(name)
    if not isinstance(value, int) or value < 0:
        raise Rejected(f"{name!r} must be a whole number, not below 0.")
    return value


def _number(request: Record, name: str) -> float:
    value = request.get(name)
    if not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise Rejected(f"{name!r} must be a number, not below 0.")
    return float(value)

"""The commands of a workspace: started, watched, ended, remembered."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace

from shadow.core.commands import CommandSpec, check_spec, shown_argv
from shadow.core.errors import Conflict, LimitExceeded, NotFound, Rejected, ShadowError, Unavailable
from shadow.core.ids import make_id
from shadow.core.limits import LimitKind
from shadow.core.terminals import TerminalSize, check_size
from shadow.execution.holder.config import HolderConfig
from shadow.execution.holder.journal import Journal, Record
from shadow.execution.holder.kernel import children, descendants, kill_descendants, send_signal
from shadow.execution.holder.log_files import LogWriter
from shadow.execution.holder.loop import Loop
from shadow.execution.holder.output import OutputPump, ReaderKey
from shadow.execution.holder.pty import foreground_group, set_size
from shadow.execution.holder.remembering import restore, surplus
from shadow.execution.holder.running import (
    MAX_RUNNING,
    Kill,
    Reply,
    Running,
    confinement_of,
    ending_of,
    limit_reached,
    spawn_error,
)
from shadow.execution.holder.stdin import StdinFeed
from shadow.execution.holder.stdio import open_stdio
from shadow.execution.holder.subreaper import Subreaper
from shadow.execution.holder.subreapers import SubreaperPool
from shadow.execution.holder.waiting import Waiting
from shadow.execution.holder.watch import Watch

DRAIN_QUIET_S = 0.05
DRAIN_LIMIT_S = 0.25
KILL_LIMIT_S = 5.0
KILL_PASSES = 5
SPAWN_LIMIT_S = 10.0
SWEEP_EVERY = 32
SWEEP_ABOVE_BYTES = 1024 * 1024


class CommandTable:
    """All commands. Callers get answers through ``Reply``; what cannot be done at all raises a ``ShadowError``."""

    def __init__(self, loop: Loop, journal: Journal, config: HolderConfig) -> None:
        self._loop = loop
        self._journal = journal
        self._root = config.root
        self._logs = os.path.join(config.state_dir, "commands")
        self._base_env = dict(config.base_env)
        self._command_time_s = config.limits.command_time_s
        self._file_size_limited = config.limits.file_size_bytes is not None
        self._commands: dict[str, Running] = {}
        self._by_subreaper: dict[int, Running] = {}
        self._orphaned: dict[int, Running] = {}
        """By pid of the command's own process: their subreaper was killed, so that they became our children."""
        self._strays = False
        """Whether a subreaper was killed in the middle of its work, and what it had adopted may still be coming to us."""
        self._waiting = Waiting(loop)
        self._pool = SubreaperPool(loop, confinement_of(config), on_message=self._on_message)
        self.watch = Watch(
            loop,
            config.limits,
            root=config.root,
            files_in_memory=config.files_in_memory,
            oom_fd=config.oom_fd,
            running=lambda: {c.id: c.subreaper.pid for c in self._commands.values() if c.subreaper is not None},
            end=self._reached_limit,
        )
        self._unswept = 0
        self.helpers: set[int] = set()
        """Pids of children that are nobody's commands: the sidecar, the relay."""
        self._commands.update(restore(journal, self._logs))
        loop.call_later(0.0, self._pool.keep_spare)

    # Requests

    def start(
        self,
        spec: CommandSpec,
        *,
        operation: str,
        wait_s: float | None,
        reply: Reply,
        hidden: bool = False,
        size: TerminalSize | None = None,
    ) -> None:
        """Answers when the command has started, or with ``wait_s`` when it has ended or that time is over.

        With ``size`` it is a terminal.
        """
        check_spec(spec)
        if hidden:
            try:
                self._spawn(spec, operation, hidden=True).starting.append((reply, wait_s))
            except OSError as error:
                raise _no_room(error) from error
            return
        if operation in self._journal.operations:
            for command in self._commands.values():
                if command.operation == operation:
                    self._answer_start(command, wait_s, reply)
                    return
        if self._journal.begin(operation, what="start") is not None:
            raise Conflict("This operation was done before, and what it started is forgotten by now.")
        try:
            command = self._spawn(spec, operation, size=size)
        except OSError as error:
            self._journal.finish(operation, None)
            raise _no_room(error) from error
        except ShadowError:
            self._journal.finish(operation, None)
            raise
        command.starting.append((reply, wait_s))

    def describe_all(self, *, terminals: bool) -> list[Record]:
        return [
            c.describe()
            for c in self._commands.values()
            if not c.starting and not c.hidden and (c.size is not None) is terminals
        ]

    def get(self, command_id: str) -> Running:
        """Raises: NotFound."""
        command = self._commands.get(command_id)
        if command is None:
            noun = "terminal" if command_id.startswith("term_") else "command"
            raise NotFound(f"There is no {noun} {command_id!r} in this workspace.", details={noun: command_id})
        return command

    def wait(self, command_id: str, *, timeout_s: float | None, reply: Reply) -> None:
        self._waiting.wait(self.get(command_id), after=None, timeout_s=timeout_s, reply=reply)

    def follow(
        self,
        command_id: str,
        *,
        after: int,
        timeout_s: float,
        reader: ReaderKey,
        reply: Reply,
        size: TerminalSize | None = None,
    ) -> None:
        """Answer when there is output behind ``after``, or the command has ended; ``reader`` has got that far.

        With ``size`` also when a terminal has another.
        """
        command = self.get(command_id)
        command.output.reader_at(reader, after)
        self._waiting.wait(command, after=after, timeout_s=timeout_s, reply=reply, size=size)

    def unfollow(self, command_id: str, reader: ReaderKey) -> None:
        command = self._commands.get(command_id)
        if command is not None:
            command.output.reader_gone(reader)

    def connection_gone(self, connection: int) -> None:
        for command in self._commands.values():
            command.output.connection_gone(connection)

    def signal(self, command_id: str, number: int) -> Record:
        if number not in signal.valid_signals():
            raise Rejected(f"{number} is not the number of a signal.")
        command = self.get(command_id)
        if command.status is None and command.pid is not None and command.subreaper is not None:
            pty = command.open_pty
            group = foreground_group(pty) if pty is not None else None
            send_signal(-(group or command.pid), number)
        return command.describe()

    def resize(self, command_id: str, size: TerminalSize) -> Record:
        """Nothing happens where it has ended."""
        check_size(size)
        command = self.get(command_id)
        if command.size is None:
            raise Rejected("Only a terminal has a size.")
        pty = command.open_pty
        if pty is not None and command.size != size:
            set_size(pty, size)
            command.size = size
            command.output.log.resize(size, at_s=command.output.elapsed_s)
            self._waiting.changed(command)
        return command.describe()

    def kill(self, command_id: str, *, grace_s: float, reply: Reply) -> None:
        command = self.get(command_id)
        if command.subreaper is None:
            reply({"command": command.describe()})
            return
        if command.status is None and command.wanted is None:
            command.wanted = {"kind": "killed"}
        self._end_tree(command, grace_s=grace_s, reply=reply)

    def forget(self, command_id: str) -> None:
        """Remove a hidden command that has ended, and its output. Nothing happens where it is gone."""
        command = self._commands.get(command_id)
        if command is not None and command.hidden and command.ending is not None and command.subreaper is None:
            self._drop(command)
            del self._commands[command_id]

    def close(self, command_id: str, *, grace_s: float, reply: Reply) -> None:
        """``kill``, and forget it with its output; what survives a kill stays known."""
        command = self.get(command_id)

        def killed(result: Record | ShadowError) -> None:
            if not isinstance(result, ShadowError) and command.subreaper is None:
                self._drop(command)
                self._commands.pop(command.id, None)
            reply(result)

        self.kill(command_id, grace_s=grace_s, reply=killed)

    def _drop(self, command: Running) -> None:
        """Its output, and what the journal says of it."""
        command.output.discard()
        if not command.hidden:
            with suppress(LimitExceeded):
                self._journal.command(command.id, None)

    @property
    def visible_running(self) -> int:
        """Without terminals, and without what the sidecar runs for itself."""
        return sum(1 for c in self._commands.values() if c.ending is None and c.size is None and not c.hidden)

    @property
    def running(self) -> int:
        return sum(1 for command in self._commands.values() if command.ending is None)

    # Child processes

    def reap(self) -> set[int]:
        """Collect dead children, go on with stopped ones; returns the helpers that were among the dead."""
        dead: list[tuple[int, int]] = []
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if pid == 0:
                    break
                if not os.WIFSTOPPED(status):
                    dead.append((pid, status))
                elif pid in self._pool or pid in self.helpers:
                    # A command may stop every process that it sees; ours must go on to answer.
                    send_signal(pid, signal.SIGCONT)
        for pid in [pid for pid, _ in dead if pid in self._pool]:
            self._subreaper_died(pid)
        for pid, status in dead:
            if pid in self._orphaned:
                self._exited(self._orphaned.pop(pid), status)
        if self._strays:
            self._kill_strays()
        dead_helpers = self.helpers & {pid for pid, _ in dead}
        self.helpers -= dead_helpers
        return dead_helpers

    def kill_everything(self) -> bool:
        """``True`` when nothing is left; to be called until then."""
        return self._pool.kill()

    def after_events(self) -> None:
        self._waiting.tell()

    # Starting

    def _spawn(
        self, spec: CommandSpec, operation: str, *, hidden: bool = False, size: TerminalSize | None = None
    ) -> Running:
        if self.running >= MAX_RUNNING:
            raise LimitExceeded(f"{MAX_RUNNING} commands run already.", mend="Wait for some to end, or kill them.")
        command_id = make_id("cmd" if size is None else "term", entropy=os.urandom(12))
        log = LogWriter(os.path.join(self._logs, command_id), limit_bytes=spec.log_limit_bytes, size=size)
        subreaper = self._pool.take()
        try:
            stdio = open_stdio(spec.stdin, size)
        except OSError:
            self._pool.dismiss(subreaper)
            raise
        try:
            command = Running(
                id=command_id,
                operation=operation,
                spec=replace(spec, argv=shown_argv(spec.argv), env={}),
                started_at=time.time(),
                output=OutputPump(
                    self._loop,
                    log,
                    stdio.outputs,
                    overflow=spec.overflow,
                    on_change=lambda: self._output_changed(command),
                    in_small_pieces=size is not None,
                    kept=stdio.kept,
                ),
                stdin=StdinFeed(self._loop, stdio.stdin),
                subreaper=subreaper,
                hidden=hidden,
                size=size,
                pty=stdio.pty,
            )
            # Written down before it can have an effect: after a crash it is `lost`, never started twice.
            if not hidden:
                self._journal.command(command_id, command.to_journal())
            env, cwd = {**self._base_env, **spec.env}, os.path.join(self._root, spec.cwd)
            subreaper.spawn(spec.argv, env, cwd, stdio=stdio.theirs, tty=stdio.tty)
        except (OSError, ShadowError):
            stdio.close_ours()
            self._pool.dismiss(subreaper)
            if not hidden:
                with suppress(LimitExceeded):
                    self._journal.command(command_id, None)
            raise
        finally:
            stdio.close_theirs()
        self._by_subreaper[subreaper.pid] = command
        self._commands[command_id] = command
        # A subreaper that does not answer was stopped for good; what it may have started goes with it.
        command.timeout = self._loop.call_later(SPAWN_LIMIT_S, lambda: send_signal(subreaper.pid, signal.SIGKILL))
        return command

    def _on_message(self, subreaper: Subreaper, message: list[str]) -> None:
        command = self._by_subreaper[subreaper.pid]
        match message:
            case ["P", pid]:
                self._started(command, int(pid))
            case ["F", number, what]:
                self._pool.give_back(subreaper)
                self._not_started(command, spawn_error(int(number), what, command.spec))
            case ["X", status]:
                self._exited(command, int(status))
            case ["C"]:
                del self._by_subreaper[subreaper.pid]
                command.subreaper = None
                self._pool.give_back(subreaper)
                self._answer_kill(command)
            case _:
                raise AssertionError(f"a subreaper cannot say {message!r}")

    def _started(self, command: Running, pid: int) -> None:
        command.pid = pid
        if command.timeout is not None:
            command.timeout.cancel()
        # A terminal is somebody's for as long as they want.
        command.time_s = command.spec.timeout_s or (self._command_time_s if command.size is None else None)
        if command.time_s is not None:
            command.timeout = self._loop.call_later(command.time_s, lambda: self._timed_out(command))
        self.watch.command_started()
        command.output.start()
        if not command.hidden:
            with suppress(LimitExceeded):  # it runs: a full disk now costs the memory of it after a crash, nothing else
                self._journal.finish(command.operation, {"command": command.id})
        starting, command.starting = command.starting, []
        for reply, wait_s in starting:
            self._answer_start(command, wait_s, reply)

    def _not_started(self, command: Running, error: ShadowError) -> None:
        if command.timeout is not None:
            command.timeout.cancel()
        if command.subreaper is not None:
            self._by_subreaper.pop(command.subreaper.pid, None)
            command.subreaper = None
        del self._commands[command.id]
        command.stdin.close("The command did not start.")
        command.output.discard()
        if not command.hidden:
            with suppress(LimitExceeded):
                self._journal.command(command.id, None)
                self._journal.finish(command.operation, None)
        for reply, _ in command.starting:
            reply(error)

    def _answer_start(self, command: Running, wait_s: float | None, reply: Reply) -> None:
        if command.pid is None and command.ending is None:
            command.starting.append((reply, wait_s))
        elif wait_s is None:
            reply({"command": command.describe()})
        else:
            self._waiting.wait(command, after=None, timeout_s=wait_s, reply=reply)

    # Ending

    def _output_changed(self, command: Running) -> None:
        self._waiting.changed(command)
        if command.output.closed and command.status is not None:
            self._end(command)

    def _exited(self, command: Running, status: int) -> None:
        command.status = status
        if command.timeout is not None:
            command.timeout.cancel()
        command.stdin.close("The command has ended.")
        command.output.program_ended()
        if command.output.closed:
            self._end(command)
        else:
            self._drain(command, until=self._loop.time() + DRAIN_LIMIT_S)

    def _drain(self, command: Running, *, until: float) -> None:
        """Take what is still in the pipes before the end is told; what a descendant writes later is logged all the same."""

        def look() -> None:
            command.output.take_ready()
            now = self._loop.time()
            busy = now < until and now - command.output.last_read_at < DRAIN_QUIET_S
            if command.ending is None and (busy or command.output.held):
                self._loop.call_later(DRAIN_QUIET_S, look)
            else:
                self._end(command)

        self._loop.call_later(DRAIN_QUIET_S, look)

    def _end(self, command: Running) -> None:
        if command.ending is not None:
            return
        assert command.status is not None
        command.ended_at = time.time()
        command.ending = command.wanted or self._own_ending(command.status)
        if not command.hidden:
            # A full disk must not hide the end from those who wait; after a crash it would read `lost`.
            with suppress(LimitExceeded):
                self._journal.command(command.id, command.to_journal())
        self._waiting.changed(command)
        self._answer_kill(command)
        self._unswept += 1
        if self._unswept >= SWEEP_EVERY or command.output.log.layout.kept_bytes > SWEEP_ABOVE_BYTES:
            self._unswept = 0
            self._forget_old()

    def _own_ending(self, status: int) -> Record:
        """An end by the kernel's hand is that of the limit that it keeps; shells give the signal of a child as 128 + N."""
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - 128
        if number == signal.SIGXFSZ and self._file_size_limited:
            return limit_reached(LimitKind.FILE_SIZE)
        if number == signal.SIGKILL and self.watch.has_killed_for_memory():
            return limit_reached(LimitKind.MEMORY)
        return ending_of(status)

    def _timed_out(self, command: Running) -> None:
        if command.status is None and command.wanted is None:
            command.wanted = {"kind": "timed_out", "after_s": command.time_s}
            self._end_tree(command, grace_s=0.0, reply=None)

    def _reached_limit(self, command_id: str, limit: LimitKind) -> None:
        command = self._commands[command_id]
        if command.status is None and command.wanted is None:
            command.wanted = limit_reached(limit)
        self._end_tree(command, grace_s=0.0, reply=None)

    def _end_tree(self, command: Running, *, grace_s: float, reply: Reply | None) -> None:
        now = self._loop.time()
        replies = [reply] if reply is not None else []
        if command.kill is not None:
            command.kill.replies += replies
            command.kill.term_until = min(command.kill.term_until, now + grace_s)
            return
        command.kill = Kill(term_until=now + grace_s, deadline=now + grace_s + KILL_LIMIT_S, replies=replies)
        if grace_s > 0 and command.subreaper is not None:
            for pid in descendants(command.subreaper.pid):
                if command.size is not None:
                    send_signal(pid, signal.SIGHUP)  # an interactive shell ignores the other
                send_signal(pid, signal.SIGTERM)
                send_signal(pid, signal.SIGCONT)
        self._press_kill(command)

    def _press_kill(self, command: Running) -> None:
        kill, subreaper = command.kill, command.subreaper
        if kill is None or subreaper is None:
            return
        now = self._loop.time()
        if now >= kill.term_until:
            if command.status is None and command.pid is not None:
                send_signal(-command.pid, signal.SIGKILL)
            alive = kill_descendants(subreaper.pid, passes=KILL_PASSES)
            if now >= kill.deadline:
                command.survivors = tuple(alive)
                self._answer_kill(command, anyhow=True)
                return
        self._loop.call_later(0.01, lambda: self._press_kill(command))

    def _answer_kill(self, command: Running, *, anyhow: bool = False) -> None:
        """Who asked for the end of the tree hears it when nothing is left and the ending is known."""
        if anyhow or (command.subreaper is None and command.ending is not None):
            kill, command.kill = command.kill, None
            for reply in kill.replies if kill is not None else ():
                reply({"command": command.describe()})

    # Somebody killed a subreaper

    def _subreaper_died(self, pid: int) -> None:
        self._pool.died(pid)
        self._loop.call_later(0.0, self._pool.keep_spare)
        command = self._by_subreaper.pop(pid, None)
        if command is None:
            return
        command.subreaper = None
        self._strays = True
        if command.pid is None:
            self._not_started(command, Unavailable("Who was to start the command was killed; it did not run."))
        elif command.status is None:
            self._orphaned[command.pid] = command
        else:
            self._answer_kill(command)

    def _kill_strays(self) -> None:
        """Kill children that came to us because their subreaper was killed: killed means gone, for them too."""
        strays = [pid for pid in children(os.getpid()) if pid not in self._pool and pid not in self.helpers]
        for pid in strays:
            send_signal(pid, signal.SIGKILL)
        # Each death may bring us the next generation; the signal of that death brings us here again.
        self._strays = bool(strays)
        for pid in self._orphaned.keys() - set(strays):
            command = self._orphaned.pop(pid)
            if command.wanted is None and self.watch.has_killed_for_memory():
                command.wanted = limit_reached(LimitKind.MEMORY)
            command.wanted = command.wanted or {"kind": "lost", "reason": "the process that watched it was killed"}
            self._exited(command, 0)

    # Memory

    def _forget_old(self) -> None:
        for command in surplus(list(self._commands.values())):
            self._drop(command)
            del self._commands[command.id]


def _no_room(error: OSError) -> LimitExceeded:
    return LimitExceeded(f"The workspace cannot start another process: {error.strerror}.")

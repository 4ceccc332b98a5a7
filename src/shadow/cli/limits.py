"""Limits on the command line: options turned into limits, limits into words."""

from collections.abc import Callable, Mapping

from shadow.cli.outcome import WrongUsage
from shadow.cli.text import duration_s, size, span
from shadow.core.limits import LimitKind, Limits, limits_from, parse_bytes

LIMIT_NAMES: Mapping[LimitKind, str] = {
    LimitKind.MEMORY: "memory",
    LimitKind.PROCESSES: "processes",
    LimitKind.FILE_SIZE: "a file's size",
    LimitKind.WORKSPACE_BYTES: "disk space",
    LimitKind.WORKSPACE_FILES: "files",
}


def _time(text: str) -> float:
    return duration_s(text, option="--command-time")


_OPTIONS: Mapping[str, tuple[str, Callable[[str], float | int]]] = {
    "--memory": ("memory_bytes", parse_bytes),
    "--processes": ("processes", int),
    "--cpus": ("cpus", float),
    "--open-files": ("open_files", int),
    "--file-size": ("file_size_bytes", parse_bytes),
    "--disk": ("workspace_bytes", parse_bytes),
    "--files": ("workspace_files", int),
    "--command-time": ("command_time_s", _time),
}


def limits_of(options: Mapping[str, str | None]) -> Limits:
    """Raises: WrongUsage."""
    values: dict[str, object] = {}
    for option, text in options.items():
        name, parse = _OPTIONS[option]
        try:
            values[name] = None if text is None else parse(text)
            limits_from({name: values[name]})
        except (ValueError, TypeError) as error:
            raise WrongUsage(
                f"{option} cannot be {text!r}.", mend="Give a number above 0; sizes may end in k, m, g or t: 512m, 4g."
            ) from error
    return limits_from(values)


def shown_limits(limits: Limits) -> str:
    """In one line; nothing where there are none."""
    words = {
        "memory": limits.memory_bytes and size(limits.memory_bytes),
        "processes": limits.processes,
        "cpus": limits.cpus and f"{limits.cpus:g}",
        "open files": limits.open_files,
        "file size": limits.file_size_bytes and size(limits.file_size_bytes),
        "disk": limits.workspace_bytes and size(limits.workspace_bytes),
        "files": limits.workspace_files,
        "command time": limits.command_time_s and span(limits.command_time_s),
    }
    return ", ".join(f"{name} {value}" for name, value in words.items() if value)

"""The repository's own ``.shadow/config.toml``: untrusted, bounded, and never more than commands for its own workspace."""

import tomllib

from shadow.core.errors import NotAFile, NotFound, PathRefused, Rejected
from shadow.execution.interface import ToolExecutor
from shadow.tasks.values import ProjectConfig

CONFIG = ".shadow/config.toml"
MAX_BYTES = 64 * 1024
MAX_COMMAND_CHARS = 4096
_NAMES = ("check", "setup", "services")


async def read_project_config(executor: ToolExecutor) -> ProjectConfig:
    """Raises: Rejected: it is there and cannot be understood."""
    try:
        content = await executor.read_file(CONFIG, limit_bytes=MAX_BYTES + 1)
    except (NotFound, NotAFile, PathRefused):
        return ProjectConfig()
    if len(content.content) > MAX_BYTES:
        raise Rejected(f"The repository's {CONFIG} is larger than {MAX_BYTES} bytes.")
    return parse_project_config(content.content)


def parse_project_config(data: bytes) -> ProjectConfig:
    try:
        values = tomllib.loads(data.decode())
    except ValueError as error:
        raise Rejected(f"The repository's {CONFIG} is not TOML: {error}.") from error
    for name, value in values.items():
        if name not in _NAMES:
            raise Rejected(
                f"The repository's {CONFIG} has no setting {name!r}.", mend=f"There are: {', '.join(_NAMES)}."
            )
        if not isinstance(value, str) or not 0 < len(value) <= MAX_COMMAND_CHARS or "\0" in value:
            raise Rejected(f"{name!r} in the repository's {CONFIG} must be a shell line.")
    return ProjectConfig(**values)

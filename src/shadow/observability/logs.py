"""Log events to stderr, as lines for people or as JSON; never a task's output, never a secret.

Events of ``structlog`` and records of the standard library's ``logging`` (with their ``extra``) come out alike.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import Processor

SECRET_WORDS = ("token", "secret", "password", "authorization", "api_key")


def configure(*, level: Literal["debug", "info", "warning", "error"], json: bool) -> None:
    """Set up logging for this process. Called once, by what starts the process."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    number: int = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, hide_secrets, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, hide_secrets, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    logging.getLogger("shadow").setLevel(number)  # libraries are heard from warnings on


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: values that are secrets by type or by name are replaced."""
    for key, value in event.items():
        if isinstance(value, SecretStr | SecretBytes) or any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "[hidden]"
    return event

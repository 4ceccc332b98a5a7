"""The sidecar's own log: one JSON object a line. Light enough for every workspace to have one."""

import json
import logging
import os
import traceback
from typing import TextIO

MAX_LOG_BYTES = 16 * 1024 * 1024
"""The holder begins a new file when it starts."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Of an exception: its kind and where it was raised. Its text may hold what a task wrote, which is never logged."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            **{name: value for name, value in record.__dict__.items() if name not in _STANDARD},
        }
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            entry["error"] = type(error).__name__
            entry["raised_at"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
            ]
        return json.dumps(entry, default=str)


class LogFile(logging.StreamHandler[TextIO]):
    """Writes until the file is full: nobody may fill the disk by making requests fail."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.fstat(self.stream.fileno()).st_size < MAX_LOG_BYTES:
            super().emit(record)


def configure_log(stream: TextIO) -> None:
    handler = LogFile(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # What it has to say of requests we say ourselves, by their route.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)

"""Which server the command line speaks to: ``--server`` (``SHADOW_SERVER``), else the one of the last login; and as whom."""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shadow.bootstrap import start_logging
from shadow.cli.outcome import WrongUsage
from shadow.client.addresses import server_url
from shadow.core.errors import Broken, Denied, Unauthenticated, Unsupported
from shadow.settings import Settings, config_path, load_settings

if TYPE_CHECKING:
    from shadow.client.shadow import Shadow

HERE = "none"
"""In place of an address: no server, this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """The tokens that logins brought, in a file that its owner alone reads."""

    path: Path
    current: str | None = None
    """Where the last login was."""
    tokens: dict[str, str] = field(default_factory=dict[str, str])
    """By the address of their server."""

    def save(self) -> None:
        """Raises: Denied."""
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        document = json.dumps({"current": self.current, "tokens": self.tokens}, indent=2)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            with open(new, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(document + "\n")
            new.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise Denied(f"{self.path} cannot be written: {error.strerror}.", mend="Set XDG_CONFIG_HOME.") from error


def load_logins() -> Logins:
    """Raises: Denied, Broken."""
    path = config_path().parent / "logins.json"
    try:
        found: Any = json.loads(path.read_text())
        tokens = {str(url): str(token) for url, token in found["tokens"].items()}
        return Logins(path=path, current=found["current"], tokens=tokens)
    except (FileNotFoundError, NotADirectoryError):
        return Logins(path=path)
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}.", mend="Check its permissions.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Broken(f"{path} is damaged.", mend="Remove it, and log in again.") from error


def chosen_url(settings: Settings) -> str | None:
    """``None``: this host. Raises: Rejected."""
    if settings.server == HERE:
        return None
    return server_url(settings.server) if settings.server else load_logins().current


def open_server(settings: Settings, url: str) -> "Shadow":
    """As a context manager. Raises: Unauthenticated: nobody has logged in there."""
    token = settings.server_token.get_secret_value() or load_logins().tokens.get(url)
    if token is None:
        raise Unauthenticated(
            f"You have not logged in to {url}.",
            mend=f"shadow login {url} --code CODE, with the code that the server or its administrator gives; "
            "or set SHADOW_SERVER_TOKEN.",
        )
    from shadow.client.shadow import Shadow  # its HTTP library takes 0.1 s to import

    return Shadow(url, token=token, insecure=settings.server_insecure)


@asynccontextmanager
async def open_chosen_server() -> "AsyncGenerator[Shadow]":
    """For commands that make no sense without one; logging is set up on the way. Raises: WrongUsage: none is chosen."""
    settings = load_settings()
    start_logging(settings)
    url = chosen_url(settings)
    if url is None:
        raise no_server("This")
    async with open_server(settings, url) as shadow:
        yield shadow


def no_server(what: str) -> WrongUsage:
    return WrongUsage(
        f"{what} is about a server that several people use, and none is chosen.",
        mend="`shadow login URL`, or give --server URL: shadow --server https://shadow.example …",
    )


def check_here(settings: Settings, what: str, *, mend: str = "Give --server none for this host.") -> None:
    """Raises: Unsupported: a server is chosen, and ``what`` is for this host alone."""
    url = chosen_url(settings)
    if url is not None:
        raise Unsupported(
            f"{what} works on this host alone, not at the server {url}.",
            mend=mend,
            details={"server": url},
        )

"""Addresses of servers, as people type them. No I/O."""

import ipaddress
from urllib.parse import urlsplit

from shadow.core.errors import Rejected


def server_url(text: str) -> str:
    """The address of a server, written one way; https unless it says otherwise or is this host. Raises: Rejected."""
    url = text
    try:
        if "://" not in text:
            url = f"{'http' if is_loopback(urlsplit(f'//{text}').hostname or '') else 'https'}://{text}"
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Rejected(f"{text!r} is not the address of a server: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Rejected(f"{text!r} is not the address of a server.", mend="Write it as https://shadow.example")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

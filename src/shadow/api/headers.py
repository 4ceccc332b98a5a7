"""What every answer tells browsers: it is data, for our own pages alone, and not to be kept.

Much of it was written by code in a workspace: a browser that is led to it must neither render nor run it under our origin.
"""

from starlette.types import Message, Send

HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; sandbox",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


def with_headers(send: Send) -> Send:
    """What an answer says of these itself is left as it is."""

    async def told(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            given = list(message["headers"])
            own = {name.lower() for name, _ in given}
            missing = [(name, value) for name, value in HEADERS.items() if name not in own]
            message = {**message, "headers": [*given, *missing]}
        await send(message)

    return told

"""The peer of the file benchmark: plain aiohttp on a unix socket, files without checks, atomicity or operations."""

import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    directory = Path(sys.argv[2])

    async def read(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(directory / request.match_info["name"])

    async def write(request: web.Request) -> web.Response:
        with (directory / request.match_info["name"]).open("wb") as file:
            async for piece in request.content.iter_chunked(256 * 1024):
                file.write(piece)
        return web.Response()

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/{name}", read)
    app.router.add_put("/{name}", write)
    web.run_app(app, path=sys.argv[1], print=None)


main()

"""A plain relay: aiohttp on uvloop, bytes in, bytes out. ``plain.py PORT UPSTREAM``."""

import sys

import aiohttp
import uvloop
from aiohttp import web


async def make_app() -> web.Application:
    """The application."""
    upstream = sys.argv[2]
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
    )

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": request.content_type}
        async with session.post(upstream + request.path, data=body, headers=headers) as answer:
            response = web.StreamResponse(
                status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
            )
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    async def close(_app: web.Application) -> None:
        await session.close()

    app = web.Application(client_max_size=2**25)
    app.router.add_get("/health", health)
    app.router.add_post("/v1/chat/completions", relay)
    app.on_cleanup.append(close)
    return app


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop)

"""A web server on one loopback port that can go down (connection refused) and come back on the same port."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAX_BODY_BYTES = 64 * 1024 * 1024
_SHUTDOWN_SECONDS = 0.2


def bind(preferred: int | None) -> socket.socket:
    """A socket bound to 127.0.0.1: on the preferred port if that is free, else on any free one."""
    for port in (preferred, 0) if preferred else (0,):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port or 0))
        except OSError:
            sock.close()
            if not port:
                raise
            continue
        return sock
    raise OSError("no free port on 127.0.0.1")


class Listener:
    """One server: `handler` answers every request.

    Args:
        sock: bound, not listening yet.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock
        self.port: int = sock.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None

    async def start(self, handler: Handler) -> None:
        """Begin to answer."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", handler)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        await self.up()

    async def up(self) -> None:
        """Take connections (again)."""
        if self._site is None and self._runner is not None:
            sock = self._sock or bind(self.port)
            self._sock = None
            if sock.getsockname()[1] != self.port:
                sock.close()
                raise OSError(f"port {self.port} was taken while its server was down")
            self._site = web.SockSite(self._runner, sock)
            await self._site.start()

    async def down(self) -> None:
        """Refuse connections, and cut the ones there are."""
        if self._site is None or self._runner is None:
            return
        site, self._site = self._site, None
        await site.stop()
        server = self._runner.server
        for connection in list(server.connections) if server is not None else []:
            if connection.transport is not None:
                connection.transport.abort()

    async def stop(self) -> None:
        """End for good; also before `start`."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._sock is not None:
            self._sock.close()
        self._runner = self._site = self._sock = None

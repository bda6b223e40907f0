"""
A server that takes uploads and throws them away: a bare protocol, so that the client is what is measured.

    python -m benchmarks.bulk.sink      prints its port, then serves until killed
"""

from __future__ import annotations

import asyncio
import re

__all__ = ["main"]

_FILE = (
    b'{"id":"f1","object":"file","bytes":1,"created_at":1,"filename":"x","purpose":"image",'
    b'"status":"ready","status_details":""}'
)
_LIST = b'{"object":"list","data":[],"first_id":"","last_id":"","has_more":false}'
_LENGTH = re.compile(rb"content-length: *(\d+)")


class Sink(asyncio.BufferedProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = memoryview(bytearray(1 << 20))
        self.head = b""
        self.left: int | None = None
        self.chunked = False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        if self.left is None:
            self.head += bytes(self.buffer[:count])
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.head[:end].lower()
            found = _LENGTH.search(head)
            self.chunked = b"transfer-encoding: chunked" in head
            if self.chunked:
                self.left = 0
                self._look_for_end(self.head)
            else:
                self.left = (int(found[1]) if found else 0) - (len(self.head) - end - 4)
                self._answer_at_end(head.startswith(b"get"))
        elif self.chunked:
            self._look_for_end(bytes(self.buffer[max(0, count - 16) : count]))
        else:
            self.left -= count
            self._answer_at_end(False)

    def _look_for_end(self, data: bytes) -> None:
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.left = 0
            self._answer_at_end(False)

    def _answer_at_end(self, listing: bool) -> None:
        if self.left is not None and self.left <= 0:
            self.left = None
            self.head = b""
            body = _LIST if listing else _FILE
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        pass


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

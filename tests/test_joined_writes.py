"""An answer's head and body leave in one write, and a head alone is not kept back."""

from __future__ import annotations

import asyncio

from gateway.joined_writes import JoinedWrites

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Sink(asyncio.Transport):
    """A transport that notes what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


async def turn() -> None:
    """Until what was planned for the end of this turn of the loop is done."""
    await asyncio.sleep(0)


def joined() -> tuple[JoinedWrites, Sink]:
    sink = Sink()
    return JoinedWrites(sink, asyncio.get_running_loop()), sink


def test_a_head_waits_for_its_body():
    async def work() -> None:
        transport, sink = joined()
        transport.write(HEAD)
        assert sink.written == []
        transport.write(b"body")
        transport.write(HEAD)
        transport.write(b"next")
        await turn()
        assert sink.written == [HEAD + b"body", HEAD + b"next"]

    asyncio.run(work())


def test_a_head_without_a_body_leaves_at_the_end_of_the_turn():
    async def work() -> None:
        transport, sink = joined()
        transport.write(HEAD)
        await turn()
        assert sink.written == [HEAD]

    asyncio.run(work())


def test_a_head_leaves_before_the_connection_is_closed():
    async def work() -> None:
        transport, sink = joined()
        transport.write(HEAD)
        transport.close()
        assert (sink.written, sink.closed) == ([HEAD], True)
        await turn()
        assert sink.written == [HEAD]

    asyncio.run(work())


def test_anything_else_is_sent_at_once():
    async def work() -> None:
        transport, sink = joined()
        for data in (b"HTTP/1.1 100 Continue", b"4\r\nbody\r\n", b"\r\n\r\n", b""):
            transport.write(data)
        assert b"".join(sink.written) == b"HTTP/1.1 100 Continue4\r\nbody\r\n\r\n\r\n"

    asyncio.run(work())


def test_the_rest_of_a_transport_is_there():
    async def work() -> None:
        transport, _ = joined()
        assert transport.get_extra_info("peername") == ("127.0.0.1", 1)

    asyncio.run(work())

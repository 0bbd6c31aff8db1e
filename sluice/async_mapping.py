"""Predictions for more instances than one request holds, with asyncio: as `mapping` does it with threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from sluice.async_link import AsyncLink
from sluice.calls import Calls, Prediction
from sluice.mapping import Mapped, Piece, bar, finished, pieces, rows
from sluice.predicted import Answer


async def map_in_tasks(
    link: AsyncLink, calls: Calls, mapped: Mapped, instances: Iterable[Any]
) -> AsyncIterator[Prediction]:
    """A prediction for each instance; see `Client.map`."""
    waiting: deque[tuple[Piece, asyncio.Task[Answer] | None]] = deque()
    places = asyncio.Semaphore(mapped.concurrency)

    async def ask(piece: Piece) -> Answer:
        async with places:
            return await link.run(calls.answer(mapped.target, piece.given, mapped.wanted))

    async def first() -> AsyncIterator[Prediction]:
        piece, task = waiting[0]
        answer = finished(checkpoint, piece, None if task is None else await task)
        waiting.popleft()
        for prediction in rows(await link.run(calls.read(mapped.target.model, answer)), mapped.outputs, piece.count):
            yield prediction
        tick(piece.count)

    with mapped.opened() as checkpoint, bar(mapped, instances) as tick:
        try:
            for piece in pieces(mapped, instances, checkpoint):
                waiting.append((piece, asyncio.create_task(ask(piece)) if piece.kept is None else None))
                if len(waiting) >= mapped.most_held:
                    async for prediction in first():
                        yield prediction
            while waiting:
                async for prediction in first():
                    yield prediction
        finally:
            under_way = [task for _, task in waiting if task is not None]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

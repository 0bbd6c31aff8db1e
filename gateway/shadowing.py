"""Predictions of models with a shadow or a canary: answered as all others, then counted, and a share of them copied.

The copy goes to the shadow's lane at bulk priority once its caller is answered. There are so many of them at a time,
and so many bytes; what is more is not copied, but counted as dropped.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.types import Receive

from gateway.answer_comparison import Difference, compare_answers
from gateway.figure_buffer import FigureBuffer
from gateway.submission import CallerGone, Submission
from model_store.canaries import Stage
from model_store.errors import SluiceError
from model_store.shadows import Shadow
from model_store.traffic_figures import Key, Measure
from model_store.traffic_picture import Watch
from monitoring.metrics import SHADOW_REQUESTS
from workers.errors import DeadlinePassed
from workers.lanes import Answer, Lane, Priority
from workers.protocols.body import TEXT, Body, Dialect

log = logging.getLogger(__name__)

MOST_COPIES = 64
MOST_BYTES = 32 * 1024**2
SHADOW_SECONDS = 10.0
# Read off the event loop, but in the same interpreter: a longer text would hold it for milliseconds.
COMPARED_TEXT_BYTES = 256 * 1024
COMPARED_BYTES = 4 * 1024**2
PIECE_BYTES = 64 * 1024
# What a request says that asks for the best classes only.
BEST_CLASSES = {Dialect.TENSORFLOW_SERVING: b'"top_k"', Dialect.OPEN_INFERENCE: b'"classification"'}
# The client of the lane: no id of a client is this, so that nobody's share of the workers or limits are touched.
NOBODY = "shadow"


@dataclass(frozen=True, slots=True)
class _Copy:
    """An answered request that is to be asked once more; `seconds` is what its answer took."""

    shadow: Shadow
    lane: Lane
    body: Body
    answer: Body
    seconds: float

    @property
    def size(self) -> int:
        return len(self.body.data) + len(self.answer.data)

    @property
    def short(self) -> bool:
        """Whether the answer is short enough to be compared."""
        return len(self.answer.data) <= (COMPARED_TEXT_BYTES if self.answer.head == TEXT else COMPARED_BYTES)

    def key(self, measure: Measure) -> Key:
        return Key(self.lane.model, self.shadow.run, 0, self.lane.version, measure)


def wants_best_classes(body: Body) -> bool:
    """Whether a request asks for the best classes only: of those, answers tell too little to be compared.

    Searched piece by piece, between which other threads get the interpreter: a whole body may take a tenth of a second.
    """
    wanted = BEST_CLASSES.get(Dialect(body.dialect))
    if wanted is None:
        return False
    end = len(body.data) if body.head == TEXT else min(body.head, len(body.data))
    pieces = range(0, end, PIECE_BYTES)
    return any(body.data.find(wanted, at, min(end, at + PIECE_BYTES + len(wanted))) >= 0 for at in pieces)


class Shadowing:
    """Used on one event loop; answers are compared in a thread of its own."""

    def __init__(self, submission: Submission, figures: FigureBuffer) -> None:
        self._submission = submission
        self._figures = figures
        self._copies: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compare")

    async def close(self) -> None:
        """Let copies go that are under way."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def predict(
        self, watch: Watch, lane: Lane, body: Body, seconds: float, receive: Receive | None = None
    ) -> Answer:
        """As `Submission.predict`, which it asks; what else there is to do never changes or delays the answer."""
        started = time.perf_counter()
        try:
            answer = await self._submission.predict(lane, body, seconds, receive)
        except DeadlinePassed:
            self._count(watch.stage, lane, time.perf_counter() - started, failed=True)
            raise
        except CallerGone:
            # Who gives up waiting says how long it took, not that it failed, nor that it went well: a version that
            # never answers would be promoted by callers who are less patient than this gateway.
            self._time(watch.stage, lane, time.perf_counter() - started)
            raise
        took = time.perf_counter() - started
        self._count(watch.stage, lane, took, failed=answer.status >= 500)
        shadow = watch.shadow
        if shadow is not None and answer.status == 200 and lane.version != shadow.version:
            self._maybe_copy(_Copy(shadow, lane, body, Body(answer.body, body.dialect, answer.head), took))
        return answer

    def _count(self, stage: Stage | None, lane: Lane, seconds: float, *, failed: bool) -> None:
        if stage is None or lane.version not in (stage.version, stage.stable):
            return
        key = Key(lane.model, stage.run, stage.step, lane.version, Measure.REQUESTS)
        self._figures.count(key)
        self._figures.count(key._replace(measure=Measure.ERRORS), int(failed))
        self._time(stage, lane, seconds)

    def _time(self, stage: Stage | None, lane: Lane, seconds: float) -> None:
        if stage is not None and lane.version in (stage.version, stage.stable):
            self._figures.observe(Key(lane.model, stage.run, stage.step, lane.version, Measure.SECONDS), seconds)

    def _maybe_copy(self, copy: _Copy) -> None:
        if random.random() >= copy.shadow.share:  # noqa: S311 - a sample, not a secret
            return
        full = len(self._copies) >= MOST_COPIES or self._bytes + copy.size > MOST_BYTES
        if full or not copy.short:
            self._tell(copy, Measure.DROPPED)
            return
        task = asyncio.create_task(self._run(copy))
        self._copies.add(task)
        self._bytes += copy.size
        task.add_done_callback(lambda done: self._end(done, copy))

    def _end(self, task: asyncio.Task[None], copy: _Copy) -> None:
        self._copies.discard(task)
        self._bytes -= copy.size

    async def _run(self, copy: _Copy) -> None:
        try:
            await self._ask(copy)
        except Exception:  # the task's edge: nobody awaits it, so the copy would be missing from the report
            log.exception("a copy for the shadow of model %s failed unexpectedly", copy.lane.model)
            self._tell(copy, Measure.DROPPED)

    async def _ask(self, copy: _Copy) -> None:
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._thread, wants_best_classes, copy.body):
            self._tell(copy, Measure.DROPPED)
            return
        lane = Lane(copy.lane.model, copy.shadow.version, Priority.BULK, NOBODY)
        started = time.perf_counter()
        try:
            answer = await self._submission.predict(lane, copy.body, SHADOW_SECONDS)
        except SluiceError:
            # It waited behind others for too long, or Redis is away: that is not the version's fault.
            self._tell(copy, Measure.DROPPED)
            return
        took = time.perf_counter() - started
        if answer.status != 200:
            self._tell(copy, Measure.FAILED)
            return
        other = Body(answer.body, copy.body.dialect, answer.head)
        found = await loop.run_in_executor(self._thread, compare_answers, copy.answer, other, copy.shadow)
        self._figures.observe(copy.key(Measure.STABLE_SECONDS), copy.seconds)
        self._figures.observe(copy.key(Measure.SHADOW_SECONDS), took)
        self._note(copy, found)

    def _note(self, copy: _Copy, found: Difference) -> None:
        figures = self._figures
        figures.count(copy.key(Measure.COMPARED))
        figures.count(copy.key(Measure.AGREED), int(found.agreed))
        figures.count(copy.key(Measure.WITHIN), int(found.within))
        figures.count(copy.key(Measure.INSTANCES), found.instances)
        figures.count(copy.key(Measure.TOP1), found.top1)
        if found.largest is None:
            figures.count(copy.key(Measure.UNLIKE))
        else:
            figures.observe(copy.key(Measure.DIFFERENCE), found.largest)
        SHADOW_REQUESTS.labels(copy.lane.model, copy.shadow.version, "agreed" if found.agreed else "differed").inc()

    def _tell(self, copy: _Copy, measure: Measure) -> None:
        self._figures.count(copy.key(measure))
        SHADOW_REQUESTS.labels(copy.lane.model, copy.shadow.version, measure.value).inc()

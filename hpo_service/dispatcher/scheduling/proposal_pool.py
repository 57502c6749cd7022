"""Proposals in progress, computed off the loop: a thread a study, so that no study waits for another."""

import sys
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from hpo_service.dispatcher.scheduling.propose import Proposal, propose_some
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.search.strategies.base import Advance, Start

_THREADS = 32
#: the loop asks for the interpreter after every statement, and must not wait for it as long as by default (5 ms)
_SWITCH_SECONDS = 0.0005


class Proposals:
    """Threads that compute them and the future of each study. `wake` is called when one is ready."""

    def __init__(self, wake: Callable[[], None]) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._wake = wake
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="proposals")
        self._futures: dict[int, Future[list[Proposal]]] = {}
        self._outdated: set[int] = set()
        self._yields: dict[int, int] = {}

    def request(self, study: LiveStudy, slots: int, most: int) -> None:
        """Start computing up to `most` next steps from what is committed now, unless some are being computed."""
        if study.id in self._futures:
            return
        view = study.view(slots)
        future = self._pool.submit(propose_some, study.strategy, study.space, study.resolved, view, most)
        future.add_done_callback(lambda _: self._wake())
        self._futures[study.id] = future

    def take(self, study_id: int) -> list[Proposal]:
        """The study's proposals if they are ready; they are handed out once. Raises what computing them raised.

        A step that says to do nothing is left out if it was computed before the last news.
        """
        future = self._futures.get(study_id)
        if future is None or not future.done():
            return []
        del self._futures[study_id]
        outdated = study_id in self._outdated
        self._outdated.discard(study_id)
        proposals = future.result()
        self._yields[study_id] = len(proposals)
        return [one for one in proposals if not outdated or isinstance(one.step, Advance | Start)]

    def expected(self, study_id: int) -> int:
        """How many slots the study will want: for what is ready, and for twice as many in the round after it."""
        future = self._futures.get(study_id)
        ready = 0
        if future is not None and future.done() and future.exception() is None:
            ready = len(future.result())
        return ready + 2 * max(1, ready, self._yields.get(study_id, 0))

    def outdate(self, study_id: int) -> None:
        """There is news of the study: what is being computed does not know of it."""
        if study_id in self._futures:
            self._outdated.add(study_id)

    def retain(self, study_ids: Collection[int]) -> None:
        """Forget the proposals of all other studies: they end, and nobody will ask."""
        for study_id in self._futures.keys() - set(study_ids):
            self._futures.pop(study_id).cancel()
            self._outdated.discard(study_id)
        for study_id in self._yields.keys() - set(study_ids):
            del self._yields[study_id]

    def clear(self) -> None:
        """Forget all: the memory they were computed from is gone."""
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()
        self._outdated.clear()

    def close(self) -> None:
        """End the threads without waiting for what they compute."""
        self._pool.shutdown(wait=False, cancel_futures=True)

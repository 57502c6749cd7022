"""Proposals in progress: at most one a study, computed off the loop."""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.dispatcher.placing import Proposal, propose
from hpo_service.strategies.base import Finished, Wait


class Proposals:
    """A thread that computes them and the futures of each study. `wake` is called when one is ready."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="proposals")
        self._futures: dict[int, Future[Proposal]] = {}
        self._outdated: set[int] = set()

    def request(self, study: LiveStudy, slots: int) -> None:
        """Start computing the study's next step from what is committed now, unless one is being computed."""
        if study.id in self._futures:
            return
        view = study.view(slots)
        future = self._pool.submit(propose, study.strategy, study.space, study.resolved, view)
        future.add_done_callback(lambda _: self._wake())
        self._futures[study.id] = future

    def take(self, study_id: int) -> Proposal | None:
        """The study's proposal if it is ready; it is handed out once. Raises what computing it raised.

        None, too, if it says to do nothing, and was computed before the last news.
        """
        future = self._futures.get(study_id)
        if future is None or not future.done():
            return None
        del self._futures[study_id]
        outdated = study_id in self._outdated
        self._outdated.discard(study_id)
        proposal = future.result()
        return None if outdated and isinstance(proposal.step, Wait | Finished) else proposal

    def outdate(self) -> None:
        """There is news: what is being computed does not know of it."""
        self._outdated |= self._futures.keys()

    def retain(self, study_ids: Collection[int]) -> None:
        """Forget the proposals of all other studies: they end, and nobody will ask."""
        for study_id in self._futures.keys() - set(study_ids):
            self._futures.pop(study_id).cancel()
            self._outdated.discard(study_id)

    def pending_of_others(self, study_id: int) -> int:
        """Slots that proposals of other studies will want."""
        return sum(other != study_id for other in self._futures)

    def clear(self) -> None:
        """Forget all: the memory they were computed from is gone."""
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()
        self._outdated.clear()

    def close(self) -> None:
        """End the thread without waiting for what it computes."""
        self._pool.shutdown(wait=False, cancel_futures=True)

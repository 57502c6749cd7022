"""Proposals in progress: at most one a study, computed off the loop."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.dispatcher.placing import Proposal, propose


class Proposals:
    """A thread that computes them and the futures of each study. `wake` is called when one is ready."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="proposals")
        self._futures: dict[int, Future[Proposal]] = {}

    def request(self, study: LiveStudy, slots: int) -> None:
        """Start computing the study's next step from what is committed now, unless one is being computed."""
        if study.id in self._futures:
            return
        view = study.view(slots)
        future = self._pool.submit(propose, study.strategy, study.space, study.resolved, view)
        future.add_done_callback(lambda _: self._wake())
        self._futures[study.id] = future

    def take(self, study_id: int) -> Proposal | None:
        """The study's proposal if it is ready; it is handed out once. Raises what computing it raised."""
        future = self._futures.get(study_id)
        if future is None or not future.done():
            return None
        del self._futures[study_id]
        return future.result()

    def pending_of_others(self, study_id: int) -> int:
        """Slots that proposals of other studies will want."""
        return sum(other != study_id for other in self._futures)

    def clear(self) -> None:
        """Forget all: the memory they were computed from is gone."""
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()

    def close(self) -> None:
        """End the thread without waiting for what it computes."""
        self._pool.shutdown(wait=False, cancel_futures=True)

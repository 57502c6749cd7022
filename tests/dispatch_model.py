"""What dispatch promises, as a model on two pages, and the rules by which tests shake it and the service alike."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trainer.spec import Outcome

Token = tuple[int, int]
LADDER = (100, 300, 1000)
WORKERS = ("worker-0", "worker-1")
MAX_PARALLEL = 2
MAX_ATTEMPTS = 3
_KILLS = 2
_HOPELESS_TRIALS = 3
ENDED = ("completed", "cancelled", "failed")
#: what an intent makes of a state; elsewhere it is refused
_STEERED = {
    "pause": {"queued": "paused", "running": "pausing"},
    "resume": {"paused": "running", "pausing": "running"},
    "stop": {"queued": "completed", "paused": "completed", "running": "stopping", "pausing": "stopping"},
    "cancel": {
        "queued": "cancelled",
        "paused": "cancelled",
        "running": "cancelling",
        "pausing": "cancelling",
        "stopping": "cancelling",
    },
}
#: where a state leads once nothing runs
_CONCLUDED = {"pausing": "paused", "stopping": "completed", "cancelling": "cancelled", "failing": "failed"}


@dataclass(kw_only=True)
class ModelSlice:
    """A trial on its way to a rung."""

    trial: int
    until: int
    attempt: int = 0
    state: str = "waiting"
    failures: int = 0
    kills: int = 0


@dataclass(kw_only=True)
class Model:
    """One study. Every change is one of its methods; what may not happen is an assertion."""

    max_trials: int = 4
    state: str = "queued"
    slices: dict[int, ModelSlice] = field(default_factory=dict)
    losses: dict[tuple[int, int], float] = field(default_factory=dict)
    complete: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    def running(self) -> list[Token]:
        """Tokens of the attempts that count."""
        return [(number, piece.attempt) for number, piece in self.slices.items() if piece.state == "running"]

    def started(self, token: Token, trial: int, until: int) -> None:
        """An attempt was handed out: the next of a slice that waits, or the first of a trial's next rung."""
        assert self.state in ("queued", "running"), f"{token} was started while the study is {self.state}"
        assert len(self.running()) < MAX_PARALLEL, f"{token} is one too many"
        number, attempt = token
        if number not in self.slices:
            self._require_next_rung(trial, until)
            self.slices[number] = ModelSlice(trial=trial, until=until)
        piece = self.slices[number]
        assert piece.state == "waiting", f"{token} was started, and its slice is {piece.state}"
        assert (piece.trial, piece.until, piece.attempt + 1) == (trial, until, attempt)
        piece.attempt, piece.state, self.state = attempt, "running", "running"

    def ended(self, token: Token, outcome: Outcome, loss: float | None = None, *, killed: bool = False) -> None:
        """The account of an attempt, or of its dead worker. One that does not count any more changes nothing."""
        if token not in self.running():
            return
        piece = self.slices[token[0]]
        counts = killed or outcome is Outcome.INFRA_ERROR
        piece.failures += counts
        piece.kills += killed
        if outcome is Outcome.DONE:
            assert loss is not None
            piece.state, self.losses[piece.trial, piece.until] = "done", loss
            if piece.until == LADDER[-1]:
                self.complete.add(piece.trial)
        elif outcome is Outcome.DIVERGED:
            self._fail(piece)
        elif self.state in ("stopping", "cancelling", "failing"):
            piece.state = "dropped"
        elif (killed and piece.kills >= _KILLS) or (counts and piece.failures >= MAX_ATTEMPTS):
            self._fail(piece)
            if len(self.failed) >= _HOPELESS_TRIALS and not self.losses:
                self.state = "failing"
        else:
            piece.state = "waiting"
        self._conclude()

    def taken_over(self) -> None:
        """Another dispatcher leads; the workers of the last one are gone, through no fault of any slice."""
        for piece in self.slices.values():
            if piece.state == "running":
                piece.state = "waiting"
        self._conclude()

    def steered(self, verb: str) -> None:
        """A user asked for something; what is not possible is refused."""
        self.state = _STEERED[verb].get(self.state, self.state)
        self._conclude()

    def extended(self) -> None:
        """One more trial, unless the study has ended or is about to."""
        if self.state in ("queued", "running", "pausing", "paused"):
            self.max_trials += 1

    def finished(self) -> None:
        """The strategy says that nothing is left to do."""
        assert self.state in ("queued", "running")
        assert not [piece for piece in self.slices.values() if piece.state in ("waiting", "running")]
        self.state = "completed"

    def _fail(self, piece: ModelSlice) -> None:
        piece.state = "failed"
        self.failed.add(piece.trial)

    def _require_next_rung(self, trial: int, until: int) -> None:
        known = [piece for piece in self.slices.values() if piece.trial == trial]
        assert trial < self.max_trials, f"trial {trial} is one too many"
        assert trial not in self.complete | self.failed, f"trial {trial} is over"
        assert all(piece.state == "done" for piece in known), f"trial {trial} is at two places"
        assert until == LADDER[len(known)], f"trial {trial} goes to {until} after {[piece.until for piece in known]}"

    def _conclude(self) -> None:
        if not self.running():
            self.state = _CONCLUDED.get(self.state, self.state)
        if self.state in ENDED:
            for piece in self.slices.values():
                piece.state = "dropped" if piece.state == "waiting" else piece.state


class DispatchRules(RuleBasedStateMachine):
    """Shakes the model alone: whatever may be handed out is. A subclass does the same to the service."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.held: dict[Token, str] = {}
        self.past: list[Token] = []

    @rule(data=st.data())
    def hand_out(self, data: st.DataObject) -> None:
        """Free slots are filled."""
        self.fill(data)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(
            [*[Outcome.DONE] * 4, Outcome.DIVERGED, Outcome.INFRA_ERROR, Outcome.PREEMPTED, Outcome.DONE]
        ),
        loss=st.floats(1.0, 4.0),
    )
    def end(self, data: st.DataObject, outcome: Outcome, loss: float) -> None:
        """A worker's account of what it held."""
        token = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[token]
        self.model.ended(token, outcome, loss)
        self.deliver(token, outcome, loss)

    @precondition(lambda self: self.past)
    @rule(data=st.data(), loss=st.floats(5.0, 9.0))
    def deliver_late(self, data: st.DataObject, loss: float) -> None:
        """An account comes that came before, or of an attempt that was given up, and says something else."""
        token = data.draw(st.sampled_from([token for token in self.past if token not in self.held] or [(999_999, 1)]))
        self.model.ended(token, Outcome.DONE, loss)
        self.deliver(token, Outcome.DONE, loss)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill_worker(self, data: st.DataObject) -> None:
        """It dies with what it holds."""
        worker = data.draw(st.sampled_from(sorted(set(self.held.values()))))
        for token in [token for token, holder in self.held.items() if holder == worker]:
            del self.held[token]
            self.model.ended(token, Outcome.LOST, killed=True)
        self.lose(worker)

    @rule()
    def take_over(self) -> None:
        """Another dispatcher leads."""
        self.held.clear()
        self.model.taken_over()
        self.replace_dispatcher()

    @rule(verb=st.sampled_from(["pause", "pause", "resume", "resume", "resume", "stop", "cancel"]))
    def steer(self, verb: str) -> None:
        """A user asks for something."""
        self.model.steered(verb)
        self.ask(verb)

    @rule()
    def extend(self) -> None:
        """A user allows one more trial."""
        self.model.extended()
        self.ask("extend")

    @invariant()
    def one_attempt_counts(self) -> None:
        """Losses come from slices that are done, one each; no trial is at two places; nothing is left of an end."""
        done = {(piece.trial, piece.until) for piece in self.model.slices.values() if piece.state == "done"}
        assert done == set(self.model.losses)
        opened = [piece.trial for piece in self.model.slices.values() if piece.state in ("waiting", "running")]
        assert len(opened) == len(set(opened))
        assert not opened or self.model.state not in ENDED
        assert all(piece.failures <= MAX_ATTEMPTS for piece in self.model.slices.values())

    def begun(self, token: Token, trial: int, until: int, worker: str) -> None:
        """An attempt is on a worker."""
        self.model.started(token, trial, until)
        self.held[token] = worker
        self.past.append(token)

    def possible(self) -> Iterable[tuple[Token, int, int]]:
        """All attempts that could be handed out: those that are due, next rungs, the next trial."""
        pieces = self.model.slices
        due = [
            ((number, piece.attempt + 1), piece.trial, piece.until)
            for number, piece in pieces.items()
            if piece.state == "waiting"
        ]
        new = max(pieces, default=0) + 1
        trials = range(min(self.model.max_trials, len({piece.trial for piece in pieces.values()}) + 1))
        open_to_more = [trial for trial in trials if trial not in self.model.complete | self.model.failed]
        rungs = {trial: [piece for piece in pieces.values() if piece.trial == trial] for trial in open_to_more}
        ready = [trial for trial in open_to_more if all(piece.state == "done" for piece in rungs[trial])]
        return [*due, *(((new + place, 1), trial, LADDER[len(rungs[trial])]) for place, trial in enumerate(ready))]

    def fill(self, data: st.DataObject) -> None:
        """Any of the attempts that are possible begin."""
        for token, trial, until in self.possible() if self.model.state in ("queued", "running") else ():
            if len(self.model.running()) < MAX_PARALLEL and data.draw(st.booleans()):
                self.begun(token, trial, until, WORKERS[len(self.model.running())])

    def deliver(self, token: Token, outcome: Outcome, loss: float) -> None:
        """The service hears an account."""

    def lose(self, worker: str) -> None:
        """The service loses a worker."""

    def replace_dispatcher(self) -> None:
        """The service gets another dispatcher."""

    def ask(self, verb: str) -> None:
        """The service is asked for something."""

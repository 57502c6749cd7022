"""Many trials on one warm base in one process: each a named adapter with its own optimizer, cursor and streams."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count

import torch

from trainer.accounting import ModelShape
from trainer.adapter import Adapter, activate_adapter, add_adapter, deactivate_adapter, remove_adapter
from trainer.data import DataCache, DataOrder, TrialData
from trainer.divergence import DivergenceWatch
from trainer.engines.base import Step
from trainer.errors import SnapshotError
from trainer.evaluate import Evaluation, evaluate
from trainer.model import BaseModel
from trainer.optimizer import make_optimizer, optimizer_state, restore_optimizer
from trainer.rows import total_examples
from trainer.schedule import learning_rate, total_steps
from trainer.snapshot import Snapshot, TrialState
from trainer.spec import TrialSpec
from trainer.tokens import Batch


@dataclass
class ResidentTrial:
    """A trial that lives on the base; its state between two steps is exactly what a snapshot holds."""

    spec: TrialSpec
    digest: str
    data: TrialData
    order: DataOrder
    adapter: Adapter
    optimizer: torch.optim.AdamW
    watch: DivergenceWatch
    total_examples: int
    examples_seen: int = 0
    step: int = 0

    @property
    def adapter_parameters(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.adapter.parameters)

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the last 10 steps."""
        return self.watch.recent_mean()


class ResidentEngine:
    """The engine for one device. Trials take turns, step by step; the same kernels run alone and in company."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._data = DataCache(base.tokenizer)
        self._names = count()
        self._active: Adapter | None = None

    @property
    def base_digest(self) -> str:
        """Identity of the base's weights."""
        return self._base.digest

    @property
    def shape(self) -> ModelShape:
        """What FLOP formulas need to know of the base."""
        return self._base.shape

    def admit(self, spec: TrialSpec, snapshot: Snapshot | None) -> ResidentTrial:
        """See `Engine.admit`."""
        limit = self._base.max_positions or spec.data.max_length
        data = self._data.load(spec.data, min(spec.data.max_length, limit))
        self._deactivate()
        adapter = add_adapter(self._base, f"t{next(self._names)}", spec.parameters, spec.training.seed)
        trial = ResidentTrial(
            spec=spec,
            digest=spec.digest(),
            data=data,
            order=DataOrder(spec.training.seed, len(data.train)),
            adapter=adapter,
            optimizer=make_optimizer(adapter.parameters, spec.parameters),
            watch=DivergenceWatch(),
            total_examples=total_examples(data.train_rows, spec.parameters.epochs),
        )
        if snapshot is not None:
            try:
                _restore(trial, snapshot.state)
            except SnapshotError:
                self.evict(trial)
                raise
        return trial

    def advance(self, trial: ResidentTrial, until_examples: int) -> Generator[Step, None, None]:
        """See `Engine.advance`."""
        until = min(until_examples, trial.total_examples)
        while trial.examples_seen < until:
            yield self._take_step(trial)

    def evaluate(self, trial: ResidentTrial) -> Generator[Batch, None, Evaluation]:
        """See `Engine.evaluate`."""
        batches = evaluate(self._base, trial.data.evaluation, trial.spec.training.eval_batch)
        while True:
            self._activate(trial)
            try:
                batch = next(batches)
            except StopIteration as end:
                evaluation: Evaluation = end.value
                return evaluation
            yield batch

    def snapshot(self, trial: ResidentTrial, evaluation: Evaluation | None) -> TrialState:
        """See `Engine.snapshot`."""
        losses = None
        if evaluation is not None:
            losses = {
                "loss": torch.from_numpy(evaluation.example_losses),
                "tokens": torch.from_numpy(evaluation.example_tokens),
            }
        return TrialState(
            trial_digest=trial.digest,
            base_digest=self._base.digest,
            examples_seen=trial.examples_seen,
            step=trial.step,
            total_examples=trial.total_examples,
            micro_batch=trial.spec.training.micro_batch,
            divergence=trial.watch.state(),
            adapter={name: weight.detach().to("cpu", copy=True) for name, weight in trial.adapter.weights.items()},
            adapter_config=trial.adapter.config_json,
            optimizer=optimizer_state(trial.optimizer, trial.adapter.weights),
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            eval_losses=losses,
        )

    def evict(self, trial: ResidentTrial) -> None:
        """See `Engine.evict`."""
        if self._active is trial.adapter:
            self._deactivate()
        remove_adapter(trial.adapter)
        trial.optimizer.state.clear()
        self._base.check_unchanged()

    def _activate(self, trial: ResidentTrial) -> None:
        if self._active is not trial.adapter:
            self._deactivate()
            activate_adapter(trial.adapter)
            self._active = trial.adapter

    def _deactivate(self) -> None:
        if self._active is not None:
            deactivate_adapter(self._active)
            self._active = None

    def _take_step(self, trial: ResidentTrial) -> Step:
        parameters, micro_batch = trial.spec.parameters, trial.spec.training.micro_batch
        start = trial.examples_seen
        stop = min(start + parameters.effective_batch, trial.total_examples)
        batches = {
            first: trial.data.train.batch(trial.order.indices(first, min(first + micro_batch, stop)), self._base.device)
            for first in range(start, stop, micro_batch)
        }
        self._activate(trial)
        self._base.use_activation_checkpointing(trial.spec.training.activation_checkpointing)
        loss = self._backward(trial, batches)
        norm = torch.nn.utils.clip_grad_norm_(trial.adapter.parameters, parameters.max_grad_norm)
        rate = learning_rate(parameters, trial.step, total_steps(trial.total_examples, parameters.effective_batch))
        trial.watch.observe(loss, float(norm))
        trial.optimizer.param_groups[0]["lr"] = rate
        trial.optimizer.step()
        trial.optimizer.zero_grad(set_to_none=True)
        trial.step += 1
        trial.examples_seen = stop
        tokens = sum(batch.tokens for batch in batches.values())
        squared_tokens = sum(batch.squared_tokens for batch in batches.values())
        return Step(
            step=trial.step,
            examples_seen=stop,
            loss=loss,
            gradient_norm=float(norm),
            learning_rate=rate,
            examples=stop - start,
            tokens=tokens,
            flops=self.shape.train_flops(trial.adapter_parameters, tokens, squared_tokens),
        )

    def _backward(self, trial: ResidentTrial, batches: dict[int, Batch]) -> float:
        """Accumulate the gradient of the mean over all response tokens of `batches`; returns that mean."""
        response_tokens = sum(batch.response_tokens for batch in batches.values())
        total = torch.zeros((), dtype=torch.float64, device=self._base.device)
        try:
            for position, batch in batches.items():
                trial.adapter.clock.position = position
                nll = self._base.nll(batch).sum()
                (nll / response_tokens).backward()  # type: ignore[no-untyped-call]
                total += nll.detach()
        finally:
            trial.adapter.clock.position = None
        return total.item() / response_tokens


def _restore(trial: ResidentTrial, state: TrialState) -> None:
    """Continue from `state`. Raises SnapshotError if it is not of this trial."""
    if state.trial_digest != trial.digest or state.adapter.keys() != trial.adapter.weights.keys():
        raise SnapshotError("the snapshot belongs to another trial")
    with torch.no_grad():
        for name, weight in trial.adapter.weights.items():
            weight.copy_(state.adapter[name])
    restore_optimizer(trial.optimizer, trial.adapter.weights, state.optimizer, state.step)
    trial.watch = DivergenceWatch.restore(state.divergence)
    trial.step, trial.examples_seen = state.step, state.examples_seen

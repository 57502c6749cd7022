"""Many trials on one warm base in one process: each a named adapter with its own optimizer, cursor and streams."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count

import torch

from trainer.common.errors import SnapshotError
from trainer.data.batches import Batch
from trainer.data.dataset import DataCache, DataOrder, Judged, TrialData, require_same_data
from trainer.data.rows import total_examples
from trainer.data.token_cache import TokenCache
from trainer.memory.micro_batch import Admission, MemoryPlan, architecture_of, usable_memory_bytes
from trainer.model.adapter import Adapter, activate_adapter, add_adapter, deactivate_adapter, remove_adapter
from trainer.model.base_model import BaseModel
from trainer.model.keyed_random import token_keys
from trainer.snapshots.snapshot import Snapshot, TrialState
from trainer.spec import DataFingerprints, Notice, TrialSpec
from trainer.training.divergence import DivergenceWatch
from trainer.training.engines.base import Step
from trainer.training.engines.warm_base import WarmBase
from trainer.training.evaluate import BatchWork, Evaluation, evaluate
from trainer.training.lr_schedule import learning_rate, total_steps
from trainer.training.optimizer import (
    check_optimizer,
    make_optimizer,
    optimizer_state,
    release_optimizer,
    restore_optimizer,
    set_learning_rate,
)


@dataclass
class ResidentTrial:
    """A trial that lives on the base; its state between two steps is exactly what a snapshot holds."""

    spec: TrialSpec
    digest: str
    data: TrialData
    order: DataOrder
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    watch: DivergenceWatch
    plan: MemoryPlan
    total_examples: int
    examples_seen: int = 0
    step: int = 0

    @property
    def adapter_parameters(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.adapter.parameters)

    @property
    def data_fingerprints(self) -> DataFingerprints:
        """What its data are."""
        return self.data.fingerprints

    def left_out(self) -> Notice | None:
        """Tells of rows of its data that are left out."""
        return self.data.left_out()

    @property
    def recent_loss(self) -> float | None:
        """Mean training loss of the last 10 steps."""
        return self.watch.recent_mean()


class ResidentEngine(WarmBase):
    """The engine for one device. Trials take turns, step by step; the same kernels run alone and in company."""

    def __init__(self, base: BaseModel, token_cache: TokenCache) -> None:
        self._base = base
        self._data = DataCache(base.tokenizer, token_cache)
        self._admission = Admission(architecture_of(base), base.attention, usable_memory_bytes(base.device))
        self._names = count()
        self._active: Adapter | None = None

    def fits(self, spec: TrialSpec) -> bool:
        """See `Engine.fits`."""
        return spec.model == self._base.spec

    def plan(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> MemoryPlan:
        """See `Engine.plan`."""
        resumed = snapshot.state.micro_batch if snapshot else None
        return self._admission.plan(spec, self._load(spec, snapshot), resumed, micro_batch)

    def admit(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> ResidentTrial:
        """See `Engine.admit`."""
        if snapshot is not None and snapshot.state.trial_digest != spec.digest():
            raise SnapshotError("the snapshot belongs to another trial")
        data = self._load(spec, snapshot)
        plan = self._admission.plan(spec, data, snapshot.state.micro_batch if snapshot else None, micro_batch)
        self._deactivate()
        if spec.data.packing:
            self._base.check_packing()
        check_optimizer(spec.parameters, self._base.device)
        saved = snapshot.state.adapter if snapshot is not None else None
        adapter = add_adapter(self._base, f"t{next(self._names)}", spec.parameters, spec.training.seed, saved)
        trial = ResidentTrial(
            spec=spec,
            digest=spec.digest(),
            data=data,
            order=DataOrder(spec.training.seed, len(data.train)),
            adapter=adapter,
            optimizer=make_optimizer(adapter.weights, spec.parameters),
            watch=DivergenceWatch(),
            plan=plan,
            total_examples=total_examples(data.train_rows, spec.parameters.epochs),
        )
        if snapshot is not None:
            try:
                _restore(trial, snapshot.state)
            except Exception:
                self.evict(trial)
                raise
        return trial

    def advance(self, trial: ResidentTrial, until_examples: int) -> Generator[Step, None, None]:
        """See `Engine.advance`."""
        until = min(until_examples, trial.total_examples)
        while trial.examples_seen < until:
            watched = trial.watch.state()
            try:
                step = self._take_step(trial)
            except BaseException:
                # Back to the boundary before: nothing of the failed step stays.
                trial.optimizer.zero_grad(set_to_none=True)
                trial.watch = DivergenceWatch.restore(watched)
                raise
            yield step

    def evaluate(self, trial: ResidentTrial, part: Judged = "evaluation") -> Generator[BatchWork, None, Evaluation]:
        """See `Engine.evaluate`."""
        batches = evaluate(self._base, trial.data.judged(part), trial.plan.eval_batch)
        while True:
            self._activate(trial)
            try:
                work = next(batches)
            except StopIteration as end:
                evaluation: Evaluation = end.value
                return evaluation
            yield work

    def snapshot(self, trial: ResidentTrial, evaluation: Evaluation | None) -> TrialState:
        """See `Engine.snapshot`."""
        return TrialState(
            trial_digest=trial.digest,
            base_digest=self._base.digest,
            data_fingerprints=trial.data_fingerprints,
            examples_seen=trial.examples_seen,
            step=trial.step,
            total_examples=trial.total_examples,
            micro_batch=trial.plan.micro_batch,
            divergence=trial.watch.state(),
            adapter=trial.adapter.export(),
            adapter_config=trial.adapter.config_json,
            optimizer=optimizer_state(trial.optimizer, trial.adapter.weights),
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            eval_losses=evaluation.tensors() if evaluation else None,
        )

    def halve(self, trial: ResidentTrial) -> bool:
        """See `Engine.halve`."""
        plan = self._admission.halved(trial.plan, trial.spec, trial.data)
        if plan is None:
            return False
        trial.plan = plan
        return True

    def evict(self, trial: ResidentTrial) -> None:
        """See `Engine.evict`."""
        if self._active is trial.adapter:
            self._deactivate()
        remove_adapter(trial.adapter)
        release_optimizer(trial.optimizer)
        self._base.check_unchanged()

    def close(self) -> None:
        """See `Engine.close`: the base goes with the engine."""

    def _load(self, spec: TrialSpec, snapshot: Snapshot | None = None) -> TrialData:
        max_length = min(spec.data.max_length, self._base.max_positions or spec.data.max_length)
        data = self._data.load(spec.data, max_length)
        if snapshot is not None:
            require_same_data(spec.data, snapshot.state.data_fingerprints, data.fingerprints)
        return data

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
        parameters, micro_batch = trial.spec.parameters, trial.plan.micro_batch
        start = trial.examples_seen
        stop = min(start + parameters.effective_batch, trial.total_examples)
        started_at = time.perf_counter()
        batches = {
            first: trial.data.train.batch(trial.order.indices(first, min(first + micro_batch, stop)), self._base.device)
            for first in range(start, stop, micro_batch)
        }
        data_seconds = time.perf_counter() - started_at
        self._activate(trial)
        recomputing = trial.spec.training.activation_checkpointing
        self._base.use_activation_checkpointing(recomputing)
        loss = self._backward(trial, batches)
        norm = torch.nn.utils.clip_grad_norm_(trial.adapter.parameters, parameters.max_grad_norm)
        rate = learning_rate(parameters, trial.step, total_steps(trial.total_examples, parameters.effective_batch))
        trial.watch.observe(loss, float(norm))
        set_learning_rate(trial.optimizer, rate)
        trial.optimizer.step()
        trial.optimizer.zero_grad(set_to_none=True)
        trial.step += 1
        trial.examples_seen = stop
        tokens = sum(batch.tokens for batch in batches.values())
        learned_tokens = sum(batch.response_tokens for batch in batches.values())
        squared_tokens = sum(batch.squared_tokens for batch in batches.values())
        trained, shape = trial.adapter_parameters, self.shape
        return Step(
            step=trial.step,
            examples_seen=stop,
            loss=loss,
            gradient_norm=float(norm),
            learning_rate=rate,
            examples=stop - start,
            tokens=tokens,
            flops=shape.train_flops(
                trained, tokens=tokens, learned_tokens=learned_tokens, squared_tokens=squared_tokens
            ),
            recomputed_flops=(
                shape.recomputed_flops(trained, tokens=tokens, squared_tokens=squared_tokens) if recomputing else 0.0
            ),
            data_seconds=data_seconds,
        )

    def _backward(self, trial: ResidentTrial, batches: dict[int, Batch]) -> float:
        """Accumulate the gradient of the mean over all response tokens of `batches`; returns that mean."""
        response_tokens = sum(batch.response_tokens for batch in batches.values())
        total = torch.zeros((), dtype=torch.float64, device=self._base.device)
        try:
            for position, batch in batches.items():
                trial.adapter.clock.tokens = token_keys(trial.spec.training.seed, position, batch)
                nll = self._base.nll(batch).sum()
                (nll / response_tokens).backward()  # type: ignore[no-untyped-call]
                total += nll.detach()
        finally:
            trial.adapter.clock.tokens = None
        return total.item() / response_tokens


def _restore(trial: ResidentTrial, state: TrialState) -> None:
    """Continue from `state`, whose adapter `trial` has already. Raises SnapshotError if its optimizer does not fit."""
    restore_optimizer(trial.optimizer, trial.adapter.weights, state.optimizer, state.step)
    trial.watch = DivergenceWatch.restore(state.divergence)
    trial.step, trial.examples_seen = state.step, state.examples_seen

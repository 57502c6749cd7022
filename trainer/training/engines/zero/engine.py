"""Trials on a base that is partitioned over the ranks of a worker group, one at a time, swapped in place."""

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import torch

from trainer.common.errors import SnapshotError, UserError
from trainer.data.dataset import DataCache, DataOrder, Judged, TrialData, require_same_data
from trainer.data.rows import total_examples
from trainer.data.token_cache import TokenCache
from trainer.distributed.ranks import Ranks
from trainer.memory.micro_batch import Admission, MemoryPlan, architecture_of, usable_memory_bytes
from trainer.model.adapter import exported_config_json, lora_config
from trainer.model.keyed_random import token_keys
from trainer.snapshots.snapshot import Snapshot, TrialState
from trainer.spec import DataFingerprints, Notice, TrialSpec, ZeroSettings
from trainer.training.divergence import DivergenceWatch
from trainer.training.engines.base import Step
from trainer.training.engines.warm_base import WarmBase
from trainer.training.engines.zero.base import PartitionedBase
from trainer.training.engines.zero.config import deepspeed_config
from trainer.training.engines.zero.deepspeed import ZeroModule, load_deepspeed, wrap
from trainer.training.engines.zero.limits import check
from trainer.training.engines.zero.pieces import Piece, pieces_of, work_of
from trainer.training.engines.zero.slots import Room, Slots, names_of, room_for
from trainer.training.engines.zero.state import MOMENTS, WEIGHT, Parts, SharedState
from trainer.training.evaluate import BatchWork, Evaluation, evaluate
from trainer.training.lr_schedule import learning_rate, total_steps
from trainer.training.optimizer import set_learning_rate


@dataclass
class ZeroTrial:
    """A trial of the group. `parked` is this rank's part of it while another trial has the engine."""

    spec: TrialSpec
    digest: str
    data: TrialData
    order: DataOrder
    watch: DivergenceWatch
    plan: MemoryPlan
    total_examples: int
    adapter_parameters: int
    parked: Parts
    examples_seen: int = 0
    step: int = 0

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


class ZeroEngine(WarmBase):
    """The engine of a worker group. Every method is called by all ranks together, with the same arguments.

    An exception other than `Diverged` that `advance` or `evaluate` raises on one rank may leave the others waiting:
    the group must end then. If memory ran out, who gave the group its slice tries it again on a fresh one, with
    `Slice.micro_batch`.
    """

    _base: PartitionedBase

    def __init__(self, spec: TrialSpec, device: torch.device, ranks: Ranks, token_cache: TokenCache) -> None:
        """Load and partition the base of `spec`, with room for its adapters and for those of its study.

        Raises:
            UserError: the model cannot be loaded, or the spec asks for what this engine does not do.
        """
        check(spec, ranks)
        load_deepspeed(ranks)
        zero, dtype = spec.training.zero, spec.model.resolved_dtype
        self._base = PartitionedBase(spec.model, device, ranks, deepspeed_config(zero, dtype))
        architecture = architecture_of(self._base)
        self._slots = Slots(self._base, room_for(spec, self._base.linear_modules), spec.parameters)
        self._engine = _wrapped(self._base, self._slots, zero)
        self._base.attach(self._engine)
        architecture = replace(architecture, logits_everywhere=not self._base.has_head_apart)
        # Devices of one model may differ by a little: the smallest decides for all.
        usable_bytes = min(int(part) for part in ranks.gather(torch.tensor(usable_memory_bytes(device))))
        self._admission = Admission(architecture, self._base.attention, usable_bytes)
        self._state = SharedState(self._engine.optimizer, self._slots, ranks)
        self._data = DataCache(self._base.tokenizer, token_cache)
        self._ranks = ranks
        self._key = (spec.model, zero)
        self._active: ZeroTrial | None = None

    def fits(self, spec: TrialSpec) -> bool:
        """Whether a trial of `spec` can use this engine as it was made."""
        return self._key == (spec.model, spec.training.zero) and self._room(spec) == self._slots.room

    def plan(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> MemoryPlan:
        """See `Engine.plan`."""
        known = (snapshot.state.micro_batch if snapshot else None, micro_batch)
        plan, _ = self._ranks.attempt(lambda: self._admission.plan(spec, self._load(spec, snapshot), *known))
        return plan

    def admit(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None = None) -> ZeroTrial:
        """See `Engine.admit`."""
        trial, _ = self._ranks.attempt(lambda: self._admitted(spec, snapshot, micro_batch))
        if spec.data.packing:
            self._base.check_packing()
        return trial

    def advance(self, trial: ZeroTrial, until_examples: int) -> Generator[Step, None, None]:
        """See `Engine.advance`."""
        until = min(until_examples, trial.total_examples)
        while trial.examples_seen < until:
            watched = trial.watch.state()
            try:
                step = self._take_step(trial)
            except BaseException:
                # Back to the boundary before; the next gradient starts anew anyway.
                trial.watch = DivergenceWatch.restore(watched)
                raise
            yield step

    def evaluate(self, trial: ZeroTrial, part: Judged = "evaluation") -> Generator[BatchWork, None, Evaluation]:
        """See `Engine.evaluate`."""
        batches = evaluate(self._base, trial.data.judged(part), trial.plan.eval_batch, self._ranks)
        while True:
            self._activate(trial)
            try:
                work = next(batches)
            except StopIteration as end:
                evaluation: Evaluation = end.value
                return evaluation
            yield work

    def snapshot(self, trial: ZeroTrial, evaluation: Evaluation | None) -> TrialState:
        """See `Engine.snapshot`; weights and moments are whole on rank 0 and left out elsewhere."""
        self._activate(trial)
        parameters = trial.spec.parameters
        modules = self._slots.modules(parameters)
        names = names_of(modules)
        fields = (WEIGHT, *(MOMENTS if trial.step else ()))
        own = {
            field: {
                name: self._slots.narrowed(name, full, parameters.lora_r)
                for name, full in self._state.whole(field).items()
                if name in names
            }
            for field in fields
        }
        return TrialState(
            trial_digest=trial.digest,
            base_digest=self._base.digest,
            data_fingerprints=trial.data_fingerprints,
            examples_seen=trial.examples_seen,
            step=trial.step,
            total_examples=trial.total_examples,
            micro_batch=trial.plan.micro_batch,
            divergence=trial.watch.state(),
            adapter=dict(sorted(own[WEIGHT].items())),
            adapter_config=exported_config_json(lora_config(self._base, parameters, modules), parameters),
            optimizer={f"{moment}.{name}": value for moment in fields[1:] for name, value in own[moment].items()},
            eval_loss=evaluation.loss if evaluation else None,
            eval_tokens=evaluation.tokens if evaluation else None,
            eval_losses=evaluation.tensors() if evaluation else None,
        )

    def halve(self, trial: ZeroTrial) -> bool:
        """See `Engine.halve`: never, for a rank whose memory ran out has left the others in the middle of a step."""
        return False

    def evict(self, trial: ZeroTrial) -> None:
        """See `Engine.evict`."""
        if self._active is trial:
            self._active = None
        trial.parked = []
        self._base.check_unchanged()

    def close(self) -> None:
        """See `Engine.close`: DeepSpeed would keep hold of the base."""
        self._engine.destroy()

    def _load(self, spec: TrialSpec, snapshot: Snapshot | None = None) -> TrialData:
        max_length = min(spec.data.max_length, self._base.max_positions or spec.data.max_length)
        data = self._data.load(spec.data, max_length)
        if snapshot is not None:
            require_same_data(spec.data, snapshot.state.data_fingerprints, data.fingerprints)
        return data

    def _room(self, spec: TrialSpec) -> Room:
        return room_for(spec, self._base.linear_modules)

    def _admitted(self, spec: TrialSpec, snapshot: Snapshot | None, micro_batch: int | None) -> ZeroTrial:
        check(spec, self._ranks)
        # First, since it says better what is wrong.
        self._room(spec)
        if not self.fits(spec):
            raise UserError("the trial needs another base or larger adapters than those of this worker group")
        if snapshot is not None and snapshot.state.trial_digest != spec.digest():
            raise SnapshotError("the snapshot belongs to another trial")
        data = self._load(spec, snapshot)
        trial = ZeroTrial(
            spec=spec,
            digest=spec.digest(),
            data=data,
            order=DataOrder(spec.training.seed, len(data.train)),
            watch=DivergenceWatch(),
            plan=self._admission.plan(spec, data, snapshot.state.micro_batch if snapshot else None, micro_batch),
            total_examples=total_examples(data.train_rows, spec.parameters.epochs),
            adapter_parameters=self._slots.elements(spec.parameters),
            parked=[],
        )
        if snapshot is None:
            started = {WEIGHT: self._slots.start(spec.parameters, spec.training.seed)}
            trial.parked = self._state.cut(started, spec.parameters.lora_r)
        else:
            self._restore(trial, snapshot.state)
        return trial

    def _restore(self, trial: ZeroTrial, state: TrialState) -> None:
        """Continue from `state`, which may have been taken of any number of ranks."""
        names = set(names_of(self._slots.modules(trial.spec.parameters)))
        tensors = {WEIGHT: state.adapter}
        if state.step:
            tensors |= {
                moment: {name: state.optimizer[f"{moment}.{name}"] for name in names & _named(state.optimizer, moment)}
                for moment in MOMENTS
            }
        for field, saved in tensors.items():
            if saved.keys() != names:
                raise SnapshotError(f"the snapshot's {field} is of other modules than the trial's")
        trial.parked = self._state.cut(tensors, trial.spec.parameters.lora_r)
        trial.watch = DivergenceWatch.restore(state.divergence)
        trial.step, trial.examples_seen = state.step, state.examples_seen

    def _activate(self, trial: ZeroTrial) -> None:
        """Swap `trial` in; the one that was there is parked on the host."""
        if self._active is trial:
            return
        if self._active is not None:
            self._active.parked = self._state.take()
        parameters = trial.spec.parameters
        self._slots.hold(parameters)
        self._state.put(trial.parked, trial.step)
        trial.parked = []
        for number, group in enumerate(self._engine.optimizer.optimizer.param_groups):
            group["betas"] = (parameters.adam_beta1, parameters.adam_beta2)
            group["eps"], group["weight_decay"] = parameters.adam_epsilon, parameters.weight_decay
            group["rate_ratio"] = parameters.loraplus_lr_ratio if number else 1.0
        self._engine.optimizer.clip_grad = parameters.max_grad_norm
        self._engine.global_steps = trial.step
        self._engine.global_samples = trial.examples_seen
        self._engine.micro_steps = self._engine.skipped_steps = 0
        self._base.use_activation_checkpointing(trial.spec.training.activation_checkpointing)
        self._active = trial

    def _take_step(self, trial: ZeroTrial) -> Step:
        parameters, ranks = trial.spec.parameters, self._ranks
        start = trial.examples_seen
        stop = min(start + parameters.effective_batch, trial.total_examples)
        started_at = time.perf_counter()
        micro_batch = trial.plan.micro_batch
        pieces, work = ranks.attempt(
            lambda: pieces_of(trial.data.train, trial.order, start, stop, micro_batch, ranks, self._base.device),
            work_of,
        )
        tokens, response_tokens, squared_tokens = (int(number) for number in work)
        data_seconds = time.perf_counter() - started_at
        self._activate(trial)
        nll = self._backward(trial, pieces, response_tokens)
        nll, squared_norm = ranks.agree(None, [nll, self._state.squared_gradients()])
        loss, norm = nll / response_tokens, squared_norm**0.5
        rate = learning_rate(parameters, trial.step, total_steps(trial.total_examples, parameters.effective_batch))
        trial.watch.observe(loss, norm)
        set_learning_rate(self._engine.optimizer.optimizer, rate)
        self._engine.step()
        trial.step += 1
        trial.examples_seen = stop
        trained, shape = trial.adapter_parameters, self.shape
        recomputed_flops = shape.recomputed_flops(trained, tokens=tokens, squared_tokens=squared_tokens)
        return Step(
            step=trial.step,
            examples_seen=stop,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate,
            examples=stop - start,
            tokens=tokens,
            flops=shape.train_flops(
                trained, tokens=tokens, learned_tokens=response_tokens, squared_tokens=squared_tokens
            ),
            recomputed_flops=recomputed_flops if trial.spec.training.activation_checkpointing else 0.0,
            data_seconds=data_seconds,
        )

    def _backward(self, trial: ZeroTrial, pieces: list[Piece], response_tokens: int) -> float:
        """Accumulate the gradient of the mean over `response_tokens`, those of all ranks; this rank's sum of the nll.

        DeepSpeed averages gradients over the ranks, which the weight of each micro-batch makes up for.
        """
        total = torch.zeros((), dtype=torch.float64, device=self._base.device)
        weight = self._ranks.size / response_tokens
        self._engine.optimizer.zero_grad()
        try:
            for number, piece in enumerate(pieces, start=1):
                self._slots.clock.tokens = token_keys(trial.spec.training.seed, piece.position, piece.batch)
                self._engine.set_gradient_accumulation_boundary(number == len(pieces))
                nll = self._base.nll(piece.batch).sum()
                self._engine.backward(nll * (weight if piece.counts else 0.0), scale_wrt_gas=False)
                if piece.counts:
                    total += nll.detach()
        finally:
            self._slots.clock.tokens = None
        return total.item()


def _wrapped(base: PartitionedBase, slots: Slots, settings: ZeroSettings) -> ZeroModule:
    """DeepSpeed's engine around the base. A and B are groups of their own: with LoRA+ their rates differ."""
    groups = [{"params": slots.down}, {"params": slots.up}]
    adam = torch.optim.AdamW(groups, lr=0.0, fused=True)
    elements = sum(weight.numel() for weight in slots.weights.values())
    config = deepspeed_config(settings, base.spec.resolved_dtype, elements)
    engine = wrap(base.model, adam, config)
    base.model.eval()  # type: ignore[no-untyped-call]
    return engine


def _named(state: dict[str, torch.Tensor], moment: str) -> set[str]:
    return {key.removeprefix(f"{moment}.") for key in state if key.startswith(f"{moment}.")}

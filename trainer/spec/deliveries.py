"""A delivery: what makes a model out of promoted parameters, and what each step of it leaves in the snapshot store."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.base import Frozen, Sha256, Text
from trainer.spec.fingerprints import DataFingerprints
from trainer.spec.slices import FileDigest, Slice, SnapshotRef
from trainer.spec.trial import DataSpec, TrialSpec

#: what the service can have made of a merged model; awq-w4a16 needs a GPU, and jobs have none beside the slices
VariantName = Literal["f16", "q8_0", "q5_k_m", "q4_k_m", "gptq-w4a16"]
#: the variants that llama.cpp makes
GGUF_VARIANTS: tuple[VariantName, ...] = ("f16", "q8_0", "q5_k_m", "q4_k_m")
#: the package that a worker has to have for them, as it names it among its software
LLAMA_CPP = "llama-cpp-python"

Folder = Annotated[str, Field(pattern=r"^deliveries/[0-9]+(/[0-9a-z][0-9a-z_-]*)+$", max_length=200)]
"""A folder of the snapshot store below that of a delivery."""


class TrainFinal(Frozen):
    """Train the promoted parameters to their end. A worker gets it as a slice, with all that slices can do.

    `snapshots` are those of the promoted trial, from the newest of which that verifies it goes on; without one it
    begins anew. `micro_batch` as in a slice. `later_needs` is a package that a later step wants of its worker: where no
    worker has it, training is not begun. With `dtype_pinned` the trial's dtype is what auto was where its study began,
    and only workers on which auto is the same train it.
    """

    kind: Literal["train_final"] = "train_final"
    trial: TrialSpec
    until_examples: Annotated[int, Field(ge=1)]
    folder: Folder
    snapshots: tuple[SnapshotRef, ...] = ()
    data_fingerprints: DataFingerprints | None = None
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    later_needs: Text | None = None
    dtype_pinned: bool = False

    def as_slice(self, job_id: int, attempt: int, checkpoints: tuple[SnapshotRef, ...]) -> Slice:
        """What a worker is given for an attempt; `checkpoints` are what earlier attempts left, newest first."""
        return Slice(
            slice_id=job_id,
            attempt=attempt,
            trial=self.trial,
            until_examples=self.until_examples,
            snapshot_dir=f"{self.folder}/{attempt}",
            snapshots=(*checkpoints, *self.snapshots),
            data_fingerprints=self.data_fingerprints,
            micro_batch=self.micro_batch,
        )


class MergeAdapter(Frozen):
    """Merge the adapter of a snapshot into its base and put the model into `folder` of the store.

    It is judged on the evaluation rows of `data`.
    """

    kind: Literal["merge"] = "merge"
    model: Text
    adapter: SnapshotRef
    data: DataSpec
    folder: Folder

    def at_attempt(self, attempt: int) -> "MergeAdapter":
        """With the folder of an attempt, so that none writes where another one does."""
        return self.model_copy(update={"folder": f"{self.folder}/{attempt}/model"})


class QuantizeModel(Frozen):
    """Make a smaller variant of a model in `merged` of the store, whose `files` are known, and put it into `folder`."""

    kind: Literal["quantize"] = "quantize"
    variant: VariantName
    merged: Folder
    files: dict[str, FileDigest]
    data: DataSpec
    folder: Folder

    @property
    def needs(self) -> str | None:
        """The package that its worker has to have."""
        return needed_for(self.variant)

    def at_attempt(self, attempt: int) -> "QuantizeModel":
        """As of a merge."""
        return self.model_copy(update={"folder": f"{self.folder}/{attempt}/model"})


class Artifact(Frozen):
    """The report of a merge or quantization: a folder of the store, whole. `sha256` as of `digest_of` its files.

    Perplexities are those of the same evaluation rows, before and after the step; texts are what was said greedily to
    the first of them.
    """

    path: Text
    files: dict[str, FileDigest]
    sha256: Sha256
    perplexity_before: float
    perplexity_after: float
    prompt: str
    generated_before: str
    generated_after: str
    tool: str
    versions: dict[str, str]


class FinalAdapter(Frozen):
    """The report of a final training: the snapshot with the adapter, and its losses. `files` are the snapshot's.

    `resumed_from_examples` of the last attempt: all of them if the promoted trial's own adapter was taken.
    """

    snapshot: SnapshotRef
    files: dict[str, FileDigest]
    examples_seen: int
    resumed_from_examples: int
    eval_loss: float
    test_loss: float | None
    device: str


def needed_for(variant: VariantName | None) -> str | None:
    """The package that a worker has to have to make it, as it names it among its software."""
    return LLAMA_CPP if variant in GGUF_VARIANTS else None


def digest_of(files: Mapping[str, FileDigest]) -> str:
    """SHA-256 over names and contents of files, in the order of their names: `sha256sum *` hashed again."""
    return sha256("".join(f"{files[name].sha256}  {name}\n" for name in sorted(files)).encode()).hexdigest()

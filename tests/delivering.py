"""Workers that make models at once, for tests of what happens around that."""

from hashlib import sha256
from pathlib import Path

from hpo_service.executors.fake import FakeExecutor, passed
from tests import serving
from tests.dispatching import loss_of
from trainer.spec import (
    LLAMA_CPP,
    Artifact,
    FileDigest,
    Job,
    JobResult,
    MergeAdapter,
    Outcome,
    QuantizeModel,
    digest_of,
)

CONTENT = b"weights of a model"


class Delivering(FakeExecutor):
    """Workers that have llama.cpp, and write a small file in place of a model."""

    def __init__(self, root: Path) -> None:
        super().__init__(loss_of, total_examples=serving.ROWS)
        self.software = {LLAMA_CPP: "0.3.36"}
        self.store = root / "home" / "snapshots"
        self.answer = self.build

    def build(self, job: Job) -> JobResult:
        """What a worker says that has done the job."""
        task = job.task
        if not isinstance(task, MergeAdapter | QuantizeModel):
            return passed(job)
        folder = self.store / task.folder
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(CONTENT)
        files = {"model.bin": FileDigest(sha256=sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))}
        report = Artifact(
            path=task.folder,
            files=files,
            sha256=digest_of(files),
            perplexity_before=4.0,
            perplexity_after=4.5,
            prompt="say 3",
            generated_before="3",
            generated_after="three",
            tool="a tool",
            versions={"torch": "2"},
        )
        return JobResult(
            job_id=job.job_id,
            attempt=job.attempt,
            outcome=Outcome.DONE,
            report=report.model_dump(mode="json"),
            seconds=2.0,
        )

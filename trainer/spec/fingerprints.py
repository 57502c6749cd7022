"""What the data of a trial were, so that no other data take their place on the way."""

from trainer.spec.base import Frozen, Sha256
from trainer.spec.trial import DataSpec


class DataFingerprints(Frozen):
    """SHA-256 of the content of each file or folder of rows, wherever it lies.

    `eval` is None where `train` is split, `test` where nobody has looked at test rows yet.
    """

    train: Sha256
    eval: Sha256 | None = None
    test: Sha256 | None = None

    def changed(self, found: "DataFingerprints", data: DataSpec) -> str | None:
        """A sentence on the first part of `data` that was found to be another than this one; None if all are equal."""
        parts = (
            (data.train, self.train, found.train),
            (data.eval, self.eval, found.eval),
            (data.test, self.test, found.test),
        )
        looked_at = parts if self.test is not None and found.test is not None else parts[:2]
        for path, known, now in looked_at:
            if known != now:
                return (
                    f"{path} has changed since training on it began (SHA-256 {_short(known)} then, {_short(now)} now), "
                    "and losses on different rows cannot be compared: put the old rows back, or begin anew with a "
                    "clone of the study or another --output-dir"
                )
        return None


def _short(fingerprint: str | None) -> str:
    return (fingerprint or "none")[:12]

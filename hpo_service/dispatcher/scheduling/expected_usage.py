"""What the running slices of a study are expected to take, in device seconds."""

import time

from hpo_service.dispatcher.state.live_studies import LiveSlice, LiveStudy


def reserved_seconds(study: LiveStudy) -> float:
    """Of all running slices, from their begin to their end."""
    return sum(max(piece.predicted_seconds or 0.0, elapsed_seconds(study, piece)) for piece in study.running())


def mean_slice_seconds(study: LiveStudy) -> float:
    """Of another slice, 0 as long as that is not known."""
    known = [piece.predicted_seconds for piece in study.running() if piece.predicted_seconds is not None]
    return sum(known) / len(known) if known else 0.0


def elapsed_seconds(study: LiveStudy, piece: LiveSlice) -> float:
    """Since the slice began, times its devices."""
    return (time.monotonic() - piece.begun_at) * study.resolved.training.ranks

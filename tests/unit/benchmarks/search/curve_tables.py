"""A small table of synthetic curves."""

from pathlib import Path

import numpy as np

from benchmarks.search.tables import Table, load

ROWS, FIDELITIES = 200, 20


def saved(folder: Path, name: str = "bowl") -> Path:
    """Two parameters; best near the middle, and better ones fall for longer."""
    random = np.random.default_rng(0)
    u = random.random((ROWS, 2))
    distance = np.linalg.norm(u - 0.4, axis=1)[:, None]
    seen = np.arange(1, FIDELITIES + 1) / FIDELITIES
    loss = 0.3 + distance + 0.5 * np.exp(-3 * seen) + 0.02 * random.random((ROWS, FIDELITIES))
    path = folder / f"{name}.npz"
    np.savez(path, u=u, loss=loss, seconds=np.full(loss.shape, 0.5))
    return path


def bowl(folder: Path) -> Table:
    return load(saved(folder))

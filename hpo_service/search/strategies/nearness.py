"""No two trials of a study are nearly the same: they would cost twice and teach once.

What is sampled is `APART` from every other trial of its study, whatever became of that one; a refinement, whose reason
names the trial that it refines, is `REFINED` from that one. Points that somebody asked for (a baseline, what is
enqueued, a confirmation) are trained as they are. A space without such a point is exhausted: its study has nothing
more to search. That is judged on all points of a space with few of them, else on so many even draws.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from hpo_service.search.strategies.base import StudyView
from hpo_service.search.strategies.places import MOST_POINTS, Array, Mask, Places
from hpo_service.spec.space import Assignment, Infeasible, SearchSpace

APART = 0.02
REFINED = 0.005
#: even draws among which a point is looked for, where a space has too many points to look at each
DRAWS = 2000
#: so much of a difference may be lost when values are rounded
_SLACK = 1e-9
#: a point that is near a trial is moved up to so far to make it another one
_LONGEST_MOVE = 0.15
_MOVES = 256
#: with so few points a tree of the trials does not pay
_FEW = 8
#: of a trial's values so many are kept in points made of it
_KEPT_SHARE = 0.5
#: before it is said that there are points which can be trained, or none, so many are looked at
_CLASSIFIED = 400
_DIFFERS = f"differs from every trial by {APART:.0%} of a parameter's range or by another choice"
#: with more points than this for each trial, some of them useless, it goes without saying that there is one left
_POINTS_A_TRIAL = 8


class Exhausted(Exception):
    """No point of the space is left to sample; the message says so, as a clause."""


class Tried:
    """The trials of a view as places of its space."""

    def __init__(self, space: SearchSpace, view: StudyView) -> None:
        self.places = Places(space)
        self._view = view

    @cached_property
    def known(self) -> Array:
        """Places [trials, dimensions], by number."""
        return self.places.of_trials(self._view.roster)

    def free(self, wanted: Array, refined: Sequence[int] = ()) -> Mask:
        """[n]: whether places [n, dimensions] are apart from all trials, or refine those with the numbers `refined`."""
        loose = np.zeros(len(self.known), dtype=np.bool_)
        loose[list(refined)] = True
        if len(wanted) <= _FEW:
            needed = np.where(loose, REFINED, APART) - _SLACK
            return np.asarray((cdist(wanted, self.known, "chebyshev") >= needed).all(axis=1))
        tree = KDTree(self.known[~loose]) if loose.any() else self._tree
        gaps, _ = tree.query(wanted, p=np.inf, distance_upper_bound=APART - _SLACK)
        apart: Mask = np.isinf(gaps)
        if loose.any():
            apart &= (cdist(wanted, self.known[loose], "chebyshev") >= REFINED - _SLACK).all(axis=1)
        return apart

    def allows(self, found: Assignment, refined: Sequence[int] = ()) -> bool:
        """Whether the point may be a trial; another point with the very parameters of a trial may not."""
        if not self.free(self.places.of_sampled(found.sampled)[None], refined)[0]:
            return False
        return not self._view.roster.is_tried(found.parameters.model_dump())

    def refines(self, found: Assignment) -> list[int]:
        """The numbers of the trials that the point is near."""
        rows = self._tree.query_ball_point(self.places.of_sampled(found.sampled), APART - _SLACK, p=np.inf)
        return sorted(rows)

    def require_room(self, random: np.random.Generator) -> None:
        """Raises `Exhausted` if a space with few points has none left, before a sampler is asked for one in vain."""
        if self.places.count <= min(MOST_POINTS, _POINTS_A_TRIAL * len(self.known)):
            self.anywhere(random)

    def beside(self, found: Assignment, random: np.random.Generator) -> Assignment | None:
        """The nearest of some points around one that is near a trial, which may be a trial themselves."""
        ordered = ~self.places.unordered
        around = np.tile(self.places.shares_of(self.places.of_sampled(found.sampled)), (_MOVES, 1))
        moves = random.uniform(-1, 1, around.shape) * np.linspace(APART, _LONGEST_MOVE, _MOVES)[:, None]
        around = np.clip(around + moves * ordered, 0, 1)
        moved = self.places.of_shares(around)
        nearest = np.argsort(np.abs(moves * ordered).max(axis=1), kind="stable")
        for row in nearest[self.free(moved[nearest])]:
            candidate = self.places.assignment(around[row])
            if isinstance(candidate, Assignment) and self.allows(candidate):
                return candidate
        return None

    def anywhere(self, random: np.random.Generator) -> tuple[Assignment, int]:
        """Any point that may be a trial, drawn evenly, else made of a trial's; and how many could not be trained.

        Raises:
            Exhausted: there is none.
            Infeasible: no point that can be trained was found at all.
        """
        every = self.places.every_point()
        looked_at, impossible, alike, obstacle = list[Array](), 0, 0, ""
        for shares in self._batches(every, random):
            looked_at.append(shares)
            for point in self._free_ones(shares):
                candidate = self.places.assignment(point)
                if isinstance(candidate, str):
                    impossible, obstacle = impossible + 1, candidate
                elif self.allows(candidate):
                    return candidate, impossible
                else:
                    alike += 1
        count = sum(map(len, looked_at))
        if not alike and not any(map(self._can_be_trained, np.concatenate(looked_at)[:: max(1, count // _CLASSIFIED)])):
            last = f"; the last one: {obstacle}" if obstacle else ""
            raise Infeasible(f"none of {count} points of the space could be trained{last}")
        raise Exhausted(f"the space is exhausted: {self._taken(every, impossible, alike)}")

    def _batches(self, every: Array | None, random: np.random.Generator) -> Iterator[Array]:
        """Shares [n, dimensions] to look at, all or as many as it takes."""
        if every is not None:
            yield random.permutation(every)
            return
        yield random.random((DRAWS, self.known.shape[1]))
        yield self._kin(random)

    def _kin(self, random: np.random.Generator) -> Array:
        """Shares [DRAWS, dimensions] that have about half of a trial's, the others drawn evenly.

        Where constraints leave little of a space, even draws hardly ever meet them; trials do, and most of these.
        """
        drawn = random.random((DRAWS, self.known.shape[1]))
        if not len(self.known):
            return drawn
        which = random.integers(len(self.known), size=DRAWS)
        shares = {number: self.places.shares_of(self.known[number]) for number in set(which.tolist())}
        theirs = np.array([shares[number] for number in which.tolist()])
        return np.where(random.random(drawn.shape) < _KEPT_SHARE, theirs, drawn)

    def _can_be_trained(self, shares: Array) -> bool:
        return isinstance(self.places.assignment(shares), Assignment)

    def _free_ones(self, shares: Array) -> Iterator[Array]:
        """Those of shares [n, dimensions] whose places are free, each place once; mostly one of the first is."""
        seen: set[bytes] = set()
        for block in (shares[:_FEW], shares[_FEW:]):
            places = self.places.of_shares(block)
            for row in np.flatnonzero(self.free(places)):
                if (key := places[row].tobytes()) not in seen:
                    seen.add(key)
                    yield block[row]

    def _taken(self, every: Array | None, impossible: int, alike: int) -> str:
        """What became of the points that were looked at, as a clause."""
        if every is None:
            possible = "can be trained and " if impossible else ""
            return f"none of {2 * DRAWS} points drawn from it {possible}{_DIFFERS}"
        places = np.unique(self.places.of_shares(every), axis=0)
        gaps, _ = self._tree.query(places, p=np.inf)
        count = len(places) - impossible
        if int((gaps <= _SLACK).sum()) + alike < count:
            return f"no point of it {_DIFFERS}"
        points = "its only point" if count == 1 else f"all {count} points of it"
        possible = " that can be trained" if impossible else ""
        return f"{points}{possible} {'was' if count == 1 else 'were'} tried"

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.known)

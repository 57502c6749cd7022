"""How much one study probably tells about another, before either is compared with results."""

import math

from hpo_service.spec.past import Traits
from hpo_service.spec.resolved import ResolvedStudy

_OTHER_ARCHITECTURE = 0.5
_OTHER_DATA = 0.8
_UNKNOWN = 0.5
_SIZE_FADING = 0.3
_DATA_FADING = 0.2


def similarity(new: ResolvedStudy, old: ResolvedStudy) -> float:
    """1 for the same model, data and space, towards 0 the less they share; 0 if no parameter is varied in both."""
    return _model(new, old) * _data(new, old) * _space(new, old)


def _model(new: ResolvedStudy, old: ResolvedStudy) -> float:
    if new.model.path == old.model.path:
        return 1.0
    if new.traits is None or old.traits is None:
        return _UNKNOWN
    family = 1.0 if new.traits.architecture == old.traits.architecture else _OTHER_ARCHITECTURE
    return family * _sizes(new.traits, old.traits)


def _sizes(new: Traits, old: Traits) -> float:
    if new.model_parameters is None or old.model_parameters is None:
        return _UNKNOWN
    return _near(new.model_parameters, old.model_parameters, _SIZE_FADING)


def _data(new: ResolvedStudy, old: ResolvedStudy) -> float:
    rows = _near(new.train_rows, old.train_rows, _DATA_FADING)
    if new.data.train == old.data.train:
        return rows
    if new.traits is None or old.traits is None:
        return _UNKNOWN * rows
    return _OTHER_DATA * rows * _near(new.traits.row_bytes, old.traits.row_bytes, _DATA_FADING)


def _space(new: ResolvedStudy, old: ResolvedStudy) -> float:
    """The share of the new study's parameters that the old one varied as well."""
    wanted, known = (set(study.search_space().dimensions) for study in (new, old))
    return len(wanted & known) / len(wanted)


def _near(one: float, other: float, fading: float) -> float:
    """1 for equal sizes, less by this power of their ratio."""
    return math.exp(-fading * abs(math.log(max(one, 1) / max(other, 1))))

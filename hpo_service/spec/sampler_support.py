"""Whether a sampler can do what a study asks of it."""

from collections.abc import Iterator
from importlib.util import find_spec

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.spec.space import Categories, SearchSpace
from hpo_service.spec.study import SamplerName, SearchSettings

#: a Gaussian process is told of no more trials
_MOST_MODELLED = 300


#: with more trials, proposals of tpe take longer than most slices, and there is little that it does not know already
TPE_TRIALS = 2000


def used_sampler(name: SamplerName, trials: int) -> SamplerName:
    """The sampler that the next trial of a study with so many trials comes from."""
    return "qmc" if name == "tpe" and trials >= TPE_TRIALS else name


def require_sampler(search: SearchSettings) -> None:
    """Raise InvalidSpec if the sampler cannot run on this machine."""
    if search.strategy != "freeze_thaw" and search.sampler == "gp" and find_spec("torch") is None:
        detail = (
            "search.sampler gp needs torch, which is not installed beside this service: install hpo-service[trainer], "
            "or take tpe, or strategy freeze_thaw, which brings its own Gaussian process."
        )
        raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/search/sampler")])


def sampler_advice(search: SearchSettings, space: SearchSpace, max_trials: int) -> Iterator[str]:
    """Warnings about what a sampler does not do with this space."""
    if search.strategy == "freeze_thaw":
        if "sampler" in search.model_fields_set:
            yield f"strategy freeze_thaw proposes by its own model; sampler {search.sampler} is not used."
        return
    conditional = [name for name in space.dimensions if space.forms[name].when]
    words = [name for name in space.dimensions if isinstance(space.forms[name], Categories)]
    drawn = {"cmaes": sorted({*conditional, *words}), "gp": conditional, "nsgaii": conditional}.get(search.sampler, [])
    if drawn:
        kinds = "categories and conditional parameters" if search.sampler == "cmaes" else "conditional parameters"
        yield (
            f"sampler {search.sampler} does not learn {kinds}: {', '.join(drawn)} will be drawn at random; "
            "tpe and strategy freeze_thaw learn them."
        )
    if search.sampler == "tpe" and max_trials > TPE_TRIALS:
        yield (
            f"sampler tpe proposes the first {TPE_TRIALS} trials of {max_trials}; the others come from qmc, evenly "
            "over the space."
        )
    if search.sampler == "gp" and max_trials > _MOST_MODELLED:
        yield (
            f"sampler gp is told of {_MOST_MODELLED} trials at most, of {max_trials}: the best and the newest; "
            "tpe reads all of them."
        )

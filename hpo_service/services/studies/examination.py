"""Everything that can be checked of a spec before there is a study; every problem in one answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpo_service.core.problems import Problems
from hpo_service.services.data import preflight
from hpo_service.services.data.preflight import Inputs
from hpo_service.spec import ResolvedStudy, StudySpec, expand, resolve
from hpo_service.spec.resolved import Further, drafted
from hpo_service.spec.runnable import Fleet, deadline_problem, problems_of, warnings_of
from hpo_service.spec.salvage import read_spec


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A spec that nothing is wrong with. `unknown_targets`: target modules that only a worker can look for."""

    spec: StudySpec
    resolved: ResolvedStudy
    warnings: tuple[str, ...]
    unknown_targets: tuple[str, ...]


def examine(document: object, roots: Sequence[Path], fleet: Fleet) -> Examined:
    """Look at the spec, its space, its files, and whether there are workers for it; may read large files.

    Raises:
        InvalidSpec: with everything that is wrong.
    """
    problems = Problems()
    spec = read_spec(document, problems)
    if spec is None:
        problems.refuse()
    assert spec is not None
    late = deadline_problem(spec, fleet.now)
    problems.add(*([] if late is None else [late]))
    merged: StudySpec | None = None
    with problems.gathered():
        merged = expand(spec)
    look = preflight.look(spec if merged is None else merged, roots)
    problems.add(*look.problems)
    further = partial(problems_of, facts=look.model, fleet=fleet)
    resolved: ResolvedStudy | None = None
    if merged is not None and look.inputs is None:
        drafted(merged, problems, None, None, further)
    elif merged is not None and look.inputs is not None:
        with problems.gathered():
            resolved = _resolved(merged, look.inputs, further)
    problems.refuse()
    assert resolved is not None
    assert merged is not None
    space = resolved.search_space()
    unknown = look.model is None or look.model.modules is None
    return Examined(
        spec=spec,
        resolved=resolved,
        warnings=tuple(warnings_of(merged, space, look.model, fleet)),
        unknown_targets=tuple(sorted(map(str, space.values("target_modules")))) if unknown else (),
    )


def _resolved(spec: StudySpec, inputs: Inputs, further: Further) -> ResolvedStudy:
    return resolve(
        spec,
        model_path=inputs.model_path,
        train=inputs.train,
        eval=inputs.eval,
        test=inputs.test,
        train_rows=inputs.train_rows,
        eval_rows=inputs.eval_rows,
        data_format=inputs.data_format,
        traits=inputs.traits,
        further=further,
    )

"""Check a whole space as a user wrote it and report everything that is wrong at once."""

import re
from collections.abc import Mapping, Sequence

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.spelling import did_you_mean
from hpo_service.spec.foreign_names import foreign_name
from hpo_service.spec.space.core import Space
from hpo_service.spec.space.dimensions import Constant, Derived, Dimension, Form, OutsideForm, Scalar
from hpo_service.spec.space.expressions import FUNCTIONS, Expression, ExpressionError, parse_expression
from hpo_service.spec.space.forms import DEFAULTS, Refused, read_form

MAX_PARAMETERS = 64
MAX_CONSTRAINTS = 64
FACTS = ("train_rows", "hidden_size")
_FREE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_RESERVED = frozenset({*FACTS, *FUNCTIONS, "and", "or", "not", "if", "else", "in", "is", "lambda", "for", "True"})


def parse_space(space: Mapping[str, object], constraints: Sequence[str], facts: Mapping[str, int]) -> Space:
    """See `SearchSpace.parse`."""
    return _Parsing(space, constraints, facts).run()


class _Parsing:
    def __init__(self, space: Mapping[str, object], constraints: Sequence[str], facts: Mapping[str, int]) -> None:
        self._written = space
        self._constraints = constraints
        self._facts = facts
        self._forms: dict[str, Form] = {}
        self._expressions: dict[str, Expression] = {}
        self._problems: list[Problem] = []

    def run(self) -> Space:
        if not 1 <= len(self._written) <= MAX_PARAMETERS:
            self._report(f"the space has {len(self._written)} parameters; 1 to {MAX_PARAMETERS} are allowed.", "/space")
            self._stop_if_wrong()
        self._read_forms()
        self._check_names()
        self._check_conditions()
        parsed = self._read_constraints()
        self._stop_if_wrong()
        self._check_cycles()
        self._stop_if_wrong()
        space = Space(self._forms, parsed, dict(self._facts))
        self._check_substance(space)
        self._stop_if_wrong()
        return space

    def _report(self, detail: str, pointer: str) -> None:
        self._problems.append(Problem(detail=detail, pointer=pointer))

    def _stop_if_wrong(self) -> None:
        if self._problems:
            raise InvalidSpec(self._problems[0].detail, problems=self._problems)

    def _read_forms(self) -> None:
        for name, written in self._written.items():
            pointer = f"/space/{_escaped(name)}"
            try:
                form = self._forms[name] = read_form(name, written)
                if isinstance(form, Derived):
                    self._expressions[name] = parse_expression(form.expr)
            except Refused as refused:
                self._problems.append(refused.problem(pointer))
            except ExpressionError as error:
                self._report(error.detail, f"{pointer}/expr")

    def _check_names(self) -> None:
        read = set[str]().union(*(expression.names for expression in self._expressions.values()))
        for name in self._written:
            if name in DEFAULTS:
                continue
            if name in _RESERVED or not _FREE_NAME.fullmatch(name):
                self._report(f"{name[:80]!r} cannot name a parameter.", f"/space/{_escaped(name)}")
            elif name not in read and (foreign := foreign_name(name)) is not None:
                self._report(foreign, f"/space/{name}")
            elif name not in read:
                known = ", ".join(DEFAULTS)
                self._report(
                    f"The trainer has no parameter {name!r} and no expression reads it."
                    f"{did_you_mean(name, DEFAULTS)} Parameters: {known}.",
                    f"/space/{name}",
                )
            elif name in self._forms and self._forms[name].when:
                self._report(f"{name!r} is not a parameter of the trainer and cannot have `when`.", f"/space/{name}")
        for name, expression in self._expressions.items():
            self._check_known(expression, f"/space/{_escaped(name)}/expr")

    def _check_known(self, expression: Expression, pointer: str) -> None:
        known = {*DEFAULTS, *self._written, *self._facts}
        for name in sorted(expression.names - known):
            hint = did_you_mean(name, known)
            if (foreign := foreign_name(name)) is not None:
                hint = f" {foreign}"
            self._report(f"expression {expression.text!r} reads {name!r}, which does not exist.{hint}", pointer)

    def _check_conditions(self) -> None:
        for name, form in self._forms.items():
            for other, values in form.when.items():
                pointer = f"/space/{_escaped(name)}/when"
                if other not in self._written:
                    self._report(
                        f"`when` of {name} reads {other!r}, which is not in the space."
                        f"{did_you_mean(other, self._written)}",
                        pointer,
                    )
                elif (missing := self._unreachable(self._forms.get(other), values)) is not None:
                    self._report(f"`when` of {name} on {other}: {missing}.", pointer)

    def _unreachable(self, other: Form | None, values: tuple[Scalar, ...]) -> str | None:
        if isinstance(other, Constant) and other.value not in values:
            return f"it is always {other.value!r}, so this parameter would never be used"
        if isinstance(other, Dimension):
            try:
                for value in values:
                    other.taken(value)
            except OutsideForm as error:
                return str(error)
        return None

    def _read_constraints(self) -> tuple[Expression, ...]:
        if len(self._constraints) > MAX_CONSTRAINTS:
            self._report(
                f"{len(self._constraints)} constraints; at most {MAX_CONSTRAINTS} are allowed.", "/constraints"
            )
            return ()
        read = []
        for index, text in enumerate(self._constraints):
            try:
                read.append(parse_expression(text))
                self._check_known(read[-1], f"/constraints/{index}")
            except ExpressionError as error:
                self._report(error.detail, f"/constraints/{index}")
        return tuple(read)

    def _check_cycles(self) -> None:
        space = Space(self._forms, (), self._facts)
        finished = set[str]()

        def visit(name: str, path: tuple[str, ...]) -> bool:
            if name in path:
                circle = " → ".join((*path[path.index(name) :], name))
                self._report(f"parameters depend on each other in a circle: {circle}.", f"/space/{_escaped(name)}")
                return True
            if name in finished:
                return False
            found = any(visit(other, (*path, name)) for other in space.depends_on(name))
            finished.add(name)
            return found

        any(visit(name, ()) for name in sorted(self._forms))

    def _check_substance(self, space: Space) -> None:
        if not space.dimensions:
            self._report("nothing varies in this space; give some parameter a range or choices.", "/space")
        elif not space.probes:
            self._report(
                f"no point of this space can be trained, most often because {space.commonest_obstacle()}", "/space"
            )


def _escaped(name: str) -> str:
    return name[:80].replace("~", "~0").replace("/", "~1")

"""Arithmetic that users write in a search space: a whitelisted subset of Python's expressions.

Numbers, quoted words, names, `+ - * / // % **`, comparisons, `and or not`, and a handful of functions. Length, depth
and the magnitude of every intermediate result are bounded, so an expression cannot take long or much memory.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpo_service.core.errors import InvalidSpec

Value = int | float | str

MAX_LENGTH = 300
MAX_DEPTH = 32
MAX_NODES = 150
MAX_EXPONENT = 64
MAX_MAGNITUDE = 10**18

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "min": (min, 1, MAX_NODES),
    "max": (max, 1, MAX_NODES),
    "ceil": (math.ceil, 1, 1),
    "floor": (math.floor, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "log2": (math.log2, 1, 1),
    "round": (round, 1, 1),
}
FUNCTIONS = tuple(sorted(_FUNCTIONS))
_GRAMMAR = f"numbers, names, + - * / // % **, comparisons, and, or, not, {', '.join(FUNCTIONS)}"
_ALLOWED_NODES = (
    ast.Expression,
    ast.expr_context,
    ast.boolop,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.BoolOp,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    ast.Name,
    ast.Constant,
)


class ExpressionError(InvalidSpec):
    """An expression cannot be read or has no value at this point of the space."""

    def __init__(self, text: str, column: int, reason: str) -> None:
        shown = text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH] + "…"
        super().__init__(f"expression {shown!r}, column {column}: {reason}.")


@dataclass(frozen=True)
class Expression:
    """A checked expression. `names` are the names it reads."""

    text: str
    names: frozenset[str] = field(compare=False)
    _body: ast.expr = field(compare=False, repr=False)

    def evaluate(self, names: Mapping[str, Value]) -> Value:
        """The value with these names; ExpressionError if there is none (division by zero, too large, unknown name)."""
        return _Evaluation(self.text, names).value(self._body)


def parse_expression(text: str) -> Expression:
    """Read and check an expression without evaluating it."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(text, MAX_LENGTH + 1, f"it is {len(text)} characters long, at most {MAX_LENGTH} are read")
    if "\\" in text or not text.isprintable():
        raise ExpressionError(text, 1, f"only printable text without backslashes is read; use {_GRAMMAR}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ExpressionError(text, error.offset or 1, f"{error.msg}; use {_GRAMMAR}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(text, 1, f"it cannot be read ({type(error).__name__}); make it simpler") from None
    return Expression(text, _check(text, tree), tree.body)


def _check(text: str, tree: ast.Expression) -> frozenset[str]:
    names: set[str] = set()
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    seen = 0
    while pending:
        node, depth = pending.pop()
        seen += isinstance(node, ast.expr)
        if depth > MAX_DEPTH or seen > MAX_NODES:
            raise ExpressionError(
                text, _column(node), f"too complex: at most {MAX_DEPTH} levels and {MAX_NODES} terms are allowed"
            )
        if (complaint := _complaint(node)) is not None:
            raise ExpressionError(text, _column(node), complaint)
        if isinstance(node, ast.Name):
            names.add(node.id)
        children = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
        pending.extend((child, depth + 1) for child in children)
    return frozenset(names)


def _complaint(node: ast.AST) -> str | None:
    if isinstance(node, ast.Call):
        return _call_complaint(node)
    if isinstance(node, ast.Constant):
        return _constant_complaint(node.value)
    if isinstance(node, ast.Name) and node.id in _FUNCTIONS:
        return f"{node.id} is a function, write {node.id}(…)"
    unknown = not isinstance(node, _ALLOWED_NODES)
    if isinstance(node, ast.operator):
        unknown = type(node) not in _OPERATORS
    if isinstance(node, ast.cmpop):
        unknown = type(node) not in _COMPARISONS
    if unknown or isinstance(node, ast.Invert):
        return f"{type(node).__name__} is not allowed; use {_GRAMMAR}"
    return None


def _constant_complaint(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return f"{value!r} is not allowed; use numbers, quoted words or names"
    return None if isinstance(value, str) else _size_complaint(value)


def _call_complaint(node: ast.Call) -> str | None:
    if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
        return f"the only functions are {', '.join(FUNCTIONS)}"
    _, fewest, most = _FUNCTIONS[node.func.id]
    if node.keywords or not fewest <= len(node.args) <= most:
        return f"{node.func.id} takes {'one value' if most == 1 else 'one or more values'}, without keywords"
    return None


def _column(node: ast.AST) -> int:
    return int(getattr(node, "col_offset", 0)) + 1


def _size_complaint(value: float) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "the result is not a finite number"
    return f"the result exceeds {MAX_MAGNITUDE:.0e}" if abs(value) > MAX_MAGNITUDE else None


class _Evaluation:
    """One walk over a checked tree. Depth was bounded when the expression was read."""

    def __init__(self, text: str, names: Mapping[str, Value]) -> None:
        self._text = text
        self._names = names

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() | str() as constant):
                return constant
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.BoolOp(op=op, values=values):
                decide = all if isinstance(op, ast.And) else any
                return decide(bool(self.value(value)) for value in values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.value(operand)
            case ast.Compare():
                return self._compare(node)
            case _:
                return self._arithmetic(node)

    def _fail(self, node: ast.AST, reason: str) -> ExpressionError:
        return ExpressionError(self._text, _column(node), reason)

    def _name(self, node: ast.AST, name: str) -> Value:
        try:
            return self._names[name]
        except KeyError:
            raise self._fail(node, f"unknown name {name!r}; known are {', '.join(sorted(self._names))}") from None

    def _number(self, node: ast.expr) -> float:
        value = self.value(node)
        if isinstance(value, str):
            raise self._fail(node, f"{value!r} is not a number; words can only be compared with == and !=")
        return value

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, operand in zip(node.ops, node.comparators, strict=True):
            right = self.value(operand)
            ordered = not isinstance(op, ast.Eq | ast.NotEq)
            if ordered and (isinstance(left, str) or isinstance(right, str)):
                raise self._fail(operand, f"{left!r} and {right!r} have no order; compare words with == and !=")
            if not _COMPARISONS[type(op)](left, right):
                return False
            left = right
        return True

    def _arithmetic(self, node: ast.expr) -> float:
        try:
            result = self._compute(node)
        except (ArithmeticError, ValueError) as error:
            raise self._fail(node, f"it has no value here ({error})") from None
        if isinstance(result, complex):
            raise self._fail(node, "the result is not a real number")
        if (complaint := _size_complaint(result)) is not None:
            raise self._fail(node, complaint)
        return result

    def _compute(self, node: ast.expr) -> float:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                first, second = self._number(left), self._number(right)
                if isinstance(op, ast.Pow) and abs(second) > MAX_EXPONENT:
                    raise self._fail(right, f"the exponent {second:g} is beyond ±{MAX_EXPONENT}")
                return _OPERATORS[type(op)](first, second)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.UnaryOp(operand=operand):
                return +self._number(operand)
            case ast.Call(func=ast.Name(id=name), args=args):
                return _FUNCTIONS[name][0](*(self._number(arg) for arg in args))
        raise self._fail(node, f"{type(node).__name__} is not allowed; use {_GRAMMAR}")

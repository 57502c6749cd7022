"""A digest of code that comments, docstrings, formatting and moves of what it imports do not change."""

import ast
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def _of_file(path: Path) -> bytes:
    if path.suffix != ".py":
        return sha256(path.read_bytes()).digest()
    imported = _Imported()
    tree = imported.visit(ast.parse(path.read_text()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [child for child in node.body if not _is_text(child)]
    return sha256("\n".join([ast.dump(tree), *sorted(imported.names)]).encode()).digest()


class _Imported(ast.NodeTransformer):
    """Take the imports from our packages out of a module and keep the names that they bind."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        """Drop an import of ours: where a module lies does not change what it does."""
        if (node.module or "").partition(".")[0] not in ("hpo_service", "trainer"):
            return node
        self.names |= {name.asname or name.name for name in node.names}
        return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def digest(paths: Iterable[Path], *facts: str) -> str:
    """Of files, those of a folder included, and of facts such as the version of a library."""
    total = sha256("\n".join(facts).encode())
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(_of_file(file))
    return total.hexdigest()[:16]

"""Which version of the code a result depends on: a digest of a module and of all of ours that it imports.

A commit says too much for that: it changes with a page of documentation. A number kept by hand says too little: nobody
remembers to raise it. Comments, docstrings and layout are no part of the digest.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def code_digest(*modules: str, root: Path = ROOT) -> str:
    """16 hex digits of the modules (`eval.measure.contest`) and of what they import of the files under `root`."""
    waiting, trees = list(modules), dict[str, ast.AST]()
    while waiting:
        module = waiting.pop()
        path = root / (module.replace(".", "/") + ".py")
        if module in trees or not path.is_file():
            continue
        trees[module] = ast.parse(path.read_bytes())
        waiting += _imported(trees[module])
    code = "\n".join(f"{module} {ast.dump(_without_docstrings(tree))}" for module, tree in sorted(trees.items()))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _imported(tree: ast.AST) -> Iterator[str]:
    """Names that may be modules; imports inside of functions are among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)]
    return tree


def _is_text(line: ast.stmt) -> bool:
    """A string that stands alone: what documents a module, a function or a field."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)

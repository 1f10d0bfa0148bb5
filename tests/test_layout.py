"""The house: packages resolve here, imports point the allowed way, files and functions stay small."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "models": set(),
    "data": set(),
    "train": {"models", "data", "conf"},
    "eval": {"models", "data", "conf"},
    "conf": set(),
}
ENTRIES = {
    "eval.correctness",
    "eval.exits",
    "eval.harness",
    "eval.perplexity",
    "eval.sweep",
    "train.pretrain",
    "train.benchmark",
    "train.describe",
    "eval.generate",
    "eval.benchmark",
    "eval.compare",
    "eval.lens",
    "eval.execute",
    "eval.rejections",
    "models.convert",
    "data.prepare",
    "data.benchmark",
}
# Where torchtitan may be known: an upgrade touches these files alone.
TITAN = {
    "data/other_loaders.py",
    "models/llama.py",
    "models/parallelize.py",
    "models/spec.py",
    "train/checkpoint.py",
    "train/cost/benchmark_arms.py",
    "train/cpu.py",
    "train/recipe/early_exit_loss.py",
    "train/monitoring/metrics.py",
    "train/titan.py",
    "train/trainer.py",
}
FILES = [f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_the_allowed_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    names = imports(path)
    ours = {name.partition(".")[0] for name in names} & PACKAGES.keys()
    # A command composes its configuration, whatever its package may import otherwise.
    command = {"conf"} if path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") in ENTRIES else set()
    assert ours <= PACKAGES[package] | {package} | command
    assert not names & ENTRIES, "entry files are imported by nobody"
    if path.relative_to(ROOT).as_posix() not in TITAN:
        assert not [n for n in names if n.startswith("torchtitan")]


def test_the_list_of_torchtitan_files_is_exact() -> None:
    users = {f.relative_to(ROOT).as_posix() for f in FILES if "torchtitan." in f.read_text()}
    assert {f for f in users if any(n.startswith("torchtitan") for n in imports(ROOT / f))} <= TITAN
    assert all((ROOT / f).exists() for f in TITAN)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_resolve_in_this_checkout(package: str) -> None:
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file).resolve().parent == ROOT / package


def test_small_files_and_functions() -> None:
    for path in [*FILES, *(ROOT / "tests").glob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_entry_files_define_no_classes() -> None:
    for entry in ENTRIES:
        tree = ast.parse((ROOT / (entry.replace(".", "/") + ".py")).read_text())
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]

"""The house: packages resolve here, imports point the allowed way, files and functions stay small."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "models": {"conf"},
    "data": {"conf"},
    "train": {"models", "data", "conf"},
    "eval": {"models", "data", "conf"},
    "conf": set(),
}
ENTRIES = {
    "eval.autotune",
    "eval.correctness",
    "eval.exits",
    "eval.figures",
    "eval.harness",
    "eval.perplexity",
    "eval.sweep",
    "train.pretrain",
    "train.acceptance",
    "train.benchmark",
    "train.dashboard",
    "train.describe",
    "train.report",
    "train.snapshot",
    "train.scaling",
    "eval.generate",
    "eval.benchmark",
    "eval.compare",
    "eval.compare_peers",
    "eval.lens",
    "eval.execute",
    "eval.rejections",
    "eval.serving.check",
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
    "train/gpu/training.py",
    "train/monitoring/metrics.py",
    "train/titan.py",
    "train/trainer.py",
}
# The rooms of eval, from the top down: a module imports from its own room and from those below it. A room is a folder,
# or a file that several rooms share.
ROOMS = (
    "commands",
    "pages",
    "figure",
    "drafts",
    "exactness",
    "peers",
    "serving",
    "lm",
    "tuning",
    "results",
    "depth",
    "measure",
    "painter",
    "tasks",
    "prompts",
    "humaneval",
    "policies",
    "setting",
    "machine",
    "config",
    "sandbox",
    "engine",
)
BUDGET = 20
"""Files of a folder, code and others counted apart."""
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
    assert ours <= PACKAGES[package] | {package}
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


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """The folder that a module lies in, or the file that it is."""
    return "commands" if module in ENTRIES else module.split(".")[1]


def arrows(package: str) -> dict[str, set[str]]:
    """Room -> the other rooms of its package that it imports from."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        if (module := module_of(path)) == package:
            continue
        room = room_of(module)
        rooms = {room_of(name) for name in imports(path) if name.startswith(f"{package}.")}
        found[room] = found.get(room, set()) | rooms - {room}
    return found


def test_the_rooms_of_eval_import_from_those_below() -> None:
    rooms = arrows("eval")
    assert rooms.keys() == set(ROOMS), "place a new room in ROOMS, or a new module in a room"
    upwards = [(a, b) for a, below in rooms.items() for b in below if ROOMS.index(b) < ROOMS.index(a)]
    assert not upwards


@pytest.mark.parametrize("package", PACKAGES)
def test_no_rooms_import_each_other_in_a_circle(package: str) -> None:
    TopologicalSorter(arrows(package)).prepare()


def test_folders_are_small() -> None:
    for package in PACKAGES:
        for folder in [ROOT / package, *(d for d in (ROOT / package).rglob("*") if d.is_dir())]:
            files = [f for f in folder.iterdir() if f.is_file() and "__pycache__" not in f.parts]
            n_modules = sum(f.suffix == ".py" for f in files)
            assert max(n_modules, len(files) - n_modules) <= BUDGET, folder


def test_no_folder_bears_the_name_of_a_module() -> None:
    for path in FILES:
        assert not path.with_suffix("").is_dir(), f"{path.with_suffix('')}/ hides it"


def test_the_jail_can_load_eval_without_any_other_package() -> None:
    assert not imports(ROOT / "eval" / "__init__.py")
    for path in (ROOT / "eval" / "sandbox").glob("*.py"):
        ours = {name for name in imports(path) if name.partition(".")[0] in PACKAGES}
        assert all(name.startswith("eval.sandbox") for name in ours), path


def test_programs_are_scored_without_torch() -> None:
    code = "import sys, eval.execute; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_model_does_not_know_how_it_is_stored() -> None:
    assert {room for room, below in arrows("models").items() if "storage" in below} == {"commands"}

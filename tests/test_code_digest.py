"""What a result says of the code: a digest of what measures, and a commit that notes beside the code do not change."""

import subprocess
from pathlib import Path

import pytest

from conf.code_digest import code_digest
from conf.provenance import CODE, code_revision

FILES = {
    # The second import is inside of a function.
    "eval/measure.py": '"""Doc."""\nfrom models.inference import run\ndef f():\n    """Doc."""\n    import data.late\n',
    "models/inference.py": "import models.cache as cache\nrun = 1\n",
    "models/cache.py": "size = 1\n",
    "data/late.py": "late = 1\n",
    "eval/page.py": "colour = 1\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digest(root: Path) -> str:
    code_digest.cache_clear()
    return code_digest("eval.measure", root=root)


@pytest.mark.parametrize("changed", FILES)
def test_the_digest_is_that_of_a_module_and_of_what_it_imports(tree: Path, changed: str) -> None:
    before = digest(tree)
    (tree / changed).write_text(FILES[changed].replace("1", "2").replace("late", "later"))
    assert (digest(tree) == before) == (changed == "eval/page.py")


def test_comments_and_docstrings_and_new_files_change_no_digest(tree: Path) -> None:
    before = digest(tree)
    (tree / "eval/measure.py").write_text("# A note.\n\n" + FILES["eval/measure.py"].replace("Doc", "Words"))
    (tree / "eval/notes.py").write_text("x = 1\n")
    assert digest(tree) == before


def test_the_code_that_measures_is_found() -> None:
    assert code_digest("eval.measure.contest") != code_digest("eval.drafts.sample") != code_digest("eval.nothing")


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def test_files_beside_the_code_are_no_changes_of_it(tree: Path) -> None:
    assert code_revision(tree) == "unknown"
    for package in CODE:
        (tree / package).mkdir(exist_ok=True)
        (tree / package / "__init__.py").touch()
    (tree / "README.md").write_text("a")
    git(tree, "init")
    git(tree, "add", "-A")
    git(tree, "commit", "-m", "a")
    clean = code_revision(tree)
    assert len(clean) == 40
    (tree / "lens.html").write_text("a page that was written here")
    (tree / "README.md").write_text("b")
    assert code_revision(tree) == clean
    (tree / "models/mine.py").write_text("a module of one's own")
    assert code_revision(tree) == clean + "+changes"
    (tree / "models/mine.py").unlink()
    (tree / "models/cache.py").write_text("size = 2\n")
    assert code_revision(tree) == clean + "+changes"

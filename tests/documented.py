"""What README.md and docs/ give to type: the commands of their bash blocks, and the files of docs/extending.md."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {
    "gpu": "a GPU",
    "hub": "the network and a model hub",
    "cluster": "Slurm",
    "files": "files or folders of the reader's own",
    "package": "a package from PyPI that is no requirement",
    "sandbox": "a machine that isolates programs (docs/humaneval.md)",
    "time": "many minutes",
    "account": "an account with W&B",
    "shell": "the reader's own shell",
}
BLOCK = re.compile(r"(?:<!-- needs: ([\w, ]+) -->\n)?```bash\n(.*?)```", re.S)


@dataclass(frozen=True)
class Command:
    """One command, and what its block needs."""

    page: str
    text: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands() -> list[Command]:
    """In the order of the pages; one that several pages have, once for each."""
    return [
        Command(page.relative_to(ROOT).as_posix(), line, tuple(needs.replace(",", " ").split()))
        for page in PAGES
        for needs, block in BLOCK.findall(page.read_text())
        for line in lines_of(block)
    ]


def lines_of(block: str) -> list[str]:
    """Its commands, without comments, each on a line."""
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def own_parts(folder: Path) -> None:
    """Write what a reader of docs/extending.md has then: the package my_exits and the folder my_conf."""
    manual = (ROOT / "docs" / "extending.md").read_text()
    (folder / "my_exits").mkdir()
    (folder / "my_exits" / "__init__.py").write_text("")
    (folder / "my_exits" / "mine.py").write_text("\n\n".join(re.findall(r"```python\n(.*?)```", manual, re.S)))
    [sizes] = re.findall(r"```yaml\n(.*?)```", manual, re.S)
    (folder / "my_conf" / "model").mkdir(parents=True)
    (folder / "my_conf" / "model" / "mine.yaml").write_text(sizes)

"""Write docs/configuration.md, every key of every command, from the dataclasses: `python -m docs.make_reference`."""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Iterator, Set
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from hydra import compose, initialize_config_module
from omegaconf import Container, DictConfig, OmegaConf

from conf.strict import register_schema

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
FIRST = ("train.pretrain", "train.describe", "eval.generate", "eval.benchmark", "eval.sweep", "eval.perplexity")
"""Commands that stand first; the others follow by name."""
INTRODUCTION = """\
# Every key of every command

`make docs` writes this page from the code, and a test compares the two, so it is never out of date. What the words mean
is in [recipe.md](recipe.md) and [decoding.md](decoding.md).

- `key=value` sets a key: `python -m train.pretrain experiment=demo train.steps=20 optimizer.lr=1e-3`.
- `group=name` takes a file of settings, `conf/GROUP/NAME.yaml`: `model=llama_1_5b`. The command line wins over files.
- Lists need quotes in a shell: `'exit_layers=[2,4]'`. `null` means "not set". A new entry of a table begins with `+`.
- *Default* is the value that the command has when you set nothing. **required** means that there is none.
- An unknown key, a wrong type or an impossible value ends the command in one line, before any work, with exit status 2.

```bash
python -m train.pretrain --help                            # groups, choices, keys
python -m train.pretrain experiment=demo --cfg job         # the configuration that this command line gives
python -m train.pretrain experiment=demo --info defaults   # which file set what
python -m train.pretrain --multirun experiment=demo optimizer.lr=1e-3,3e-4 early_exit=rotational,gradual   # four runs
```

`--multirun` takes every combination, one after another, each in a run folder of its own
(`outputs/demo/optimizer.lr=0.001,...`). A job that fails does not stop the others, and the same command again goes on
with what is missing.
"""


@dataclass(frozen=True)
class Command:
    """A module that is run with `python -m`, the name of its primary config, and the dataclass of its keys."""

    module: str
    config_name: str
    schema: type


@cache
def commands() -> tuple[Command, ...]:
    """All commands, found by their call of `conf.command.command`, with their schemas made known to Hydra."""
    found = [c for package in ("train", "data", "models", "eval") for c in _in_package(package)]
    for one in found:
        register_schema(one.config_name, one.schema)
    rank = {name: i for i, name in enumerate(FIRST)}
    return tuple(sorted(found, key=lambda c: (rank.get(c.module, len(rank)), c.module)))


def _in_package(package: str) -> Iterator[Command]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name_of_module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        tree = ast.parse(path.read_text())
        origin = {a.name: n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command":
                name, schema = node.args[:2]
                assert isinstance(name, ast.Constant)
                assert isinstance(schema, ast.Name)
                module = importlib.import_module(str(origin[schema.id]))
                yield Command(name_of_module, str(name.value), getattr(module, schema.id))


def composed(config_name: str, *overrides: str) -> DictConfig:
    """What a command's files give, with Hydra's own section, which holds the chosen groups."""
    with initialize_config_module("conf", version_base="1.3"):
        return compose(config_name, list(overrides), return_hydra_config=True)


@cache
def docstrings(owner: type) -> dict[str, str]:
    """Name of a field, or of a member of an enum -> the text that stands below it, also for what it inherits."""
    texts: dict[str, str] = {}
    for part in reversed(owner.__mro__):
        if not (is_dataclass(part) or (issubclass(part, Enum) and part.__module__ != "enum")):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
        for line, after in itertools.pairwise(body):
            if not isinstance(line, ast.AnnAssign | ast.Assign):
                continue
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                texts[target.id] = " ".join(str(after.value.value).split())
    return texts


def reference() -> str:
    """The whole page."""
    pages, seen = [INTRODUCTION], dict[tuple[type, str], str]()
    done: list[Command] = []
    pages.append(_index())
    for one in commands():
        same = [c.module for c in done if c.schema is one.schema]
        pages.append(f"## {one.module}\n")
        if same:
            pages.append(f"Takes the keys of [{same[0]}](#{_anchor(same[0])}).\n")
            continue
        pages.extend(_command(one, done, seen))
        done.append(one)
    pages.extend(_choices_of_groups())
    return "\n".join(pages)


def _index() -> str:
    rows = [
        f"| [`{c.module}`](#{_anchor(c.module)}) | {_escape(composed(c.config_name).hydra.help.header)} |"
        for c in commands()
    ]
    return "\n".join(["| `python -m` | what |", "|---|---|", *rows, ""])


def _command(one: Command, done: list[Command], seen: dict[tuple[type, str], str]) -> Iterator[str]:
    config = composed(one.config_name)
    yield f"{_escape(config.hydra.help.header)} `{_yaml(one.config_name)}`, `{_file(one.schema)}`\n"
    base = next((c for c in done if c.schema in one.schema.__mro__), None)
    skipped = {f.name for f in fields(base.schema)} if base else set()
    if base:
        yield f"Every key of [{base.module}](#{_anchor(base.module)}), and:\n"
    groups = {g: c for g, c in config.hydra.runtime.choices.items() if not g.startswith("hydra/") and "@" not in g}
    if not base and groups:
        yield from _groups(groups)
    yield from _section(one.schema, config, "", seen, skipped)


def _groups(groups: dict[str, str | None]) -> Iterator[str]:
    yield "Groups:\n\n| group | default | choices |\n|---|---|---|"
    for group, choice in groups.items():
        names = ", ".join(f"`{f.stem}`" for f in sorted((ROOT / "conf" / group).glob("*.yaml")))
        if names:
            yield f"| `{group}=` | {f'`{choice}`' if choice else 'none'} | {names} |"
    yield ""


def _choices_of_groups() -> Iterator[str]:
    """What each file of the groups is for, in the words at its head."""
    yield "## Choices of groups\n\nEach is a file, `conf/GROUP/NAME.yaml`; a file of your own there is a new choice.\n"
    for group in sorted(folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()):
        files = sorted((ROOT / "conf" / group).glob("*.yaml"))
        if group not in ("task", "eval") and files:  # the tasks are above, and eval is no group
            yield f"### {group}=\n\n| choice | what |\n|---|---|"
            yield "\n".join(f"| `{file.stem}` | {_comment(file)} |" for file in files) + "\n"


def _section(
    schema: type,
    node: Any,
    prefix: str,
    seen: dict[tuple[type, str], str],
    skipped: Set[str] = frozenset(),
) -> Iterator[str]:
    """The table of a dataclass's keys, then its sections; `node` holds the default values, or is None."""
    hints, rows, sections = get_type_hints(schema), [], []
    for field in fields(schema):
        if field.name in skipped:
            continue
        kind = hints[field.name]
        value = node._get_node(field.name) if isinstance(node, DictConfig) else None
        entry = get_args(kind)[-1] if get_origin(kind) is dict else None
        if is_dataclass(kind) or is_dataclass(entry):
            sections.append((f"{prefix}{field.name}.", kind, entry, value))
        else:
            rows.append(_row(schema, field.name, kind, value, prefix))
    if rows:
        yield "| key | type | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    for name, kind, entry, value in sections:
        if entry:
            yield f"### {name}NAME\n\n{_summary(entry)} One entry for each NAME. `{_file(entry)}`\n"
            yield from _section(entry, OmegaConf.structured(entry), f"{name}NAME.", seen)
        elif name == "task.":
            yield from _tasks(kind, seen)
        else:
            yield from _known_or_new(name, kind, value, seen)


def _known_or_new(name: str, kind: type, value: Any, seen: dict[tuple[type, str], str]) -> Iterator[str]:
    body = list(_section(kind, value, name, seen))
    key = (kind, "\n".join(body))
    if key in seen:
        yield f"`{name}*`: as [above](#{seen[key]}).\n"
        return
    title = name.rstrip(".")
    n_same = sum(anchor.rpartition("-")[0] == _anchor(title) or anchor == _anchor(title) for anchor in seen.values())
    seen[key] = _anchor(title) + (f"-{n_same}" if n_same else "")
    yield f"### {title}\n\n{_summary(kind)} `{_file(kind)}`\n"
    yield from body


def _tasks(base: type, seen: dict[tuple[type, str], str]) -> Iterator[str]:
    """Common keys once, then for each choice what it adds or sets otherwise."""
    key = (base, "")
    if key in seen:
        yield f"`task.*`: as [above](#{seen[key]}).\n"
        return
    seen[key] = "task"
    yield f"### task\n\n{_summary(base)} `task=NAME` chooses one. Common to all, unless a task below says otherwise:\n"
    common = OmegaConf.structured(base)
    yield from _section(base, common, "task.", seen)
    for path in sorted((ROOT / "conf" / "task").glob("*.yaml")):
        node = composed("benchmark", f"task={path.stem}").task
        kind = OmegaConf.get_type(node)
        assert kind is not None
        same = {f.name for f in fields(base) if _equal(node, common, f.name)}
        yield f"#### task={path.stem}\n\n{_comment(path)} `{_file(kind)}`\n"
        yield from _section(kind, node, "task.", seen, same)


def _equal(a: DictConfig, b: DictConfig, name: str) -> bool:
    x, y = a._get_node(name), b._get_node(name)
    return _default(x) == _default(y)


def _row(owner: type, name: str, kind: Any, value: Any, prefix: str) -> str:
    text = docstrings(owner).get(name, "")
    for choice, meaning in _choices(kind):
        text += f" `{choice}`: {meaning}" if meaning else ""
    return f"| `{prefix}{name}` | {_type(kind)} | {_default(value)} | {_escape(text)} |"


def _choices(kind: Any) -> Iterator[tuple[str, str]]:
    for part in [kind, *get_args(kind)]:
        if isinstance(part, type) and issubclass(part, Enum):
            yield from ((str(member.value), docstrings(part).get(member.name, "")) for member in part)


def _type(kind: Any) -> str:
    if kind is type(None):
        return "null"
    if isinstance(kind, types.UnionType):
        return " or ".join(_type(part) for part in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_type(get_args(kind)[0]).replace('number', 'numbers')}"
    if get_origin(kind) is dict:
        return "table"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    names = {str: "text", bool: "true, false", int: "whole number", float: "number"}
    return names.get(kind, "any")


def _default(value: Any) -> str:
    """The value of a node of a config, as it is written on a command line."""
    if value is None:
        return ""
    raw = OmegaConf.to_container(value) if isinstance(value, Container) and not value._is_none() else value._value()
    if raw == "???":
        return "**required**"
    text = yaml.safe_dump(_plain(raw), default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
    return f"`{text}`".replace("|", "\\|")


def _plain(raw: Any) -> Any:
    if isinstance(raw, Enum):
        return raw.value
    return [_plain(x) for x in raw] if isinstance(raw, list) else raw


def _summary(kind: type) -> str:
    return _escape(" ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()))


def _yaml(config_name: str) -> str:
    """Where a command's configuration lies."""
    of_eval = f"conf/eval/{config_name}.yaml"
    return of_eval if (ROOT / of_eval).exists() else f"conf/{config_name}.yaml"


def _file(kind: type) -> str:
    return str(kind.__module__).replace(".", "/") + ".py"


def _comment(path: Path) -> str:
    """What the comment at the head of a YAML file says, but for where its keys are documented."""
    lines = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    return _escape(re.sub(r"@package \S+|Every key is documented in \S+", "", " ".join(lines)).strip())


def _escape(text: str) -> str:
    """The text in a table of Markdown: what would begin a column, a tag or emphasis is written out."""
    parts = text.replace("\n", " ").split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([<*])", r"\\\1", parts[i])
    return "`".join(parts).replace("|", "\\|")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(reference())

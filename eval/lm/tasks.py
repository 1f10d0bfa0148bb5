"""Tasks of lm-evaluation-harness: found, loaded and run, with errors of one line before the work begins."""

import difflib
import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval.api.task
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.model import LM
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from torch.utils import collect_env

from conf.errors import reason
from conf.progress import each
from conf.strict import ConfigError
from data.config import DataError
from data.sources.hub import unreachable, use_cache_if_unreachable
from eval.lm.config import LmEvalConfig

LMEVAL = Path(lm_eval.api.task.__file__).resolve().parents[1]
LMEVAL_SEEDS = (0, 1234, 1234, 1234)


class Tasks:
    """What was asked for."""

    def __init__(self, config: LmEvalConfig) -> None:
        """Find the names; no data is read yet. Raises ConfigError for a name that no task has."""
        self.config = config
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # It warns of what a task leaves to its defaults, and shows bars where there is no terminal, at every exit anew.
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        collect_env.get_pretty_env_info = cache(collect_env.get_pretty_env_info)  # takes a second
        lm_eval.api.task.tqdm = lambda documents, **options: each(
            documents, "prompts", unit="document", total=options.get("total")
        )
        include = Path(config.include_path).expanduser() if config.include_path is not None else None
        if include is not None and not include.is_dir():
            raise ConfigError(f"include_path={config.include_path}: no such folder")
        try:
            self.manager = TaskManager(include_path=include)
        except Exception as error:
            raise ConfigError(f"include_path={config.include_path}: a task file is damaged ({reason(error)})") from None
        self.names = [name for pattern in config.tasks for name in self._names(pattern)]
        self.found: dict[str, Task | Group] = {}

    def load(self) -> None:
        """Read their data. Raises DataError for data that cannot be had, ConfigError for a task that cannot be run."""
        if not all(map(self._is_local, self.names)):
            use_cache_if_unreachable()
        for name in self.names:
            self.found |= self._load(name)
        for name, task in self.leaves():
            if getattr(task, "UNSAFE_CODE", False) and not self.config.confirm_run_unsafe_code:
                raise ConfigError(
                    f"tasks={name}: runs code that the model writes; confirm_run_unsafe_code=true allows it"
                )
            if getattr(task, "MULTIMODAL", False):
                raise ConfigError(f"tasks={name}: needs more than text")

    def _names(self, pattern: str) -> list[str]:
        if Path(pattern).suffix in (".yaml", ".yml"):
            if not Path(pattern).is_file():
                raise ConfigError(f"tasks={pattern}: no such file")
            return [pattern]
        if names := self.manager.match_tasks([pattern]):
            return list(names)
        near = difflib.get_close_matches(pattern, self.manager.all_tasks, n=3)
        hint = f" (did you mean {', '.join(near)}?)" if near else "; `lm_eval ls tasks` lists them"
        raise ConfigError(f"tasks={pattern}: no task of this name{hint}")

    def _is_local(self, name: str) -> bool:
        """Whether a task is a file of the user's, whose data may well lie beside it."""
        entry = self.manager.task_index.get(name)
        file = Path(name) if entry is None else entry.yaml_path
        return file is not None and LMEVAL not in file.resolve().parents

    def _load(self, name: str) -> dict[str, Task | Group]:
        try:
            loaded = self.manager.load([name])
        except Exception as error:  # whatever the hub, a data set's script or a task's own imports raise
            if isinstance(error, ConnectionError) and (why := unreachable()):
                raise DataError(f"tasks={name}: not in the cache, and the hub cannot be reached ({why})") from None
            raise DataError(f"tasks={name}: cannot be loaded ({type(error).__name__}: {reason(error)})") from None
        groups = loaded.get("groups", {})
        return {name: groups[name]} if name in groups else dict(loaded["tasks"])

    def leaves(self) -> list[tuple[str, Task]]:
        """The tasks themselves, those in groups too."""
        found = [t.get_all_tasks() if isinstance(t, Group) else [t] for t in self.found.values()]
        return [(task.task_name, task) for several in found for task in several]

    def run(self, lm: LM, *, log_samples: bool) -> dict[str, Any]:
        """lm-eval's results."""
        config = self.config
        seeds = LMEVAL_SEEDS if config.seed is None else (config.seed,) * 4
        results = simple_evaluate(
            model=lm,
            tasks=list(self.found.values()),
            task_manager=self.manager,
            num_fewshot=config.n_shots,
            limit=config.n_samples,
            batch_size=config.batch_size,
            gen_kwargs=config.gen_kwargs,
            apply_chat_template=config.apply_chat_template,
            system_instruction=config.system_instruction,
            confirm_run_unsafe_code=config.confirm_run_unsafe_code,
            bootstrap_iters=config.bootstrap_iters,
            log_samples=log_samples,
            random_seed=seeds[0],
            numpy_random_seed=seeds[1],
            torch_random_seed=seeds[2],
            fewshot_random_seed=seeds[3],
        )
        assert results is not None, "this is the only process"
        return dict(results)

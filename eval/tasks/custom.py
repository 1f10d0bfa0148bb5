"""A task of the user's own: `task=custom task.path=my_package.mine:Riddles`, a class that derives from Task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from conf.plugins import digest, load_class
from conf.strict import ConfigError
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.tasks.task import Chosen, Sample, Task

if TYPE_CHECKING:
    from data.tokenizers.tokenizer import Tokenizer
    from eval.engine.checkpoint import Checkpoint


@dataclass(kw_only=True)
class Custom(Task):
    """Hands everything on to an object of the user's class, which is made with the keys of Task and the options."""

    name: str = "custom"
    path: str = MISSING
    """my_package.mine:Riddles."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the class has besides the keys of every task: +task.options.KEY=VALUE."""

    def __post_init__(self) -> None:
        super().__post_init__()
        common = {f.name: getattr(self, f.name) for f in fields(Task)}
        try:
            self._task: Task = load_class(self.path, "task.path", Task)(**common, **self.options)
        except TypeError as error:
            raise ValueError(f"task.options: {str(error).rpartition('() ')[2]}") from None

    @property
    def table_metrics(self) -> tuple[str, ...]:
        """The metrics that a table has room for."""
        return self._task.table_metrics

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """The class's samples. The selection names its file and the file's digest."""
        samples, selection = self._task.samples(checkpoint)
        if self._task.max_new_tokens is None:
            raise ConfigError(f"task.max_new_tokens=null: {self.path} does not fill it in; give a number")
        self.max_new_tokens = self._task.max_new_tokens
        source = selection.source or self.path
        return Chosen(samples, replace(selection, source=source, task_file=digest(self.path)))

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """The class's scores."""
        return self._task.score(sample, text)

    def units(self, scored: Sequence[tuple[Sample, Mapping[str, float]]]) -> dict[str, list[float]]:
        """The class's units."""
        return self._task.units(scored)

    def stop(self, tokenizer: "Tokenizer") -> StopRule:
        """When the class ends a text."""
        return self._task.stop(tokenizer)

    def sampling_of(self, index: int) -> SamplingOptions:
        """How the class chooses tokens."""
        return self._task.sampling_of(index)

    def exit_layers(self, n_layers: int) -> list[int]:
        """The exits that the class measures by default."""
        return self._task.exit_layers(n_layers)

    def num_speculations(self) -> list[int]:
        """The numbers of drafts that the class measures by default."""
        return self._task.num_speculations()

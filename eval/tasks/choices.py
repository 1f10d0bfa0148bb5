"""The tasks by name, as conf/task/*.yaml asks for them."""

from hydra.core.config_store import ConfigStore

from eval.tasks.cnn_dm import CnnDm
from eval.tasks.cnn_dm_lm import CnnDmLm
from eval.tasks.custom import Custom
from eval.tasks.held_out import HeldOut
from eval.tasks.humaneval import HumanEval
from eval.tasks.prompts import Prompts
from eval.tasks.task import Task
from eval.tasks.topv2 import TopV2
from eval.tasks.xsum import XSum

__all__ = ["TASKS", "Task"]

TASKS: dict[str, type[Task]] = {
    "held_out": HeldOut,
    "cnn_dm": CnnDm,
    "xsum": XSum,
    "cnn_dm_lm": CnnDmLm,
    "humaneval": HumanEval,
    "topv2": TopV2,
    "prompts": Prompts,
    "custom": Custom,
}


# Whoever has a task in its configuration imports Task from here, so that Hydra knows the tasks before it composes.
for _name, _task in TASKS.items():
    ConfigStore.instance().store(group="task_schema", name=_name, node=_task)

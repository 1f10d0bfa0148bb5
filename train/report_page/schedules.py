"""A run's schedules from the config.yaml in its folder, whatever else that file holds."""

import json
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from conf.errors import reason
from models.config import ModelConfig
from train.config import PretrainConfig, TrainConfig
from train.cost.schedule_maps import schedule_maps
from train.recipe.curriculum import EarlyExitConfig
from train.recipe.dropout_schedule import LayerDropoutConfig
from train.report_page.thinned import rounded

SECTIONS = {
    "model": ModelConfig,
    "train": TrainConfig,
    "layer_dropout": LayerDropoutConfig,
    "early_exit": EarlyExitConfig,
}


def schedules_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The maps, as the page's script draws them. Raises ValueError where the configuration gives none."""
    return _schedules_of(json.dumps({name: config.get(name) for name in SECTIONS}, sort_keys=True, default=str))


@lru_cache(maxsize=64)  # the page is written anew again and again, a configuration hardly ever
def _schedules_of(sections: str) -> list[dict[str, Any]]:
    given = json.loads(sections)
    try:
        typed: dict[str, Any] = {
            name: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(section), given[name] or {}))
            for name, section in SECTIONS.items()
        }
        maps = schedule_maps(PretrainConfig(**typed))
    except Exception as error:  # the user's own schedules are code, which may raise whatever it likes
        raise ValueError(f"schedules: {reason(error)}") from None
    return [
        {"title": m.title, "end": m.end, "columns": [[rounded(v, 4) for v in column] for column in m.columns]}
        for m in maps
    ]

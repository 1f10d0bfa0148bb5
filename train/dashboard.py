"""Make a W&B workspace and a report for the runs of a project: `python -m train.dashboard run_dir=outputs/demo`.

Without a login, or without the package wandb-workspaces, it says in one line what it would do; with the package the
specifications of both are written to `output`.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from conf.command import command
from conf.errors import UserError, reason
from conf.output import writable
from conf.run_folders import CONFIG
from conf.strict import ConfigError, convert
from train.monitoring.dashboard_config import DashboardConfig


def dashboard(raw: DictConfig) -> None:
    """Save both and print where they are, or write what would be saved."""
    config = convert(raw, DashboardConfig)
    options = _wandb_options(config.run_dir)
    if find_spec("wandb_workspaces") is None:
        raise UserError("wandb-workspaces is not installed; pip install -e '.[dashboard]' installs it")
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    from train.monitoring.dashboard_panels import report, sections, workspace

    project = options["project"]
    if not wandb.login(prompt=False):
        entity = options["entity"] or "ENTITY"
        path = writable(config.output)
        view = workspace(entity, project, config.name, config.group)._to_model()
        page = report(entity, project, config.name, config.group, looked_up=False)._to_model()
        specs = {"workspace": _plain(view), "report": _plain(page)}
        path.write_text(json.dumps(specs, indent=1, ensure_ascii=False) + "\n")
        n_panels = sum(len(section.panels) for section in sections())
        print(
            f"no W&B login: `wandb login`, and the same command makes the workspace and the report {config.name!r} of"
            f" {n_panels} panels in {entity}/{project}; their specifications are in {path}"
        )
        return
    try:
        entity = options["entity"] or str(wandb.Api().default_entity)
        view = workspace(entity, project, config.name, config.group).save()
        page = report(entity, project, config.name, config.group, looked_up=True)
        page.save()
    except Exception as error:  # wandb has no list of what it raises
        raise UserError(
            f"W&B, {project}: {reason(error)}; sync a run first, and see whether the login is its"
        ) from error
    print(f"workspace: {view.url}\nreport: {page.url}")


def _wandb_options(run_dir: str) -> dict[str, Any]:
    """The section `wandb` of a run's config.yaml."""
    path = Path(run_dir, CONFIG)
    try:
        options = yaml.safe_load(path.read_text())["wandb"]
        return {"project": str(options["project"]), "entity": options["entity"]}
    except OSError as error:
        raise ConfigError(f"run_dir={run_dir}: no run folder ({path.name}: {reason(error)})") from None
    except (LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: no configuration of a run ({reason(error)})") from None


def _plain(model: Any) -> Any:
    return json.loads(model.model_dump_json(by_alias=True, exclude_none=True))


if __name__ == "__main__":
    command("dashboard", DashboardConfig, dashboard)

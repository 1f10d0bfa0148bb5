"""The configuration of train.dashboard."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass(kw_only=True)
class DashboardConfig:
    """A W&B workspace and a report for the runs of a project."""

    run_dir: str = MISSING
    """Folder of one of the runs: says the project and the entity, as wandb.project and wandb.entity have them."""
    name: str = "LayerSkip"
    """Name of the workspace, and title of the report."""
    group: str | None = None
    """Show the runs of this wandb.group alone; null: all runs of the project."""
    output: str = "${run_dir}/dashboard.json"
    """Without a login: the file for the specifications of both, in JSON."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 128:
            raise ValueError(f"name={self.name}: must have 1 to 128 characters")

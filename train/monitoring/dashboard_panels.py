"""What the W&B workspace and the report show: the same panels, in sections. Knows wandb-workspaces' names."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wandb_workspaces import workspaces
from wandb_workspaces.reports import v2 as reports

WIDTH, HEIGHT = 12, 8
"""Of a panel in a report, which is 24 wide."""


@dataclass(frozen=True)
class Section:
    """Panels, and in words what they are for."""

    name: str
    about: str
    panels: Sequence[Any] = field(default_factory=list)


def _line(title: str, *names: str, y: str = "", log: bool = False, **options: Any) -> Any:
    """A metric, or several, over the steps."""
    return reports.LinePlot(title=title, x="step", y=list(names), title_x="step", title_y=y, log_y=log, **options)


def _all(title: str, family: str, y: str, log: bool = False, member: str = "exit") -> Any:
    """All exits or layers in one chart, over the steps."""
    return _line(title, y=y, log=log, metric_regex=rf"{family}/({member}_\d+|rest)", max_runs_to_show=4)


def _over_depth(title: str, key: str) -> Any:
    """The custom chart that a run logs with a validation (wandb_charts.py)."""
    table = f"Custom Chart Tables/by_exit/{key}_over_depth_table"
    return reports.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
        chart_strings={"title": title, "xname": "exit layer"},
    )


def sections() -> list[Section]:
    """What there is to be seen, from top to bottom."""
    quality = [
        _all("Held-out perplexity of each exit", "val/ppl", "perplexity", log=True),
        _over_depth("Perplexity by exit layer", "ppl"),
        _all("Agreement with the last layer", "val/agreement", "share of tokens"),
        _over_depth("Agreement by exit layer", "agreement"),
        _all("Acceptance of each exit's drafts", "val/acceptance", "share of tokens"),
        _over_depth("Acceptance by exit layer", "acceptance"),
        _all("Training loss of each exit", "train/loss", "nats per token"),
        reports.MediaBrowser(title="Perplexity by exit", media_keys=["by_exit/perplexity"], num_columns=1),
    ]
    schedule = [
        _all("p(l, t): with what probability a row skips a layer", "train/dropout", "probability", member="layer"),
        _all("e~(t, l): how much an exit weighs", "train/exit_weight", "share of the loss"),
        _line("Active exits", "train/active_exits", y="exits"),
    ]
    optimization = [
        _line("Objective", "train/objective", y="nats per token"),
        _line("Gradient norm", "train/grad_norm", log=True),
        _all("Gradient norm of each layer", "train/layer_grad_norm", "", log=True, member="layer"),
        _line("Learning rate", "train/lr"),
        _line("Skipped steps", "train/bad_steps", y="steps so far"),
    ]
    speed = [
        _line("Tokens per second", "train/tokens_per_second"),
        _line("Tokens per second and device", "train/tokens_per_second_per_device"),
        _line("MFU", "train/mfu", y="share of the bf16 peak"),
        _line("Peak memory", "train/memory_gib", y="GiB"),
        _line("Time spent waiting for data", "train/data_wait_fraction", y="share"),
        _line("Checkpoints", "train/checkpoint_seconds", "train/checkpoint_write_seconds", y="seconds"),
    ]
    evaluations = [reports.LinePlot(title="Evaluations of checkpoints", x="eval/step", metric_regex="eval/.*")]
    return [
        Section("Exits", "How good is each exit, and how near to the last layer?", quality),
        Section("Schedules", "What the recipe asked for in each step.", schedule),
        Section("Optimization", "Does it learn, and is its gradient sound in every layer?", optimization),
        Section("Speed", "What the machine does meanwhile.", speed),
        Section("Evaluations", "What train.log_evaluation has added.", evaluations),
    ]


def workspace(entity: str, project: str, name: str, group: str | None) -> workspaces.Workspace:
    """A saved view of a project, with these panels and no others: W&B's automatic ones are hundreds."""
    shown = workspaces.RunsetSettings(filters=[workspaces.Metric("Group") == group]) if group else None
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[workspaces.Section(name=s.name, panels=list(s.panels), is_open=True) for s in sections()],
        settings=workspaces.WorkspaceSettings(x_axis="step"),
        runset_settings=shown or workspaces.RunsetSettings(),
        auto_generate_panels=False,
    )


def report(entity: str, project: str, name: str, group: str | None, *, looked_up: bool) -> reports.Report:
    """The same as a page to be read and shared.

    Args:
        entity: user or team.
        project: of the runs.
        name: the title.
        group: of the runs to show; None: all.
        looked_up: whether the server is asked for the project's number, which a login is needed for.
    """
    where = {"entity": entity, "project": project} if looked_up else {}
    runs = reports.Runset(name="Runs", filters=[workspaces.Metric("Group") == group] if group else "", **where)
    blocks: list[Any] = [reports.TableOfContents()]
    for section in sections():
        for i, panel in enumerate(section.panels):
            panel.layout = reports.Layout(x=i % 2 * WIDTH, y=i // 2 * HEIGHT, w=WIDTH, h=HEIGHT)
        grid = reports.PanelGrid(runsets=[runs], panels=list(section.panels))
        blocks += [reports.H1(section.name), reports.P(section.about), grid]
    return reports.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")

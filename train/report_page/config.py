"""What `python -m train.report` is asked to show."""

from dataclasses import dataclass, field

from conf.checks import at_least, ends_in


@dataclass(kw_only=True)
class ReportConfig:
    """Runs and where their page goes."""

    run_dir: str | None = None
    """Folder of one run."""
    runs: list[str] = field(default_factory=list)
    """Run folders, folders of runs (of a sweep), or globs of either: 'runs=[outputs/a,outputs/arms,outputs/seed-*]'."""
    output: str | None = None
    """An .html file; null: report.html in the run's folder, or in the folder that holds all of the runs."""
    refresh: float | None = None
    """Seconds after which the page is written anew, and reloads itself, until every run has finished; null: once."""

    def __post_init__(self) -> None:
        ends_in(".html", self, "output")
        at_least(1, self, "refresh")
        if bool(self.run_dir) == bool(self.runs):
            both = "run_dir and runs: give one of them, not both" if self.runs else "run_dir: missing"
            raise ValueError(f"{both}; run_dir=FOLDER shows one run, 'runs=[FOLDER,FOLDER]' several")

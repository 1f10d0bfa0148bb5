"""Which drafted tokens the full model rejects: `python -m eval.rejections checkpoint=... task=...`."""

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from eval.drafts.config import RejectionsConfig


def rejections(raw: DictConfig) -> None:
    """Decode, print the tables, write JSON, CSV, a plot and a line for each sample."""
    config = convert(raw, RejectionsConfig)
    from eval.drafts.measurement import find_rejections, plan_rejections
    from eval.drafts.plot import plot
    from eval.drafts.report import report, save_rejections
    from eval.measure.result_file import set_aside

    plan = plan_rejections(config)
    found = find_rejections(plan)
    files = [plan.output, plan.output.with_suffix(".csv"), plan.output.with_suffix(".png")]
    set_aside(files, found.samples_file)
    save_rejections(found, plan.output)
    plot(found, files[-1])
    print(report(found, detail=config.detail))
    print(*files, plan.output.with_name(found.samples_file), sep="\n")


if __name__ == "__main__":
    command(
        "rejections",
        RejectionsConfig,
        rejections,
        interrupted="interrupted; the same command goes on after the samples that have been decoded",
    )

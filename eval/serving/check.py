"""Do engines that people serve with write our texts? `python -m eval.serving.check checkpoint=...`.

Exit status: 0 they do, up to near-ties, and accept as many drafts as predicted; 1 they do not; 2 bad input.
"""

from dataclasses import asdict

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from eval.serving.config import ServingConfig


def check(raw: DictConfig) -> None:
    """Decode with every engine, print the table, write JSON and CSV. Raises UnexplainedError."""
    config = convert(raw, ServingConfig)
    from eval.exactness.divergence import UnexplainedError
    from eval.results.table import save_rows
    from eval.serving.served import serve
    from eval.serving.table import failures, served_rows, served_table

    found = serve(config)
    rows = served_rows(found)
    csv = save_rows([asdict(row) | found.facts for row in rows], found.output)
    print(served_table(rows, found.facts))
    print(found.output, csv, sep="\n")
    if wrong := failures(rows):
        raise UnexplainedError("; ".join(wrong))


if __name__ == "__main__":
    command("serving", ServingConfig, check)

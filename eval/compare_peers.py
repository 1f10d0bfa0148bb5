"""Our engine beside those of other projects, on the same weights: `python -m eval.compare_peers checkpoint=...`."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from eval.peers.config import PeersConfig

if TYPE_CHECKING:
    from eval.peers.table import PeerRow


def compare(raw: DictConfig) -> "list[PeerRow]":
    """Find each system's best setting, decode all prompts in turns, print the table, write JSON and CSV."""
    config = convert(raw, PeersConfig)
    from eval.measure.result_file import replacing
    from eval.peers.contest import compare_peers
    from eval.peers.table import peer_rows, peer_table
    from eval.results.table import save_rows

    found = compare_peers(config)
    rows, samples = peer_rows(found), found.samples_file.name
    files = [found.output, found.output.with_suffix(".csv")]
    with replacing(files, samples):
        save_rows([row.as_json(found.facts | {"samples_file": samples}) for row in rows], found.output)
    print(peer_table(rows, found.facts))
    print(*files, found.samples_file, sep="\n")
    return rows


if __name__ == "__main__":
    command(
        "compare_peers",
        PeersConfig,
        compare,
        interrupted="interrupted; the same command goes on after the texts that have been measured",
    )

"""Tokens packed into rows of T: cut from the whole stream, or documents fitted together. No token is lost.

A label is the token after its input. With `concat` every token of the stream but the first is a label exactly once;
with `best_fit` every token but the first of each document. Tokens of a prompt are inputs without a loss.

Where documents are to be kept apart, each token also has its position in its document. It begins anew with what a row
begins with, be that the middle of a document: what is not in the row cannot be attended to.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from conf.errors import reason
from data.batches.best_fit import best_fit
from data.config import DataError
from data.files import write_array
from data.prepared.file_array import FileArray
from data.prepared.shards import Tokens

IGNORE_INDEX = -100  # torch's label for "no loss here"
WINDOW = 1 << 17  # pieces that are fitted together at a time


class Rows(Protocol):
    """Rows that can be read in any order."""

    seq_len: int

    def __len__(self) -> int: ...

    def fill(
        self, row: int, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None = None
    ) -> None:
        """Write row `row` into inputs [T] and labels [T], int64, which hold fill tokens and no labels before.

        `document_positions` [T] int64 holds zeros before, so that each fill token is a document by itself.
        """
        ...


class ConcatRows:
    """Row i holds tokens i*T .. i*T+T-1 as input and the tokens after each as labels.

    Rows past the end hold no labels at all: they fill a last batch.
    """

    def __init__(self, tokens: Tokens, seq_len: int) -> None:
        """Cut `tokens` [N] into ceil((N-1)/T) rows."""
        self.tokens, self.seq_len = tokens, seq_len

    def __len__(self) -> int:
        return max(1, -(-(len(self.tokens) - 1) // self.seq_len))

    def fill(
        self, row: int, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None = None
    ) -> None:
        """See Rows."""
        self.fill_from(row * self.seq_len, inputs, labels, document_positions)

    def fill_from(
        self, start: int, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None = None
    ) -> None:
        """Write the T tokens from `start` on, and those after each.

        The last token of a document, whose label would be the first of the next, has none where they are kept apart.
        """
        window = self.tokens.read(start, start + self.seq_len + 1)
        n = max(0, len(window) - 1)
        inputs[:n] = window[:n]
        labels[:n] = window[1:]
        if self.tokens.has_prompts and n:
            labels[:n][self.tokens.in_prompt(start + 1, start + 1 + n)] = IGNORE_INDEX
        if document_positions is not None and n:
            begins = self.tokens.begins(start, start + n + 1) - start
            document_positions[:n] = positions_between(begins, n)
            labels[begins[begins > 0] - 1] = IGNORE_INDEX


def positions_between(begins: np.ndarray, n: int) -> np.ndarray:
    """[n] the position of each of n tokens in its document, of which the first has its begin at 0 or before.

    `begins` are ascending indices at which documents begin; those outside of 0..n-1 do not matter.
    """
    begins = np.union1d([0], begins[(begins > 0) & (begins < n)])
    return np.arange(n) - np.repeat(begins, np.diff([*begins, n]))


class _RowsOfPieces:
    """Rows of one piece of a document or several: what fills them, once the pieces are known."""

    tokens: Tokens
    seq_len: int
    starts: np.ndarray | FileArray
    lengths: np.ndarray | FileArray
    masked: np.ndarray | FileArray
    """[pieces] the first token of each, its labels, and how many of them are in the prompt."""
    row_ends: np.ndarray | FileArray
    """[rows] the number of pieces in this row and all before it."""

    def __len__(self) -> int:
        return len(self.row_ends)

    def fill(
        self, row: int, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None = None
    ) -> None:
        """See Rows."""
        if row >= len(self.row_ends):
            return
        at, first, last = 0, int(self.row_ends[row - 1]) if row else 0, int(self.row_ends[row])
        pieces = (array[first:last].tolist() for array in (self.starts, self.lengths, self.masked))
        for start, n, masked in zip(*pieces, strict=True):
            window = self.tokens.read(start, start + n + 1)
            inputs[at : at + n] = window[:-1]
            labels[at : at + n] = window[1:]
            labels[at : at + masked] = IGNORE_INDEX
            if document_positions is not None:
                document_positions[at : at + n] = np.arange(n)
            at += n


class LoneRows(_RowsOfPieces):
    """Row i holds one document, or of one longer than T one piece of T, and nothing else: no record sees another."""

    def __init__(self, tokens: Tokens, seq_len: int) -> None:
        """Rows are as long as the longest piece: at most `seq_len`."""
        self.tokens = tokens
        self.starts, self.lengths, self.masked = _pieces(tokens, seq_len)
        self.seq_len = int(self.lengths.max(initial=1))
        self.row_ends = np.arange(1, 1 + len(self.starts))


class BestFitRows(_RowsOfPieces):
    """Rows of whole documents, and of longer ones in pieces of T, each piece in one row.

    A piece of n+1 tokens takes n places: its last token is a label only. Pieces are fitted together in windows, so that
    a corpus of any size can be packed.
    """

    def __init__(self, tokens: Tokens, seq_len: int, plan: Path | None = None) -> None:
        """Plan the rows, or read the plan from a folder of an earlier time; it is written there if it is not."""
        self.tokens, self.seq_len = tokens, seq_len
        names = ("starts", "lengths", "masked", "row_ends")
        if plan is None:
            arrays: tuple[np.ndarray | FileArray, ...] = _plan(tokens, seq_len)
        else:
            if not plan.exists():
                partial = plan.with_name(plan.name + ".partial")
                partial.mkdir(parents=True, exist_ok=True)
                for name, array in zip(names, _plan(tokens, seq_len), strict=True):
                    write_array(partial / f"{name}.npy", array)
                partial.rename(plan)
            arrays = tuple(_planned(plan, name) for name in names)
        self.starts, self.lengths, self.masked, self.row_ends = arrays


def _planned(plan: Path, name: str) -> FileArray:
    path = plan / f"{name}.npy"
    try:
        return FileArray(path, "give the same command again")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); delete {plan}, it is made anew") from None


def _plan(tokens: Tokens, seq_len: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(starts, lengths, masked labels of each piece, in the order of rows; row ends)."""
    starts, lengths, masked = _pieces(tokens, seq_len)
    orders, ends = [], []
    done = 0
    for first in range(0, len(lengths), WINDOW):
        order, row_ends = best_fit(lengths[first : first + WINDOW], seq_len)
        orders.append(order + first)
        ends.append(row_ends + done)
        done += len(order)
    order = np.concatenate([np.empty(0, np.int64), *orders])
    row_ends = np.concatenate([np.empty(0, np.int64), *ends])
    return starts[order], lengths[order].astype(np.int32), masked[order].astype(np.int32), row_ends


def _pieces(tokens: Tokens, seq_len: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start, number of labels, how many of those are in the prompt) of every piece of every document."""
    found: tuple[list[np.ndarray], ...] = ([], [], [])
    for shard, base in zip(tokens.shards, tokens.starts, strict=False):
        ends = np.asarray(shard.documents[:, 0])
        begins = np.concatenate([[0], ends[:-1]])
        n_labels = ends - begins - 1
        n_pieces = -(-n_labels // seq_len)
        document = np.repeat(np.arange(len(ends)), n_pieces)
        offset = (np.arange(len(document)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)) * seq_len
        length = np.minimum(seq_len, n_labels[document] - offset)
        prompt = np.clip(shard.documents[:, 1][document] - 1 - offset, 0, length)
        for array, to in zip((base + begins[document] + offset, length, prompt), found, strict=True):
            to.append(array)
    starts, lengths, masked = (np.concatenate([np.empty(0, np.int64), *arrays]) for arrays in found)
    return starts, lengths, masked

"""Weights of a model, read one tensor at a time from where they are stored, under our names and in our layouts.

What can be wrong (missing, unknown, of another shape, damaged) raises an error before the first tensor is read, except
for numbers that are not finite, which raise one when the tensor that holds them is read.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_dcp

from conf.errors import reason
from models.config import ModelConfig
from models.storage.checkpoints import verify
from models.storage.errors import FormatError
from models.storage.hf import hf_name, our_layout, our_names, shape_of
from models.storage.hf_index import opened, shards

FLOATS = ("F64", "F32", "F16", "BF16")


class Weights(Mapping[str, torch.Tensor]):
    """Our names -> tensors; each lookup reads anew, so that nothing is held that the caller does not hold."""

    def __init__(self, size: ModelConfig, where: Path) -> None:
        self.size, self.where = size, where
        self.names = our_names(size)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._read(name)
        if not torch.isfinite(tensor).all():
            raise FormatError(
                f"{self.where}: {name} holds numbers that are not finite (NaN or infinity): its training has diverged,"
                " or the file is damaged; take an earlier checkpoint"
            )
        return tensor

    @abstractmethod
    def _read(self, name: str) -> torch.Tensor:
        """The tensor of one of our names."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def n_parameters(self) -> int:
        """Numbers in all; a tied matrix counts once."""
        return sum(math.prod(shape_of(name, self.size)) for name in self.names)

    def _check(self, where: str, shapes: Mapping[str, tuple[int, ...]], theirs: Mapping[str, str]) -> None:
        """Raise FormatError unless `shapes` are those of this size, under the names that `theirs` gives to ours."""
        expected = {theirs[name]: shape_of(name, self.size) for name in self.names}
        for what, names in (
            ("missing", expected.keys() - shapes.keys()),
            ("unknown", shapes.keys() - expected.keys()),
            ("wrong shape of", {n for n in expected.keys() & shapes.keys() if tuple(shapes[n]) != expected[n]}),
        ):
            if names:
                first = sorted(names)[0]
                detail = f" ({list(shapes[first])}, not {list(expected[first])})" if what.startswith("wrong") else ""
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise FormatError(f"{where}: {what} tensor {first}{detail}{more}")


class HuggingFaceWeights(Weights):
    """Weights of a folder with safetensors, in one file or several; one file is mapped at a time."""

    def __init__(self, folder: Path, size: ModelConfig) -> None:
        """Raises FormatError."""
        super().__init__(size, folder)
        self.files = shards(folder)
        self.theirs = {name: hf_name(name) for name in self.names}
        shapes = {}
        for file in sorted(set(self.files.values())):
            with opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118, it is no dict
                    part = tensors.get_slice(name)
                    shapes[name] = tuple(part.get_shape())
                    if part.get_dtype() not in FLOATS:
                        raise FormatError(f"{file}: {name} has dtype {part.get_dtype()}; must be one of {FLOATS}")
        for name in [n for n in shapes if n.endswith("rotary_emb.inv_freq")]:
            del shapes[name]  # a table that old checkpoints carry along
        if size.tie_embeddings:
            shapes.pop("lm_head.weight", None)
        self._check(str(folder), shapes, self.theirs)

    def _read(self, name: str) -> torch.Tensor:
        theirs = self.theirs[name]
        with opened(self.files[theirs]) as tensors:
            tensor: torch.Tensor = tensors.get_tensor(theirs)
            ours = our_layout(name, tensor, self.size)
            # Not a view into the file, which would keep all of it mapped.
            return tensor.clone() if ours is tensor else ours


class CheckpointWeights(Weights):
    """Weights of a DCP checkpoint written by any number of ranks."""

    def __init__(self, folder: Path, size: ModelConfig) -> None:
        """Raises FormatError. The files are compared with the checkpoint's manifest when a tensor is first read."""
        super().__init__(size, folder)
        self.folder, self.verified = folder, False
        try:
            self.reader = _Reader(folder)
            entries = self.reader.read_metadata().state_dict_metadata
        except Exception as error:
            verify(folder)  # which may know better what is wrong
            raise FormatError(f"{folder}: cannot be read ({reason(error)})") from None
        self.stored = {n: e for n, e in entries.items() if isinstance(e, TensorStorageMetadata) and n in self.names}
        self._check(str(folder), {n: tuple(e.size) for n, e in self.stored.items()}, {n: n for n in self.names})

    def _read(self, name: str) -> torch.Tensor:
        if not self.verified:
            verify(self.folder)
            self.verified = True
        entry = self.stored[name]
        tensor = {name: torch.empty(entry.size, dtype=entry.properties.dtype)}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is one process
                load_dcp(tensor, storage_reader=self.reader, no_dist=True)
        except (CheckpointException, Exception) as error:  # the former is a BaseException; readers raise anything
            raise FormatError(f"{self.folder}: cannot be read ({reason(error)})") from None
        return tensor[name]


class _Reader(FileSystemReader):
    """Reads the list of tensors once instead of at every load."""

    known: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        self.known = self.known or super().read_metadata(*args, **kwargs)
        return self.known

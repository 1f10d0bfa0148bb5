"""A stored model as a GGUF file: its weights, its tokenizer, and a name that says what it is."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gguf import GGMLQuantizationType as Kind

from models.config import ModelConfig
from models.convert_config import StoredDtype
from models.storage.errors import FormatError
from models.storage.gguf.vocabulary import Vocabulary, vocabulary_of
from models.storage.gguf.write import write_gguf
from models.storage.stored import Stored
from models.storage.tokenizer_files import write_tokenizer_files

KINDS = {
    StoredDtype.keep: None,
    StoredDtype.float32: Kind.F32,
    StoredDtype.bfloat16: Kind.BF16,
    StoredDtype.float16: Kind.F16,
    StoredDtype.q8_0: Kind.Q8_0,
}


def export_gguf(stored: Stored, whole: ModelConfig, file: Path, *, dtype: StoredDtype) -> None:
    """Write the file.

    Args:
        stored: what to write.
        whole: sizes of the model that its layers are from; its own where it has all of them.
        file: to write.
        dtype: of the matrices.

    Raises FormatError for what GGUF cannot hold.
    """
    size = stored.size
    name, how = whole.name, "Trained with LayerSkip." if "early_exit" in (stored.run or {}) else "Converted."
    description = f"{how} {size.n_layers} layers."
    if size.n_layers < whole.n_layers:
        name += f", the first {size.n_layers} layers"
        description = f"{how} The first {size.n_layers} of {whole.n_layers} layers: a draft model for the whole."
    write_gguf(
        stored.weights, file, kind=KINDS[dtype], vocabulary=_vocabulary(stored), name=name, description=description
    )


def _vocabulary(stored: Stored) -> Vocabulary | None:
    with TemporaryDirectory() as folder:
        special = write_tokenizer_files(stored, Path(folder))
        if not any(Path(folder).iterdir()):
            if stored.hf is not None:  # of the other forms a line has been said
                print(f"{stored.folder}: no tokenizer there, none written", file=sys.stderr)
            return None
        ends = special.eos_id if isinstance(special.eos_id, list) else [special.eos_id]
        try:
            return vocabulary_of(Path(folder), ends[0])
        except FormatError as error:
            raise FormatError(f"{stored.folder}: {error}") from None

"""Which file of a Hugging Face folder holds which tensor."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from conf.errors import reason
from models.storage.errors import FormatError

INDEX = "model.safetensors.index.json"


def opened(file: Path) -> Any:
    """A safetensors file, mapped. Raises FormatError for one that is damaged."""
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file}: incomplete or damaged ({reason(error)}); get the file again") from None


def shards(folder: Path) -> dict[str, Path]:
    """Tensor name -> file. Raises FormatError for a file that is missing, damaged or not as the index says."""
    index = folder / INDEX
    if index.exists():
        try:
            listed: dict[str, str] = json.loads(index.read_text())["weight_map"]
        except (OSError, ValueError, KeyError) as error:
            raise FormatError(f"{index}: is no index of safetensors files ({error!r})") from None
        files = sorted({folder / name for name in listed.values()})
    else:
        single = folder / "model.safetensors"
        listed, files = {}, [single] if single.exists() else sorted(folder.glob("*.safetensors"))
    if not files:
        others = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
        hint = "; convert its .bin or .pth files with transformers' save_pretrained" if others else ""
        raise FormatError(f"{folder}: no .safetensors file{hint}")
    held: dict[Path, set[str]] = {}
    for file in files:
        if not file.exists():
            raise FormatError(f"{file}: missing, though {INDEX} names it; get the file")
        with opened(file) as tensors:
            held[file] = set(tensors.keys())
    for name, file_name in listed.items():
        if name not in held[folder / file_name]:
            raise FormatError(f"{folder / file_name}: lacks tensor {name}, which {INDEX} places there")
    if listed:
        return {name: folder / file_name for name, file_name in listed.items()}
    return {name: file for file, names in held.items() for name in names}

"""What the files of conf/ may compute: `${choices:model,data}`, `${run_name:recipe,model}`, `${checkpoint_kinds:}`."""

from pathlib import Path

from omegaconf import OmegaConf


def choices(*groups: str) -> str:
    """What --help says of a command's groups: a line for each, with the files that it may be."""
    names = {group: sorted(file.stem for file in (Path(__file__).parent / group).glob("*.yaml")) for group in groups}
    return "\n".join(f"{group}: {', '.join(files)}" for group, files in names.items())


def run_name(recipe: str, model: str) -> str:
    """The folder of a run: both names, or the recipe's alone where the model is the one made for it."""
    return recipe if model == f"llama_{recipe}" else f"{recipe}-{model}"


def checkpoint_kinds() -> str:
    """What every command that decodes takes."""
    return "A checkpoint is a run folder, one of its checkpoint/step-N, a Hugging Face folder, a .gguf file or hf://org/name."


def register_resolvers() -> None:
    """Make them known to OmegaConf. Safe to call more than once."""
    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("checkpoint_kinds", checkpoint_kinds, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)

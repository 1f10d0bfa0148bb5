"""C(t, l): which exits are trained at step t. Paper, section 4.2, "early exit loss curriculum"."""

from dataclasses import dataclass, field
from enum import StrEnum

from conf.checks import at_least
from conf.plugins import check_choice, is_plugin, load_function
from train.recipe.distillation import DistillationConfig, Otherwise

KEY, PARAMETERS = "early_exit.curriculum", ("step", "n_layers", "total_steps")


class Curriculum(StrEnum):
    """Which exits are active when."""

    none = "none"
    """The last layer alone: ordinary training."""
    all = "all"
    """Every exit at every step."""
    rotational = "rotational"
    """Layer l at the steps where (l - t) mod R == 0: each exit once every R steps."""
    gradual = "gradual"
    """From the last layer down, one more every T/(2L) steps; all are on before T/2."""


@dataclass(kw_only=True)
class EarlyExitConfig:
    """The early-exit loss: which exits, and how much each weighs."""

    curriculum: str = Curriculum.none.value
    """C(t, l): none, all, rotational, gradual, or my_package.mine:name, a function (step, n_layers, total_steps) that
    returns the layers, counted from 0, whose exits are trained at step t."""
    e_scale: float = 0.0
    """Scale of the early exits' weights e(l), 0 <= e_scale <= 1; 0 leaves the last layer alone."""
    rotation_period: int | None = None
    """R of the rotational curriculum; null: L - 1, as in most of the paper's experiments, and one step for each of
    `exits`."""
    exits: list[float] | None = None
    """Exits below the last layer that are trained, those that will be served: numbers of layers run, from 2 on, or
    shares of all layers, below 1. The rotational curriculum goes round these alone. null: all."""
    include_last_layer: bool = True
    """Whether the last layer is trained at every step. The paper does not say; without it the rotational curriculum
    trains it once every R steps."""
    read_only_head: bool = False
    """Whether the shared final norm and LM head learn from the last layer alone: exits below it go through them, and
    leave them no gradient."""
    gradient_cosine_every: int | None = None
    """Steps between two measurements of the cosine between the exits' and the last layer's gradient (train/monitoring/
    gradient_cosine.py), each of which takes the step's forward and backward once more; choose a number without a common
    factor with rotation_period, or always the same exits are measured. null: never."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """Exits that learn from the last layer's distribution; takes the place of the paper's weights."""

    def __post_init__(self) -> None:
        check_choice(self.curriculum, Curriculum, KEY, PARAMETERS)
        if not 0.0 <= self.e_scale <= 1.0:
            raise ValueError(f"early_exit.e_scale={self.e_scale}: must lie in 0..1")
        if self.rotation_period is not None and self.rotation_period < 1:
            raise ValueError(f"early_exit.rotation_period={self.rotation_period}: must be null or at least 1")
        if self.curriculum != Curriculum.rotational and self.rotation_period is not None:
            raise ValueError(
                f"early_exit.rotation_period={self.rotation_period}: only early_exit.curriculum=rotational has one"
            )
        self._check_exits()
        at_least(1, self, "gradient_cosine_every", section="early_exit.")
        if self.read_only_head and not self.include_last_layer:
            raise ValueError(
                "early_exit.read_only_head=True: norm and LM head would learn in the steps of the last layer alone; set"
                " early_exit.include_last_layer=true"
            )
        self._check_distillation()

    def _check_exits(self) -> None:
        if self.exits is None:
            return
        key = f"early_exit.exits={self.exits}"
        # The paper's weight of the first layer's exit is 0.
        if not self.exits or not all(0 < e < 1 or (e >= 2 and e % 1 == 0) for e in self.exits):
            raise ValueError(f"{key}: must be null, or numbers of layers, from 2 on, or shares of all layers, below 1")
        if self.curriculum == Curriculum.none or is_plugin(self.curriculum):
            raise ValueError(f"{key}: early_exit.curriculum={self.curriculum} does not ask for exits; set it to null")

    def _check_distillation(self) -> None:
        distillation = self.distillation
        if distillation.strength == 0.0:
            return
        key = f"early_exit.distillation.strength={distillation.strength}"
        if self.curriculum == Curriculum.none:
            raise ValueError(f"{key}: there is no exit to teach; choose exits, with early_exit=distilled for instance")
        free = not distillation.always and distillation.otherwise is Otherwise.paper
        if not self.include_last_layer and not free:
            raise ValueError(
                f"{key}: the last layer teaches, so it is run in every step; set early_exit.include_last_layer=true"
            )


def layers_run(exit_layer: float, n_layers: int, least: int = 1) -> int:
    """The layers before an exit: the number that is given or, below 1, such a share of all (`least` or more)."""
    return int(exit_layer) if exit_layer >= 1 else max(least, round(exit_layer * n_layers))


def chosen_exits(config: EarlyExitConfig, n_layers: int) -> list[int]:
    """`exits` as numbers of layers run, ascending, each once; those that shares give are at least 2 and below L."""
    found = [(e, layers_run(e, n_layers, least=2)) for e in config.exits or ()]
    return sorted({layers for e, layers in found if e >= 1 or layers < n_layers})


def rotation(config: EarlyExitConfig, n_layers: int) -> int:
    """R, the number of steps after which the rotational curriculum repeats itself."""
    if config.rotation_period is not None:
        return config.rotation_period
    if config.exits is None:
        return n_layers - 1
    # Without include_last_layer the last layer takes its turn after the chosen exits.
    return max(1, len(chosen_exits(config, n_layers)) + (not config.include_last_layer))


def gradual_start(layer: int, n_layers: int, total_steps: int) -> int:
    """The first step at which the gradual curriculum trains layer l: ceil((L-1-l) * T / (2L))."""
    return -(-(n_layers - 1 - layer) * total_steps // (2 * n_layers))


def active_layers(config: EarlyExitConfig, step: int, n_layers: int, total_steps: int) -> tuple[int, ...]:
    """The layers l, ascending, with C(t, l) = 1 at step t of 0..T-1."""
    last = n_layers - 1
    if is_plugin(config.curriculum):
        active = _of_plugin(config.curriculum, step, n_layers, total_steps)
        return tuple(sorted(active | {last} if config.include_last_layer else active))
    # The layers that take turns; a layer's place is its turn.
    chosen = range(n_layers) if config.exits is None else [*(e - 1 for e in chosen_exits(config, n_layers)), last]
    period = rotation(config, n_layers)

    def is_active(turn: int, layer: int) -> bool:
        if layer == last and (config.include_last_layer or config.curriculum == Curriculum.none):
            return True
        if config.curriculum == Curriculum.rotational:
            return (turn - step) % period == 0
        if config.curriculum == Curriculum.gradual:
            return step >= gradual_start(layer, n_layers, total_steps)
        return config.curriculum == Curriculum.all

    return tuple(layer for turn, layer in enumerate(chosen) if is_active(turn, layer))


def _of_plugin(path: str, step: int, n_layers: int, total_steps: int) -> set[int]:
    """What a curriculum of the user's own makes of a step. Raises ValueError for anything but layers of the model."""
    found = load_function(path, KEY, PARAMETERS)(step=step, n_layers=n_layers, total_steps=total_steps)
    try:
        layers = set(found)
    except TypeError:
        layers = {found}
    if bad := [layer for layer in layers if not isinstance(layer, int) or not 0 <= layer < n_layers]:
        raise ValueError(
            f"{KEY}={path}: gave layer {bad[0]!r} at step {step}; must be whole numbers in 0..{n_layers - 1}"
        )
    return layers

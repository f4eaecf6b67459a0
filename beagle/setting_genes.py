"""Genes that are no hyperparameters: choices of the training, switches of it, and options of the model."""

from collections.abc import Mapping
from typing import Any

from beagle.folders import CommandError, absolute_source
from evolve import Gene
from evolve.gene import Value
from trainer.config import CHOICES, RANGES

ON, OFF, NONE = "on", "off", "none"
SWITCHES = ("rect", "multi_scale", "image_weights", "autobalance")
MODEL_OPTIONS = ("activation", "attention", "norm", "dropblock")
DROPBLOCK = (0.0, 0.3)

SETTING_GENES: Mapping[str, tuple[str, ...]] = {
    **{
        name: tuple(choice for choice in CHOICES[name] if choice != "auto")
        for name in ("optimizer", "schedule", "loss", "box_loss", "assignment")
    },
    **dict.fromkeys(SWITCHES, (OFF, ON)),
    "activation": ("silu", "mish", "relu", "hardswish", "leaky"),
    "attention": (NONE, "sam", "sam-pointwise", "se", "cbam"),
    "norm": ("bn", "cmbn"),
    "dropblock": (),
    "model": ("yolov5n", "yolov5s", "yolov5m"),
}
"""Their usual choices; a share of features is drawn from `DROPBLOCK`."""


def setting_gene(name: str, row: Any, training: Mapping[str, Any], where: str) -> Gene:
    """A gene of `SETTING_GENES`.

    Args:
        name: Which.
        row: What a space file says of it: `[low, high]` for a number, `{choices: [...]}`, or None for the usual.
        training: Settings of the evolution; where the gene begins, if that is a choice.
        where: For messages.

    Raises:
        CommandError: No range and no choices of words.
        SpaceError: A gene that can't be.
    """
    known: dict[str, Any] = {"name": name}
    if name == "dropblock" and not (isinstance(row, dict) and "choices" in row):
        low, high = row if isinstance(row, list) and len(row) == 2 else DROPBLOCK
        more = row if isinstance(row, dict) else {}
        return Gene.from_dict({**known, "low": low, "high": high, "start": low, **more})
    choices = row.get("choices") if isinstance(row, dict) else list(SETTING_GENES[name])
    if not isinstance(choices, list) or (row is not None and not isinstance(row, dict)):
        raise CommandError(f"{where}: gene {name} must be a map with choices, but got {row!r}")
    # YAML reads the words on and off as true and false.
    words = [{True: ON, False: OFF}[word] if isinstance(word, bool) else word for word in choices]
    if name == "model":
        words = [absolute_source(str(word)) for word in words]
    start = training.get(name)
    if isinstance(start, bool):
        start = ON if start else OFF
    own = {"start": start} if start in words else {}
    return Gene.from_dict({**known, **own, **(row or {}), "choices": words})


def overlaid(settings: Mapping[str, Any], config: Mapping[str, Value]) -> dict[str, Any]:
    """The settings of one trial: those of the evolution, with its genes in their places.

    Args:
        settings: Fields of `TrainConfig`, with `hyp` as a map.
        config: Genes of the trial.
    """
    result = {**settings, "hyp": {**settings["hyp"], **{k: v for k, v in config.items() if k in RANGES}}}
    model = {}
    for name, value in config.items():
        if name in SWITCHES:
            result[name] = value == ON
        elif name in MODEL_OPTIONS:
            model[name] = None if value == NONE else value
        elif name in SETTING_GENES:
            result[name] = value
    if model:
        from model.options import with_options

        result["model"] = with_options(result["model"], **model)
    return result


def check_setting_genes(genes: tuple[Gene, ...], settings: Mapping[str, Any]) -> None:
    """Refuse, before an evolution begins, what one of its trials would refuse.

    Args:
        genes: Of the space.
        settings: All that `TrainConfig` needs, with `hyp` as a map.

    Raises:
        TrainError: A choice that the training doesn't know.
        ModelError: An option that the model can't have.
        CommandError: A model with other levels.
    """
    from model.spec import load_spec
    from trainer.config import TrainConfig

    own = load_spec(settings["model"])
    for gene in genes:
        if gene.name not in SETTING_GENES:
            continue
        for value in gene.choices or (gene.low, gene.high):
            given = overlaid(settings, {gene.name: value})
            TrainConfig.from_dict(given)
            if gene.name in (*MODEL_OPTIONS, "model"):
                spec = load_spec(given["model"])
                if (spec.strides, len(spec.anchors[0])) != (own.strides, len(own.anchors[0])):
                    raise CommandError(
                        f"gene {gene.name}: all models of an evolution share their anchors, so they must have the "
                        f"levels of {settings['model']}, but {value} has not"
                    )

"""A production training to be written in some program's words, and what is said of what that program lacks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from beagle.folders import CommandError
from beagle.rescale import Length
from model.spec import ModelSpec
from trainer.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Training:
    """The production training that is exported.

    Attributes:
        hyp: Under Beagle's names, for production's length.
        spec: The model with its anchors.
        length: Epochs and batch.
        settings: Of the run: image_size, optimizer, schedule, seed, weights.
        data: What the command reads by default.
        start: Name of the file of starting weights in the folder; empty for none.
        batches: Iterations in an epoch of production; 0 where they are not known.
    """

    hyp: Mapping[str, float]
    spec: ModelSpec
    length: Length
    settings: Mapping[str, Any]
    data: str
    start: str = ""
    batches: int = 0

    @property
    def optimizer(self) -> str:
        """Beagle's name of the optimiser."""
        return str(self.settings.get("optimizer", "sgd"))

    @property
    def rate_share(self) -> float:
        """The share of lr0 that Beagle's trainer gives the optimiser; the other programs take lr0 as it is."""
        from trainer.optim import RATE_FACTORS

        return RATE_FACTORS[self.optimizer]

    def optimizer_there(self, program: str, names: Mapping[str, str]) -> str:
        """What a program calls the optimiser.

        Raises:
            CommandError: It does not have it, and rates tuned for one are wrong for another.
        """
        if self.optimizer not in names:
            raise CommandError(
                f"{program} has no {self.optimizer}, and rates that were evolved for it fit no other optimiser: "
                "choose another --format"
            )
        return names[self.optimizer]


@dataclass(frozen=True)
class Written:
    """A training in a program's own words.

    Attributes:
        format: Name of the program, of `beagle.export_formats.FORMATS`.
        hyp: Its hyperparameters, under its own keys.
        names: Its key to Beagle's name, for all that is carried over.
        command: Words of its training.
        texts: File name to text.
        variables: Of the script: name to default; None must be set.
        directory: Where it runs.
        notes: What could not be carried, and what the user must know.
        model_file: The file that holds the anchors.
    """

    format: str
    hyp: dict[str, Any]
    names: dict[str, str]
    command: list[str]
    texts: dict[str, str]
    variables: dict[str, str | None] = field(default_factory=dict)
    directory: str = ""
    notes: list[str] = field(default_factory=list)
    model_file: str = "model.yaml"


def rate_note(training: Training) -> list[str]:
    """What became of the rate, where Beagle gives an optimiser a share of it."""
    share = training.rate_share
    if share == 1:
        return []
    words = f"{share:g} of the evolved: Beagle takes that for {training.optimizer} by itself."
    return [f"lr0, and warmup_bias_lr where the program has it, is {words}"]


def lost_note(training: Training, known: Collection[str]) -> list[str]:
    """Hyperparameters that a program is told nothing of, where they differ from the usual."""
    usual = Hyperparameters().to_dict()
    lost = [
        f"{name} {value:g}"
        for name, value in training.hyp.items()
        if name not in known and name != "anchors" and value != usual[name]
    ]
    return [f"The program has no place for these: {', '.join(lost)}."] if lost else []


def weights_note(training: Training, program: str) -> list[str]:
    """Why the program does not begin from the exported weights."""
    notes = [
        f"best.pt holds tensors under the names that {program} uses, but no pickled classes of that program, so its "
        "--weights does not take it: the training begins from random weights, as long trainings do."
    ]
    if training.start:
        notes.append(f"The trials began from {training.start}; {program} is not given it.")
    return notes


def unknown_modules(spec: ModelSpec, program: str, known: frozenset[str]) -> list[str]:
    """Modules of the model that the program does not have."""
    unknown = sorted({row.module for row in spec.rows} - known)
    if not unknown:
        return []
    return [
        f"model.yaml names {', '.join(unknown)}, which {program}'s own models do not use: it may lack them, or mean "
        "other layers by them."
    ]

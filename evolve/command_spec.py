"""A trainer that is any command, as frozen plain data; `evolve.command_file` reads it from a file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from evolve.command_words import fields_of
from evolve.gene import Value
from evolve.space import EvolveError, Gene

Scalar = float | int | str | bool | None


class SpecError(EvolveError):
    """A trainer's file that can't be."""


@dataclass(frozen=True)
class Handover:
    """How a command gets its hyperparameters.

    Attributes:
        file: Name of the YAML file that is written in the trial's folder, `{hyp}`; None for none.
        arguments: Words that are added to the command for each of them, with {name} and {value}, such as
            ("{name}={value}",); empty for none.
        names: Gene name to the command's own key, where they differ.
        fixed: The command's own keys with the values of those that are not evolved.
    """

    file: str | None = "hyp.yaml"
    arguments: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Scalar] = field(default_factory=dict)

    def values(self, genes: Mapping[str, Value]) -> dict[str, Scalar]:
        """Hyperparameters under the command's own keys: the fixed ones, overlaid by a trial's genes."""
        return {**self.fixed, **{self.names.get(name, name): value for name, value in genes.items()}}


@dataclass(frozen=True)
class Results:
    """Where a command says how well it does.

    Attributes:
        format: csv, json (one object or a list), jsonl (an object a line), regex (over the log) or mlflow.
        file: Template of the path; for mlflow of the tracking URI.
        fitness: Column to weight; the fitness is the weighted sum, more is better.
        metrics: Name in the journal to column, reported besides.
        epoch: Column that holds the epoch; None counts the rows.
        first: What that column says in the first epoch.
        rows: Dotted path of the list of rows within a json file; empty for the file itself.
        pattern: Of regex: named groups are the columns.
    """

    format: str
    file: str
    fitness: Mapping[str, float]
    metrics: Mapping[str, str] = field(default_factory=dict)
    epoch: str | None = None
    first: int = 0
    rows: str = ""
    pattern: str = ""


@dataclass(frozen=True)
class Limits:
    """When a command is ended.

    Attributes:
        silent_s: Seconds without a word in its log or a row in its results; None for ever.
        total_s: Seconds of one attempt; None for ever.
        stop_s: Seconds that it gets to end by itself once it is asked to (SIGTERM), before SIGKILL.
        halvings: How often the batch is halved after an out-of-memory, where the command takes `{batch}`.
    """

    silent_s: float | None = 3600.0
    total_s: float | None = None
    stop_s: float = 10.0
    halvings: int = 2


@dataclass(frozen=True, kw_only=True)
class CommandSpec:
    """A trainer that is a command.

    Attributes:
        name: What it is called.
        source: The file it was read from.
        command: Words, templates (see `evolve.command_words`).
        resume: Words that go on from `{checkpoint}`; empty where it can't: it is then begun anew.
        checkpoint: Template of the path of the last checkpoint.
        best: Template of the path of the best weights; empty for none.
        artifacts: Templates of further files to keep with MLflow.
        working_directory: Where it runs, a template.
        environment: Variables besides those of the worker; templates. They stand in the journal: secrets are
            better left in the environment, which the command inherits.
        handover: How it gets its hyperparameters.
        results: Where its fitness stands.
        limits: When it is ended.
        genes: All that it can be given, each with its range and start.
        defaults: Of model, epochs, batch and image_size.
        production_epochs: Epochs of the exported training.
        per_length: Genes counted in epochs of which production takes the same share of its length.
    """

    name: str
    source: str
    command: tuple[str, ...]
    resume: tuple[str, ...] = ()
    checkpoint: str = ""
    best: str = ""
    artifacts: tuple[str, ...] = ()
    working_directory: str = "{cwd}"
    environment: Mapping[str, str] = field(default_factory=dict)
    handover: Handover = field(default_factory=Handover)
    results: Results
    limits: Limits = field(default_factory=Limits)
    genes: tuple[Gene, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    production_epochs: int = 300
    per_length: tuple[str, ...] = ()

    def fields(self) -> set[str]:
        """Placeholders that its words and files name."""
        words = (
            *self.command,
            *self.resume,
            *self.environment.values(),
            self.results.file,
            self.working_directory,
        )
        return set().union(*(fields_of(word) for word in words))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, also after a way through JSON."""
        lists = {key: tuple(data[key]) for key in ("command", "resume", "artifacts", "per_length")}
        handover = {**data["handover"], "arguments": tuple(data["handover"]["arguments"])}
        parts = {
            "handover": Handover(**handover),
            "results": Results(**data["results"]),
            "limits": Limits(**data["limits"]),
            "genes": tuple(Gene.from_dict(gene) for gene in data["genes"]),
        }
        return cls(**{**data, **lists, **parts})

"""What the HTTP service takes and gives: its contract, from which OpenAPI is made."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

State = Literal["waiting", "running", "finished", "stopped", "interrupted", "failed"]
"""How an evolution stands.

waiting: its job has not begun. running: a driver has it. finished: all its trials are told. stopped: it was asked to
stop. interrupted: nobody drives it, and nobody asked for that. failed: its job ended before it began a run.
"""
TrialStatus = Literal["running", "finished", "failed", "stopped"]
"""stopped: the ladder of epochs ended it early."""
Place = Literal["local", "slurm", "ray", "kubernetes"]
Format = Literal["beagle", "yolov5", "scaled-yolov4", "ultralytics"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$", examples=["night"])]
ImageSize = Annotated[int, Field(ge=32, le=4096, examples=[640])]


class Answer(BaseModel):
    """Base of what the service gives: plain data, nothing beside what is named."""

    model_config = ConfigDict(extra="forbid")


class Request(BaseModel):
    """Base of what the service takes: unknown keys are refused, and numbers must be numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Refusal(Answer):
    """Why a request was refused, in one line."""

    error: str
    where: str | None = Field(None, description="The field, header or parameter that is wrong.")


class Health(Answer):
    """The service answers."""

    status: Literal["ok"]
    version: str


class Ready(Answer):
    """What the service needs, and whether it is there."""

    ready: bool
    checks: dict[str, str] = Field(description="'ok', or what is wrong.")


class Choices(Answer):
    """What a request may name beside files of the user's own."""

    places: list[Place] = Field(description="Where evolutions may be handed over to.")
    models: list[str] = Field(description="Those that are built in.")
    searches: list[str] = Field(description="Ours, and Optuna's samplers.")


class Best(Answer):
    """The leading configuration so far."""

    trial: int = Field(description="Its first.")
    fitness: float = Field(
        description="Mean of its trainings; of those alone that confirm it, once they have."
    )


class Summary(Answer):
    """One evolution in a list."""

    id: str
    name: str
    state: State
    reason: str | None = Field(description="Why it stopped, failed or waits.")
    data: str
    model: str
    created: float = Field(description="Unix seconds.")
    updated: float = Field(description="Unix seconds of the newest event.")
    planned: int = Field(description="Trials that it may run.")
    asked: int
    finished: int = Field(description="Told with a fitness; those that confirm among them.")
    failed: int
    cut: int = Field(description="Trials that the ladder of epochs ended early.")
    running: int
    epochs: int = Field(description="Of each trial.")
    best: Best | None
    start_fitness: float | None = Field(description="Of the default configuration, measured as the best was.")
    job: str | None = Field(description="The job that drives it, where it was handed over as one.")


class Evolutions(Answer):
    """All evolutions, the newest first."""

    evolutions: list[Summary]


class GeneInfo(Answer):
    """One gene and its bounds."""

    name: str
    low: float | None
    high: float | None
    start: float | str | None
    log: bool
    integer: bool
    choices: list[float | str] | None


class TrialInfo(Answer):
    """One trial."""

    id: int
    state: TrialStatus
    fitness: float | None
    epoch: int = Field(description="Epochs done.")
    config: dict[str, float | str]
    origin: dict[str, Any]
    attempt: int
    asked: float
    seconds: float | None
    reason: str | None
    updated: float


class CurvePoint(Answer):
    """One epoch of a trial."""

    epoch: int
    metrics: dict[str, float | None]


class TrialDetail(TrialInfo):
    """One trial with its learning curve."""

    curve: list[CurvePoint]


class Winner(Answer):
    """The configuration that an export would take."""

    trial: int = Field(description="Its first.")
    fitness: float = Field(
        description="Mean of its trainings; of those alone that confirm it, once they have."
    )
    low: float | None = Field(description="Lower end of the fitness's interval; None with a single training.")
    high: float | None
    runs: int = Field(description="Trainings that the mean is of.")
    epochs: int = Field(description="Of each of them.")
    confirmed: bool = Field(description="Whether they had seeds by which it was not chosen.")
    words: str = Field(description="What the fitness was measured on, and how far it is to be believed.")
    config: dict[str, float | str]


class AnchorsOfRun(Answer):
    """Anchors of the trials, as the run's header has them."""

    levels: list[list[list[float]]] = Field(description="Width and height in px, by level.")
    bpr_before: float | None
    bpr_after: float | None


class Evolution(Summary):
    """One evolution whole."""

    genes: list[GeneInfo]
    trials: list[TrialInfo]
    winner: Winner | None
    anchors: AnchorsOfRun | None
    offset: int = Field(description="Bytes of the journal that this answer knows: where its events go on.")


class NewEvolution(Request):
    """An evolution to start."""

    data: str = Field(min_length=1, max_length=4096, examples=["digits"])
    name: Name
    model: str = Field("yolov5s", min_length=1, max_length=4096, examples=["yolov5n"])
    trials: int = Field(100, ge=1, le=100_000, examples=[20])
    epochs: int = Field(10, ge=1, le=10_000, description="Of a whole trial.", examples=[5])
    rungs: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default=[],
        max_length=20,
        description="Epochs, rising and fewer than `epochs`, after which hopeless trials end; empty for none.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Trials without a better configuration after which the search ends.",
    )
    epoch_budget: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Epochs of all trials after which the search ends.",
    )
    confirm: int = Field(
        0,
        ge=0,
        le=1000,
        description="So many of the best are trained again in full at the end, beside the start.",
    )
    confirm_epochs: int | None = Field(
        None, ge=1, le=10_000, description="Of these trainings; as of a whole trial unless given."
    )
    confirm_seeds: int = Field(3, ge=1, le=1000, description="Trainings of each of them.")
    image_size: ImageSize = 640
    batch_size: int = Field(16, ge=1, le=65_536)
    genes: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]] = Field(
        default=[], description="Names to evolve; empty for the usual ones.", examples=[["lr0", "mosaic"]]
    )
    search: str = Field("genetic", pattern=r"^[a-z0-9]{1,20}$")
    anchors: Literal["auto", "fit", "keep"] = "auto"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    cpus: float = Field(1.0, gt=0, le=1024, description="Of each trial.")
    gpus: float = Field(0.0, ge=0, le=1024, description="Of each trial; 0.5 lets two share one.")
    concurrent: int | None = Field(None, ge=1, le=100_000)
    to: Place = "local"
    nodes: int = Field(1, ge=1, le=10_000)
    hours: float | None = Field(None, gt=0, le=10_000)

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: list[int], known: ValidationInfo) -> list[int]:
        ladder = (*rungs, known.data.get("epochs", math.inf))  # missing where it is wrong itself
        if any(low >= high for low, high in pairwise(ladder)):
            raise ValueError(f"rungs must rise and be fewer than the {ladder[-1]} epochs, but got {rungs}")
        return rungs


class Started(Answer):
    """An evolution was handed over."""

    id: str
    job: str


class Stopping(Answer):
    """An evolution was asked to stop."""

    id: str
    state: State
    asked: str = Field(description="The driver or job that was asked.")


class FitRequest(Request):
    """Anchors to fit to boxes that the service can read itself."""

    path: str = Field(
        min_length=1, max_length=4096, description="Under an allowed folder, or digits.", examples=["digits"]
    )
    model: str = Field("yolov5s", min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")
    image_size: ImageSize = 640
    per_level: int = Field(0, ge=0, le=20, description="0 for the model's number.")
    threshold: float = Field(4.0, gt=1, le=100)
    seed: int = Field(0, ge=0, le=2**31 - 1)


class FitFigures(Answer):
    """How well anchors fit boxes."""

    bpr: float = Field(description="Best possible recall: share of boxes that an anchor reaches.")
    fitness: float = Field(description="Mean over boxes of the best ratio, where it is within the threshold.")
    above: float = Field(description="Mean number of anchors that reach a box.")


class Density(Answer):
    """How many boxes have which shape, for a picture."""

    log2_w_edges: list[float] = Field(description="Edges of the columns: log2 of px.")
    log2_h_edges: list[float] = Field(description="Edges of the rows: log2 of px.")
    counts: list[list[int]] = Field(description="[row][column].")


class FitResult(Answer):
    """Anchors that were fitted."""

    anchors: list[list[list[float]]] = Field(description="Width and height in px, by level.")
    model_anchors: list[list[list[float]]]
    strides: list[int]
    before: FitFigures = Field(description="Of the model's own anchors.")
    after: FitFigures
    boxes: int
    image_size: int
    threshold: float
    target_bpr: float
    seconds: float
    density: Density
    notes: list[str]


class Fit(Answer):
    """A fit: waiting, running, done with a result, or failed with an error."""

    id: str
    state: Literal["waiting", "running", "done", "failed"]
    position: int | None = Field(description="Fits that come before it; None where it does not wait.")
    error: str | None
    result: FitResult | None

"""`beagle train`: one detector, from first epoch to checkpoints."""

import os
from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import (
    Cache,
    Device,
    Difficult,
    EmaShare,
    Json,
    MultiScale,
    Pipeline,
    PreciseBn,
    Rect,
    Schedule,
    Workers,
)
from beagle.model_flags import (
    Activation,
    AnchorsFrom,
    Assign,
    Attention,
    BoxLoss,
    Dropblock,
    Loss,
    changed_model,
)

Data = Annotated[str, typer.Argument(help="data.yaml, instances.json, a folder, or digits.")]


def train(
    data: Data,
    model: Annotated[
        str, typer.Option("--model", help="A model of `beagle model list`, or a YAML file.")
    ] = "yolov5s",
    image_size: Annotated[int, typer.Option("--image-size", help="Longer image side in px.")] = 640,
    epochs: Annotated[int, typer.Option("--epochs")] = 100,
    batch_size: Annotated[
        str, typer.Option("--batch-size", "--batch", help="Images per iteration, or auto: as many as fit.")
    ] = "16",
    hyp: Annotated[Path | None, typer.Option("--hyp", help="YAML file of hyperparameters.")] = None,
    optimizer: Annotated[
        str,
        typer.Option("--optimizer", help="sgd, adamw, adam, rmsprop, or auto: adamw for short trainings."),
    ] = "auto",
    schedule: Schedule = "linear",
    nominal_batch: Annotated[
        int | None,
        typer.Option(
            "--nominal-batch", help="Images per optimiser step; by default 64, fewer on small sets."
        ),
    ] = None,
    anchors: Annotated[str, typer.Option("--anchors", help="auto refits poor anchors, keep never.")] = "auto",
    activation: Activation = None,
    attention: Attention = None,
    dropblock: Dropblock = None,
    anchors_from: AnchorsFrom = None,
    loss: Loss = "auto",
    box_loss: BoxLoss = "ciou",
    assignment: Assign = "ratio",
    weights: Annotated[str | None, typer.Option("--weights", help="Checkpoint to start from.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; runs/train by default.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: Device = "auto",
    devices: Annotated[
        str,
        typer.Option("--devices", help="How many GPUs (or CPU processes) share each batch, or which: 0,1."),
    ] = "1",
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Batch normalisation over the batch of all devices.")
    ] = False,
    workers: Workers = 0,
    amp: Annotated[
        str, typer.Option("--amp", help="Mixed precision: auto (on a GPU), off, bf16 or fp16.")
    ] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the forward pass: a slow start, faster steps.")
    ] = False,
    freeze: Annotated[
        str, typer.Option("--freeze", help="How many of the first layers stay as they are, or which: 0,1,4.")
    ] = "0",
    image_weights: Annotated[
        bool, typer.Option("--image-weights", help="Show images of badly found classes more often.")
    ] = False,
    autobalance: Annotated[
        bool, typer.Option("--autobalance", help="Let the levels' objectness weights follow their losses.")
    ] = False,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after so many epochs without a better fitness.")
    ] = None,
    val_every: Annotated[int, typer.Option("--val-every", help="Evaluate every so many epochs.")] = 1,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Share of the val images to evaluate on.")
    ] = 1.0,
    precise_bn: PreciseBn = 8,
    ema_share: EmaShare = 0.08,
    pictures: Annotated[bool, typer.Option(help="Draw batches, predictions and curves.")] = True,
    augment: Annotated[bool, typer.Option(help="Augment the training images.")] = True,
    cache: Cache = "ram",
    rect: Rect = False,
    multi_scale: MultiScale = False,
    pipeline: Pipeline = "auto",
    difficult: Difficult = "learn",
    as_json: Json = False,
) -> None:
    """Train a detector and keep its best and last checkpoints."""
    from beagle.folders import CommandError, unused_folder
    from beagle.genes import load_hyp
    from trainer import TrainConfig
    from trainer import train as run_training
    from trainer.config import layer_numbers

    if resume and out is None:
        raise CommandError("--resume needs --out: the folder of the training to go on with")
    model = changed_model(model, activation, attention, dropblock, anchors_from)
    config = TrainConfig(
        data=data,
        model=model,
        out=out or unused_folder(Path("runs"), "train"),
        epochs=epochs,
        batch_size=batch_size if batch_size == "auto" else whole_numbers("--batch-size", batch_size)[0],
        image_size=image_size,
        hyp=load_hyp(hyp),
        optimizer=optimizer,
        schedule=schedule,
        loss=loss,
        box_loss=box_loss,
        assignment=assignment,
        nominal_batch=nominal_batch,
        seed=seed,
        device=device,
        devices=choose_devices(devices),
        sync_bn=sync_bn,
        workers=workers,
        amp=amp,
        compile=compile_,
        anchors=anchors,
        resume=resume,
        weights=weights,
        freeze=layer_numbers(counted("--freeze", freeze)),
        image_weights=image_weights,
        autobalance=autobalance,
        patience=patience,
        val_every=val_every,
        val_fraction=val_fraction,
        precise_bn=precise_bn,
        ema_share=ema_share,
        pictures=pictures,
        augment=augment,
        cache=cache,
        rect=rect,
        difficult=difficult,
        multi_scale=multi_scale,
        pipeline=pipeline,
    )
    console.err.print(f"training {model} on {data} at {image_size} px; results in {config.out}")

    def report(epoch: int, metrics: dict[str, float]) -> None:
        console.err.print(
            f"epoch {epoch + 1:>3}/{epochs}  mAP@0.5 {metrics['map50']:.3f}  mAP@0.5:0.95 {metrics['map50_95']:.3f}  "
            f"box {metrics['box_loss']:.3f}  obj {metrics['obj_loss']:.3f}  cls {metrics['cls_loss']:.3f}  "
            f"{metrics['seconds']:.0f} s"
        )

    with console.bars() as advance:
        result = run_training(config, report=report, progress=advance)
    for line in result.notes:
        console.note(line)
    if as_json:
        console.show_json(result.to_dict())
    elif result.status == "diverged":
        raise CommandError(f"the training diverged: {result.reason} (a lower lr0 helps most often)")
    else:
        metrics = result.metrics
        console.done(
            f"best epoch {(result.best_epoch or 0) + 1}: mAP@0.5 {metrics['map50']:.4f}, "
            f"mAP@0.5:0.95 {metrics['map50_95']:.4f}, fitness {result.fitness:.4f}, in {result.seconds:.0f} s"
        )
        console.out.print(str(result.best))


def choose_devices(text: str) -> int:
    """How many devices; a list of them is made the only ones that CUDA sees.

    Raises:
        CommandError: Not whole numbers.
    """
    numbers = counted("--devices", text)
    if isinstance(numbers, int):
        return numbers
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, numbers))
    return len(numbers)


def counted(option: str, text: str) -> int | list[int]:
    """A number, or a list where there is a comma.

    >>> counted("--freeze", "10"), counted("--freeze", "0,3"), counted("--freeze", "3,")
    (10, [0, 3], [3])
    """
    numbers = whole_numbers(option, text)
    return numbers if "," in text else numbers[0]


def whole_numbers(option: str, text: str) -> list[int]:
    """Numbers between commas, at least one.

    Raises:
        CommandError: Not whole numbers.
    """
    from beagle.folders import CommandError

    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise CommandError(
            f"{option} must be a whole number or several with commas between, but got {text!r}"
        )
    return [int(word) for word in words]

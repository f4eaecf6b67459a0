"""The flags that change any model and its loss, which `train` and `evolve` share; and those of suppression."""

from typing import Annotated

import typer

Activation = Annotated[
    str | None, typer.Option("--activation", help="silu, mish, relu, hardswish, leaky, or nn.LeakyReLU(0.2).")
]
Attention = Annotated[
    str | None, typer.Option("--attention", help="Before every level: sam, sam-pointwise, se or cbam.")
]
Dropblock = Annotated[
    float | None, typer.Option("--dropblock", help="Share of features dropped at the end, e.g. 0.1.")
]
AnchorsFrom = Annotated[
    str | None, typer.Option("--anchors-from", help="Start from the anchors of this model or YAML file.")
]
Loss = Annotated[
    str,
    typer.Option("--loss", help="Balance and scaling: yolov5, scaled-yolov4, or auto: the model's family's."),
]
BoxLoss = Annotated[str, typer.Option("--box-loss", help="ciou, diou, giou or iou.")]
Assign = Annotated[
    str, typer.Option("--assignment", help="Anchors of a box: ratio (under anchor_t) or iou (over iou_t).")
]

Nms = Annotated[
    str,
    typer.Option("--nms", help="How overlapping boxes are thinned out: greedy, diou, soft or soft-linear."),
]
Iou = Annotated[float, typer.Option("--iou", help="Overlap above which the lesser box goes.")]
Confidence = Annotated[float, typer.Option("--confidence", help="Least confidence of a box.")]
MaxDetections = Annotated[
    int, typer.Option("--max-detections", help="Boxes of an image, the most confident.")
]
Agnostic = Annotated[
    bool, typer.Option("--agnostic", help="Let boxes of different classes thin out each other.")
]


def changed_model(
    model: str,
    activation: str | None,
    attention: str | None,
    dropblock: float | None,
    anchors_from: str | None,
) -> str:
    """The model's name with what the flags ask for behind it, read now so that a mistake is told at once.

    Raises:
        ModelError: There is no such model, or it can't be changed so.
    """
    from beagle.folders import absolute_source
    from model.options import with_options
    from model.spec import load_spec

    lender = absolute_source(anchors_from) if anchors_from else None
    changed = with_options(
        model, activation=activation, attention=attention, dropblock=dropblock, anchors=lender
    )
    if changed != model:
        load_spec(changed)
    return changed

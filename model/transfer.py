"""From a checkpoint into a detector: what fits is taken, all at once, and a report says what was left out and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.checkpoint import Checkpoint
from model.detector import Detector
from model.spec import ModelError, ModelSpec, load_spec

BOX_ROWS = 5  # of each anchor in the head: x, y, w, h and objectness; then the classes
SHOWN = 4  # left out names of one reason that a report lists


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """What a transfer came to.

    Attributes:
        source: the checkpoint's path and kind.
        taken: our tensors that were filled, wholly or, in the head, by rows.
        fresh: our tensors that got nothing, with the reason.
        unused: tensors of the checkpoint that have no place here.
        share: of the detector's parameters that come from the checkpoint, 0 to 1.
        notes: how classes were matched, and what reading the checkpoint noted.
    """

    source: str
    taken: tuple[str, ...]
    fresh: Mapping[str, str]
    unused: tuple[str, ...]
    share: float
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the detector was filled, and nothing was left over."""
        return not self.fresh and not self.unused and self.share == 1.0

    def lines(self) -> list[str]:
        """The report, a line each."""
        count = len(self.taken) + len(self.fresh)
        lines = [
            f"started from {self.source}: {len(self.taken)} of {count} tensors taken, "
            f"{100 * self.share:.1f} % of the parameters"
        ]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.fresh.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"left as they were, {reason}: {_listed(names)}" for reason, names in reasons.items()]
        if self.unused:
            lines.append(f"not used, this model has no such tensors: {_listed(self.unused)}")
        return [*lines, *self.notes]


def transfer(
    detector: Detector, checkpoint: Checkpoint, names: Sequence[str] | None = None
) -> TransferReport:
    """Fill a detector with the tensors of a checkpoint that have its names and shapes.

    Where the head has other classes, its rows for boxes and objectness are taken, those of classes by the classes'
    names, and rows of new classes stay as they are. Anchors stay the detector's own.

    Args:
        detector: filled in place, or, on an error, not touched.
        checkpoint: of `model.weights.read_checkpoint`.
        names: the detector's class names. None: classes are taken to be in the checkpoint's order.

    Raises:
        ModelError: nothing fits.
    """
    own = {name: tensor for name, tensor in detector.state_dict().items() if "anchor" not in name}
    given = _with_eps(
        _with_norms(checkpoint.state, own, detector.spec.options.about.eps), checkpoint, detector
    )
    classes = _match_classes(detector, names, checkpoint)
    filled: dict[str, Tensor] = {}
    fresh: dict[str, str] = {}
    parameters = {name for name, _ in detector.named_parameters()}
    numbers = 0
    for name, tensor in own.items():
        theirs = given.get(name)
        if theirs is None and name.endswith("num_batches_tracked"):
            continue  # a count that nothing here reads, and that darknet and old files lack
        if theirs is None:
            fresh[name] = "the checkpoint has no such tensors"
            continue
        if name.startswith(_head_prefix(detector)):
            result = _head_rows(tensor, theirs, detector, classes)
        else:
            result = (theirs, theirs.numel()) if theirs.shape == tensor.shape else None
        if result is None:
            fresh[name] = f"of shape {_shape(theirs)} there and {_shape(tensor)} here"
            continue
        filled[name] = result[0].to(tensor.dtype)
        numbers += result[1] if name in parameters else 0
    if not filled:
        raise ModelError(f"{checkpoint.path}: none of its {len(given)} tensors fits {detector.spec.name}")
    detector.load_state_dict(filled, strict=False)
    total = sum(parameter.numel() for parameter in detector.parameters())
    return TransferReport(
        source=f"{checkpoint.path} ({checkpoint.kind})",
        taken=tuple(filled),
        fresh=fresh,
        unused=tuple(name for name in given if name not in own),
        share=numbers / total,
        notes=(*classes.notes, *checkpoint.notes, *_other_decoding(detector.spec, checkpoint.spec)),
    )


def build_from(checkpoint: Checkpoint, model: ModelSpec | None = None) -> tuple[Detector, TransferReport]:
    """Build the detector that a checkpoint holds, with its classes and anchors, in eval mode.

    Args:
        checkpoint: of `model.weights.read_checkpoint`.
        model: the model, where the checkpoint does not say it; its number of classes and its anchors don't matter
            where the checkpoint has them.

    Raises:
        ModelError: the model is not known, or the checkpoint has not all of it, or more.
    """
    spec = checkpoint.spec or model  # what a checkpoint says of its model goes before what is said of it
    if spec is None:
        said = "".join(f" ({note})" for note in checkpoint.notes)
        raise ModelError(
            f"{checkpoint.path} does not say which model it is of{said}: say it (beagle model convert --model)"
        )
    spec = load_spec(spec, anchors=checkpoint.anchors_for(spec.strides))
    with torch.device("meta"):
        classes = _count_classes(checkpoint, Detector(spec))
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, though all of them are replaced
        detector = Detector(load_spec(spec, classes=classes))
    report = transfer(detector, checkpoint)
    if not report.complete:
        raise ModelError(f"{checkpoint.path} is not a whole checkpoint of {spec.name}: {report.lines()[1]}")
    return detector.eval(), report


@dataclass(frozen=True)
class _Classes:
    """Which class of the checkpoint (second) fills which of ours (first), of how many; None: it has no such head."""

    pairs: tuple[tuple[int, int], ...]
    ours: int
    theirs: int | None
    notes: tuple[str, ...] = ()


def _other_decoding(ours: ModelSpec, theirs: ModelSpec | None) -> tuple[str, ...]:
    if theirs is None or (ours.options.scale_xy is None) == (theirs.options.scale_xy is None):
        return ()
    return (
        "the checkpoint's boxes are decoded in another way than this model's: they are to be learnt again",
    )


def _match_classes(detector: Detector, names: Sequence[str] | None, checkpoint: Checkpoint) -> _Classes:
    ours, given = detector.classes, checkpoint.names
    theirs = _count_classes(checkpoint, detector)
    if names is None or given is None or len(given) != theirs or len(names) != ours:
        return _by_order(ours, theirs)
    places = {_plain_name(name): place for place, name in reversed(list(enumerate(given)))}
    wanted = [places.get(_plain_name(name)) for name in names]
    pairs = tuple((place, other) for place, other in enumerate(wanted) if other is not None)
    if not pairs:
        return _by_order(ours, theirs)
    new = [name for name, other in zip(names, wanted, strict=True) if other is None]
    note = f"{len(pairs)} of {ours} classes found by name among the checkpoint's {theirs}"
    note += f"; {_listed(new)} start{'s' * (len(new) == 1)} afresh" if new else ""
    found = _Classes(pairs, ours, theirs, (note,))
    return _by_order(ours, theirs) if found.pairs == _by_order(ours, ours).pairs and ours == theirs else found


def _by_order(ours: int, theirs: int | None) -> _Classes:
    if theirs is None or ours == theirs:
        return _Classes(tuple((i, i) for i in range(ours if theirs else 0)), ours, theirs)
    note = f"{ours} classes here, {theirs} in the checkpoint: the rows of classes in the head start afresh"
    return _Classes((), ours, theirs, (note,))


def _count_classes(checkpoint: Checkpoint, detector: Detector) -> int | None:
    """The number of classes that a checkpoint's head has, if it has one where ours is."""
    if checkpoint.per_level not in (None, detector.head.per_level):
        return None
    biases = [
        tensor for name, tensor in checkpoint.state.items() if name == f"{_head_prefix(detector)}0.bias"
    ]
    count, rest = divmod(len(biases[0]), detector.head.per_level) if biases and biases[0].ndim else (0, 0)
    return count - BOX_ROWS if count > BOX_ROWS and not rest else None


def _plain_name(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _head_prefix(detector: Detector) -> str:
    return f"model.{len(detector.model) - 1}.m."


def _head_rows(
    ours: Tensor, theirs: Tensor, detector: Detector, classes: _Classes
) -> tuple[Tensor, int] | None:
    """Ours with the rows of theirs, and how many numbers that gave; None where anchors or channels differ.

    Both are (per level * (5 + classes), ...).
    """
    per_level = detector.head.per_level
    count, rest = divmod(len(theirs), per_level)
    count -= BOX_ROWS
    if rest or count != classes.theirs or ours.shape[1:] != theirs.shape[1:]:
        return None
    mixed = ours.detach().clone().view(per_level, BOX_ROWS + classes.ours, *ours.shape[1:])
    source = theirs.view(per_level, BOX_ROWS + count, *ours.shape[1:])
    mixed[:, :BOX_ROWS] = source[:, :BOX_ROWS].to(mixed.dtype)
    for mine, other in classes.pairs:
        mixed[:, BOX_ROWS + mine] = source[:, BOX_ROWS + other].to(mixed.dtype)
    return mixed.view(ours.shape), mixed[:, : BOX_ROWS + len(classes.pairs)].numel()


def _with_norms(state: Mapping[str, Tensor], own: Mapping[str, Tensor], eps: float) -> Mapping[str, Tensor]:
    """Give a checkpoint whose batch norms were folded into its convolutions norms that leave these as they are."""
    folded = [
        name.removesuffix("conv.bias")
        for name in state
        if name.endswith("conv.bias") and name.replace("conv.bias", "bn.bias") in own
    ]
    if not folded:
        return state
    result = dict(state)
    for part in folded:
        bias = result.pop(f"{part}conv.bias")
        result[f"{part}bn.weight"] = torch.full_like(bias, (1 + eps) ** 0.5)
        result[f"{part}bn.bias"] = bias
        result[f"{part}bn.running_mean"] = torch.zeros_like(bias)
        result[f"{part}bn.running_var"] = torch.ones_like(bias)
        result[f"{part}bn.num_batches_tracked"] = torch.tensor(0)
    return result


def _with_eps(
    state: Mapping[str, Tensor], checkpoint: Checkpoint, detector: Detector
) -> Mapping[str, Tensor]:
    """Make up for another epsilon of the norms: the same function, in training too as far as a batch is average."""
    ours, theirs = detector.spec.options.about.eps, checkpoint.eps
    if theirs is None or theirs == ours:
        return state
    result = dict(state)
    for name, variance in state.items():
        scale = name.replace("running_var", "weight")
        if name.endswith("running_var") and scale in state and name in checkpoint.state:
            result[scale] = state[scale] * ((variance + ours) / (variance + theirs)).sqrt()
    return result


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

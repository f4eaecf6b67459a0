"""Box shapes as a network sees them in a training that scales its images."""

import numpy as np

from anchors.metrics import AnchorError, Floats

_COPIES = 8  # of few boxes
_MOST = 400_000  # shapes in all, so that the fit stays quick


def jitter(
    wh: Floats,
    rng: np.random.Generator,
    *,
    scale: float = 0.0,
    multi_scale: float = 0.0,
    limit: float = np.inf,
) -> Floats:
    """Shapes under random scaling: a factor of ``1 ± scale`` (mosaic's warp) times one of ``1 ± multi_scale``.

    Each box comes several times, with the same factor for both sides, as the warp has it. What the warp makes larger
    than the image is cut to it, before the batch with all in it is resized.

    Args:
        wh: (N, 2) px.
        rng: Draws the factors.
        scale: The hyperparameter of that name, 0..0.99.
        multi_scale: Share by which the image size of a batch varies, 0..0.99.
        limit: Image size in px.

    Returns:
        (M, 2) px, M a multiple of N up to eight times it.

    Raises:
        AnchorError: A share is out of its range.
    """
    for name, value in (("scale", scale), ("multi_scale", multi_scale)):
        if not 0 <= value <= 0.99:
            raise AnchorError(f"0 <= {name} <= 0.99 must hold, but got {value}")
    if not len(wh) or not (scale or multi_scale):
        return wh
    copies = min(_COPIES, max(_MOST // len(wh), 1))
    many = np.tile(wh, (copies, 1))
    warped = np.minimum(many * rng.uniform(1 - scale, 1 + scale, size=(len(many), 1)), limit)
    seen: Floats = warped * rng.uniform(1 - multi_scale, 1 + multi_scale, size=(len(many), 1))
    return seen

"""Our own model files, one YAML per model, which a person can edit. No torch."""

import re
from importlib.resources import files

SIZES = "nsmlx"  # nano to extra large, as the families name them


def zoo_names() -> tuple[str, ...]:
    """Return the names of the models that come with Beagle, generation by generation, small to large."""
    stems = (
        file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml")
    )
    return tuple(sorted(stems, key=_order))


def zoo_text(name: str) -> str:
    """Return the YAML of the model `name`, which must be one of `zoo_names()`."""
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _order(name: str) -> tuple[str, str, str, int]:
    match = re.fullmatch(rf"(yolov5)([{SIZES}])(\d*)(.*)", name)
    return (match[1], match[4], match[3], SIZES.index(match[2])) if match else (name, "", "", 0)

"""Templates of a command's words: `{placeholder}` in an argument, never in a shell."""

import re
from collections.abc import Iterable, Mapping

from evolve.space import EvolveError, unknown_name

PLACEHOLDERS: Mapping[str, str] = {
    "hyp": "the file of hyperparameters",
    "epochs": "epochs of this trial",
    "seed": "seed of this trial",
    "device": "ids of the trial's GPUs as in CUDA_VISIBLE_DEVICES, such as 3 or 0,1; cpu where it has none",
    "device_index": "the same counted among those the command sees: 0 or 0,1; cpu where it has none",
    "cpu": "cpu where the trial has no GPU, else nothing, for a program that then takes what it sees",
    "cpus": "CPUs of this trial, a whole number from 1",
    "out": "folder that the command may fill, empty before the first attempt",
    "folder": "the trial's own folder, which holds `out`, the log and the file of hyperparameters",
    "data": "DATA of the command line, a path that exists made absolute",
    "model": "--model",
    "batch": "images per step; halved after an out-of-memory",
    "image_size": "px",
    "trial": "number of the trial",
    "checkpoint": "the last checkpoint, in the words of a resume",
    "cwd": "folder in which the evolution was started",
    "python": "the Python that runs the trial",
    "spec": "folder of the trainer's file",
}
"""Name to meaning; besides them `{gene:NAME}` is the value of one gene."""

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class TemplateError(EvolveError):
    """A template that names what there is not."""


def fields_of(template: str) -> set[str]:
    """Names of a template's placeholders, such as {"hyp", "gene:lr0"}.

    Raises:
        TemplateError: A brace without its partner, or a placeholder that there is not.
    """
    found = set()
    for match in _FIELD.finditer(template):
        if match[0] in ("{{", "}}"):
            continue
        if match[1] is None:
            raise TemplateError(
                f"a brace must have its partner ({{{{ and }}}} for plain ones), but got {template!r}"
            )
        name = match[1]
        if not name.startswith("gene:") and name not in PLACEHOLDERS:
            raise TemplateError(
                f"{unknown_name('placeholder', name, [*PLACEHOLDERS, 'gene:NAME'])} (in {template!r})"
            )
        found.add(name)
    return found


def fill(template: str, values: Mapping[str, object]) -> str:
    """A template with its placeholders filled in; numbers as Python writes them.

    >>> fill("--lr={gene:lr0} {{}}", {"gene:lr0": 0.01})
    '--lr=0.01 {}'

    Raises:
        TemplateError: A placeholder has no value here.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in values:
            raise TemplateError(f"there is no {match[0]} here, but {template!r} needs it")
        return str(values[match[1]])

    fields_of(template)
    return _FIELD.sub(value, template)


def fill_all(templates: Iterable[str], values: Mapping[str, object]) -> list[str]:
    """The words of a command, each filled in for itself: a value never becomes two words."""
    return [fill(template, values) for template in templates]

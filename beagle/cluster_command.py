"""`beagle cluster`: configurations of clusters to begin with."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.submit_command import Cpus, Gpus, Hours, Memory, Nodes, Set, read_settings

app = typer.Typer()


@app.callback()
def cluster() -> None:
    """Configurations of clusters."""


@app.command("template")
def template_command(
    kind: Annotated[str, typer.Argument(help="ray (for ray up), kuberay (kubectl apply) or slurm (sbatch).")],
    nodes: Nodes = 1,
    cpus: Cpus = None,
    gpus: Gpus = 0,
    memory: Memory = None,
    hours: Hours = None,
    settings: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; printed by default.")] = None,
) -> None:
    """Write a cluster's configuration, checked as the cluster itself will.

    For example: beagle cluster template kuberay --nodes 4 --gpus 8 --set image=registry.example/beagle:1
    """
    from beagle.folders import CommandError
    from cluster.spec import Resources
    from cluster.templates import template

    text = template(kind, Resources(nodes, cpus, gpus, memory, hours), read_settings(settings))
    if out is None:
        console.out.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        return
    if out.exists():
        raise CommandError(f"{out} exists already: choose another name with --out")
    out.write_text(text, encoding="utf-8")
    console.done(f"{out} written")

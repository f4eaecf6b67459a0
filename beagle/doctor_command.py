"""`beagle doctor`: will an evolution run here, and if not, what has to be mended."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import Json


def doctor(
    data: Annotated[str | None, typer.Argument(help="A data set to look at too.")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder that will hold the runs.")] = Path("runs"),
    address: Annotated[
        str | None, typer.Option("--ray-address", help="Ray cluster to try; by default one is started here.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes seconds: the devices and Ray.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at everything that an evolution needs here: packages, devices, memory, run folder, MLflow, Ray, data.

    Devices are tried by two real training steps, Ray by real tasks. Exit code 1 where something has to be mended.
    """
    from beagle.doctor import FAULT, WARNING, examine

    findings = []
    with console.bars() as advance:
        for number, finding in enumerate(
            examine(runs, data, address, skip=("devices", "ray") if quick else ())
        ):
            findings.append(finding)
            advance("looking", number + 1, max(number + 2, 16))
    if as_json:
        console.show_json([asdict(finding) for finding in findings])
    else:
        columns = ["", "what", "found", "what to do"]
        rows = [[each.state, each.what, each.found, each.advice] for each in findings]
        console.show_table("This machine", columns, rows)
    faults = sum(finding.state == FAULT for finding in findings)
    warnings = sum(finding.state == WARNING for finding in findings)
    if faults:
        console.fail(f"{faults} of {len(findings)} things have to be mended before an evolution can run here")
        raise typer.Exit(1)
    console.done("an evolution can run here" + (f"; {warnings} warnings" if warnings else ""))

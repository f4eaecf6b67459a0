"""`beagle verify`: is an exported folder what it says?"""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import Json


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of `beagle export`.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Where the data lies; by default where it lay at the export.")
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", help="Epochs to train; 0 checks hashes and weights alone.")
    ] = 2,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Json = False,
) -> None:
    """Check the hashes, measure the weights, and train for a few epochs from the folder alone."""
    from beagle.folders import CommandError
    from beagle.verification import Finding, VerifyError, check_hashes, other_versions, read_expectation
    from beagle.verification import verify as run_checks
    from beagle.verify_run import verify_command_export

    if epochs < 0:
        raise CommandError(f"epochs >= 0 must hold, but got {epochs}")
    facts = check_hashes(folder)
    console.note(f"{len(facts['files'])} files are as they were exported")
    for line in other_versions(facts):
        console.note(line)
    checks = verify_command_export if read_expectation(folder)["format"] == "command" else run_checks
    findings: list[Finding] = list(checks(folder, data, epochs, device))
    bad = [finding for finding in findings if not finding.holds]
    if as_json:
        rows = [vars(finding) for finding in findings]
        console.show_json({"folder": folder, "holds": not bad, "files": len(facts["files"]), "checks": rows})
    else:
        table = [[f.what, f.expected, f.found, "yes" if f.holds else "NO"] for f in findings]
        console.show_table(str(folder), ["what", "promised", "found", "holds"], table)
    if bad:
        worst = bad[0]
        raise VerifyError(
            f"{folder}: {len(bad)} of {len(findings)} checks do not hold, the first: {worst.what} must be "
            f"{console.cell_text(worst.expected)}, but is {console.cell_text(worst.found)}"
        )
    console.done(f"{folder} is what it says")

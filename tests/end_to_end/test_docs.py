"""Every block of the README and of docs/*.md is tried: commands run, or are parsed as the command would parse them.

A comment on the line above a block says how, in words that a reader of the page does not see:

    <!-- check: run 640=64 -->     runs by default, with 64 for each word 640
    <!-- check: slow 100=2 -->     runs where slow tests do; parsed by default
    <!-- check: parse -->          needs a cluster, a GPU or another program: parsed only
    <!-- check: space -->          YAML: read as a search space; `trainer`: as a trainer's file

DATA and RUN always stand for a small data set and a small run. Python blocks always run. The blocks of a page run in
their order, in one folder. A block of which this file does not know what to make fails.
"""

import configparser
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from beagle import remote_command
from beagle.cli import app, run
from beagle.genes import build_space
from beagle.submit_command import read_settings
from cluster.kubernetes_manifest import KubernetesSettings
from cluster.ray_jobs import RaySettings
from cluster.ray_up import RayUpSettings
from cluster.slurm_script import SlurmSettings
from cluster.spec import ClusterError
from evolve.command_file import load_trainer
from trainer.config import Hyperparameters

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))),
]
STAND_INS = {"DATA": "data", "RUN": "night"}
WAYS = {"sh": ("run", "slow", "parse"), "python": ("run",), "yaml": ("space", "trainer"), "text": ("",)}
SETTINGS = {"slurm": SlurmSettings, "kubernetes": KubernetesSettings, "ray": RaySettings}
TEMPLATES = {"slurm": SlurmSettings, "kuberay": KubernetesSettings, "ray": RayUpSettings}
# Programs that are not ours, and words of the shell: nothing is claimed of them but that they are called so.
OUTSIDE = {
    "cd",
    "chmod",
    "curl",
    "export",
    "kubectl",
    "mlflow",
    "openssl",
    "ray",
    "rsync",
    "source",
    "ssh",
    "tail",
    "unset",
}
SCRIPT = [sys.executable, "-P", "-c", "from beagle.cli import main; main()"]
COMMENT = re.compile(r"<!-- check: (\w+)((?: \S+=\S+)*) -->")
PATIENCE_S = 400


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and how it is tried."""

    where: str
    language: str
    text: str
    way: str
    stand_ins: Mapping[str, str]

    def commands(self) -> Iterator[list[str]]:
        """Its commands as words, without comments, joined lines and variables set in front."""
        for line in self.text.replace("\\\n", " ").splitlines():
            command: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word in ("&&", ";"):
                    if command:
                        yield command
                    command = []
                elif command or not re.fullmatch(r"[A-Z_]+=.*", word):
                    command.append(word)

    def stood_in(self, words: list[str]) -> list[str]:
        """Words with the small things in place of the large ones."""
        return [self.stand_ins.get(word, word) for word in words]


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page."""
    found: list[Block] = []
    lines = (REPOSITORY / page).read_text(encoding="utf-8").splitlines()
    begin: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        language = lines[begin][3:].strip()
        comment = COMMENT.fullmatch(lines[begin - 1].strip())
        default = "run" if language == "python" else ""
        pairs = [pair.partition("=") for pair in comment[2].split()] if comment else []
        found.append(
            Block(
                f"{page}:{begin + 1}",
                language,
                "\n".join(lines[begin + 1 : number]),
                comment[1] if comment else default,
                {**STAND_INS, **{name: value for name, _, value in pairs}},
            )
        )
        begin = None
    assert begin is None, f"{page}: a block without its end"
    return found


ALL = [block for page in PAGES for block in blocks_of(page)]
RUNNING = sorted({block.where.partition(":")[0] for block in ALL if block.way == "run"})
SLOW = sorted({block.where.partition(":")[0] for block in ALL if block.way == "slow"})


def parse(words: list[str]) -> Any:
    """What Typer makes of the words after `beagle`; it runs nothing, and raises what it would raise."""
    command, rest = typer.main.get_command(app), list(words)
    if rest[0] == "--server":
        command, rest = typer.main.get_command(remote_command.app), rest[2:]
    while (commands := getattr(command, "commands", None)) is not None:
        assert rest, f"beagle {shlex.join(words)}: a sub-command is missing"
        assert rest[0] in commands, f"beagle {shlex.join(words)}: there is no {rest[0]}"
        command = commands[rest.pop(0)]
    return command.make_context(words[0], rest)


def check_beagle(words: list[str]) -> None:
    """A command line of ours: sub-command, options, values; settings of its place, and what is submitted."""
    if words == ["--help"]:
        return
    values = parse(words).params
    if words[0] == "submit":
        check_beagle(list(values["words"]))
        if values["to"] != "local":
            SETTINGS[values["to"]].from_dict(read_settings(values["settings"]))
    if words[:2] == ["cluster", "template"]:
        given = {name: value for name, value in read_settings(values["settings"]).items() if name != "python"}
        TEMPLATES[values["kind"]].from_dict(given)


def check_options(page: str, words: list[str]) -> None:
    """Words within a sentence, which need not be a whole command: its sub-command and options must exist."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    assert command.name != "beagle", f"{page}: there is no `beagle {shlex.join(words)}`"
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    own = rest[: rest.index("--")] if "--" in rest else rest
    unknown = {word for word in own if word.startswith("--")} - known
    assert not unknown, f"{page}: `beagle {shlex.join(words)}` has no {', '.join(unknown)}"


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(targets), f"make {words}: the Makefile has {targets}"


def check_pip(words: list[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert words[0] == "install"
    for name, extra in re.findall(r"^([a-z-]+)\[(\w+)\]$", words[-1]):
        assert name == setup["metadata"]["name"]
        assert extra in setup["options.extras_require"], f"there is no extra {extra}"


def check_python(words: list[str]) -> None:
    assert words[0] == "-m"
    room, _, name = words[1].partition(".")
    assert room == "benchmarks", f"{words[1]} is no benchmark"
    source = (REPOSITORY / room / f"{name}.py").read_text()
    for flag in (word for word in words if word.startswith("--")):
        assert f'"{flag}"' in source, f"{words[1]} has no {flag}"


CHECKS: Mapping[str, Callable[[list[str]], None]] = {
    "beagle": check_beagle,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
}


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.where)
def test_each_block_says_how_it_is_tried(block: Block) -> None:
    assert block.language in WAYS, (
        f"{block.where}: a block of {block.language or 'no language'} can't be tried"
    )
    assert block.way in WAYS[block.language], (
        f"{block.where}: above a block of {block.language} stands <!-- check: WAY -->, "
        f"WAY being one of {', '.join(WAYS[block.language])}; but it is {block.way!r}"
    )


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.language == "sh"], ids=lambda block: block.where
)
def test_each_command_is_one_that_would_be_understood(block: Block) -> None:
    commands = list(block.commands())
    assert commands, f"{block.where} holds no command"
    for first, *words in commands:
        if first not in OUTSIDE:
            assert first in CHECKS, f"{block.where}: nothing is known of {first}"
            CHECKS[first](words)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("evolve DATA --trails 100", "No such option"),
        ("evolve DATA --trials many", "a valid integer"),
        ("stop", "Missing parameter"),
        ("evolved DATA", "there is no evolved"),
        ("jobs", "a sub-command is missing"),
        ("submit --to slurm -- evolve DATA --trails 100", "No such option"),
        ("submit --to slurm --set partitoin=gpu -- evolve DATA", "did you mean partition"),
        ("cluster template kuberay --set picture=x", "there is no setting"),
    ],
)
def test_a_line_that_would_be_refused_is_found(line: str, why: str) -> None:
    with pytest.raises((TyperException, ClusterError, AssertionError), match=why):
        check_beagle(shlex.split(line))


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_a_sentence_exist_with_their_options(page: str) -> None:
    text = re.sub(r"```.*?```", "", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for code in re.findall(r"`((?:beagle|make|python -m|pip) [a-z][^`]*)`", text):
        first, *words = shlex.split(code)
        if first != "beagle":
            CHECKS[first](words)
            continue
        alternatives = [word.split("|") for word in itertools.takewhile(lambda w: w[0].islower(), words)]
        for choice in itertools.product(*alternatives):
            check_options(page, [*choice, *words[len(choice) :]])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (REPOSITORY / page).parent.joinpath(target).exists(), f"{page}: there is no {target}"


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.language == "yaml"], ids=lambda block: block.where
)
def test_yaml_is_read_by_what_reads_it(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(block.text, encoding="utf-8")
    if block.way == "space":
        assert build_space((), path, Hyperparameters()).genes
    else:
        assert load_trainer(str(path)).genes


@pytest.mark.parametrize("page", RUNNING)
def test_what_is_cheap_runs(
    page: str, stand: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stand)
    for name in ("BEAGLE_CACHE", "BEAGLE_CRASHES"):
        monkeypatch.setenv(name, environment[name])
    for block in (block for block in blocks_of(page) if block.way == "run"):
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})  # noqa: S102  the page's own words
            continue
        for first, *words in block.commands():
            assert first == "beagle", f"{block.where}: {first} can't be run here"
            assert run(block.stood_in(words)) == 0, f"{block.where}: {shlex.join(words)}"


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_what_takes_its_time_runs_with_little_data(
    page: str, stand: Path, environment: dict[str, str]
) -> None:
    for block in (
        block for block in blocks_of(page) if block.way in ("run", "slow") and block.language == "sh"
    ):
        for first, *words in block.commands():
            assert first == "beagle", f"{block.where}: {first} can't be run here"
            answer = subprocess.run(
                [*SCRIPT, *block.stood_in(words)],
                cwd=stand,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert answer.returncode == 0, f"{block.where}: {shlex.join(words)}\n{answer.stderr}"

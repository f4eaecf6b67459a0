"""What a trial leaves in its process, in processes of their own."""

import json
import subprocess
import sys
import textwrap

import pytest

from evolve.worker_state import GROWTH_BYTES, SPARE_FILES, Footprint

FIRST = Footprint(memory=300 << 20, threads=3, files=20)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (FIRST, None),
        (Footprint(400 << 20, 2, 20 + SPARE_FILES), None),
        (Footprint(300 << 20, 4, 20), "1 threads were left running"),
        (Footprint(300 << 20, 3, 21 + SPARE_FILES), f"{1 + SPARE_FILES} files were left open"),
        (Footprint((450 << 20) + GROWTH_BYTES + 1, 3, 20), "its memory grew from 300 to 962 MiB"),
    ],
)
def test_a_process_that_grew_since_its_first_trial_is_given_up(now: Footprint, reason: str | None) -> None:
    assert now.too_large(FIRST) == reason


def in_a_process(code: str) -> dict[str, object]:
    """Run code with `before` taken and `clean_up` at hand; it prints JSON."""
    head = "import json\nfrom evolve.worker_state import ProcessState, clean_up\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_randomness_environment_folder_logging_and_warnings_are_put_back() -> None:
    found = in_a_process("""
        import logging, os, random, warnings
        import numpy as np
        before = ProcessState.taken()
        expected = [random.random(), float(np.random.random()), os.getcwd(), dict(os.environ), len(warnings.filters)]
        random.setstate(before.randomness); np.random.set_state(before.numpy_randomness)
        random.seed(1); np.random.seed(1); os.chdir("/")
        os.environ["NEW"] = "1"; os.environ["PATH"] = "changed"
        logging.getLogger().addHandler(logging.NullHandler()); logging.getLogger().setLevel(1)
        warnings.simplefilter("ignore")
        reason = clean_up(before)
        now = [random.random(), float(np.random.random()), os.getcwd(), dict(os.environ), len(warnings.filters)]
        root = logging.getLogger()
        print(json.dumps([reason, now == expected, len(root.handlers), root.level == before.log_level]))
    """)
    assert found == [None, True, 0, True]


def test_processes_that_a_trial_left_are_ended_and_threads_give_the_worker_up() -> None:
    found = in_a_process("""
        import subprocess, sys, threading, time
        sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); "
        sleep += "time.sleep(600)"
        before = ProcessState.taken()
        clean = clean_up(before)
        child = subprocess.Popen([sys.executable, "-c", sleep], stdout=subprocess.PIPE)
        child.stdout.readline()
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        reason = clean_up(before, lambda: None)
        print(json.dumps([clean, reason, child.wait(10)]))
    """)
    assert found == [None, "1 threads were left running", -9]


def test_what_the_objective_s_frameworks_say_gives_the_worker_up() -> None:
    found = in_a_process("""
        print(json.dumps(clean_up(ProcessState.taken(), lambda: "a GPU's memory was not given back")))
    """)
    assert found == "a GPU's memory was not given back"

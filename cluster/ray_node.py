"""One machine of a Ray cluster inside an allocation: started, and waited for.

Run as `python -m cluster.ray_node start OPTIONS…` (which becomes `ray start --block`), `… wait ADDRESS NODES` and
`… port`.
"""

import os
import socket
import sys
import time

import ray

WAIT_S = 300.0
LOOK_AGAIN_S = 0.5


def start(options: list[str]) -> None:
    """Become `ray start`, in the foreground, with the dashboard and usage statistics off."""
    always = ["--block", "--disable-usage-stats"]
    if "--head" in options:
        always.append("--include-dashboard=false")
    os.execv(  # noqa: S606 (no shell is what is wanted)
        sys.executable, [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", *always, *options]
    )


def wait(address: str, nodes: int, patience_s: float = WAIT_S) -> bool:
    """Wait until the cluster at `address` has `nodes` machines; whether it has them before `patience_s` are over."""
    end = time.monotonic() + patience_s
    while True:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            break
        except (ConnectionError, RuntimeError, TimeoutError):
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_AGAIN_S)
    try:
        while sum(bool(node["Alive"]) for node in ray.nodes()) < nodes:
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_AGAIN_S)
    finally:
        ray.shutdown()
    return True


def free_port() -> int:
    """A port that nobody listens at on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(words: list[str]) -> int:
    """What the module does when it is run; its exit code."""
    if words[0] == "start":
        start(words[1:])
    if words[0] == "port":
        sys.stdout.write(f"{free_port()}\n")
        return 0
    address, nodes = words[1], int(words[2])
    if wait(address, nodes):
        return 0
    sys.stderr.write(f"the Ray cluster at {address} has not got its {nodes} machines in {WAIT_S:g} s\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

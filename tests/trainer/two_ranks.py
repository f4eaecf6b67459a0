"""Ten steps in float64, alone or as one of two processes: `python two_ranks.py DATA OUT RANK WORLD MEETING`.

In float32 the rounding of a sum in another order is amplified a thousandfold by sixty batch normalisations over few
pixels; in float64 what is left is what the two ways to train really differ by.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from dataset import load
from model.spec import load_spec
from trainer import Hyperparameters, TrainConfig
from trainer.ema import MovingAverage
from trainer.epoch import train_one_epoch
from trainer.parallel import end_process
from trainer.run_folder import RunFolder
from trainer.session import Job, start
from trainer.team import Team


class Doubled:
    """A loader's batches with images as float64."""

    def __init__(self, loader) -> None:
        self.loader = loader
        self.set_epoch = loader.set_epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            yield batch | {"images": batch["images"].double() / 255}


def main(data: str, out: str, rank: int, world: int, meeting: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", Path(meeting).as_uri(), rank=rank, world_size=world)
    config = TrainConfig(
        data=data,
        model="yolov5n",
        out=Path(out),
        epochs=5,
        batch_size=8,
        image_size=64,
        hyp=Hyperparameters(lr0=0.002, warmup_bias_lr=0.01),
        optimizer="sgd",
        anchors="keep",
        device="cpu",
        devices=world,
        sync_bn=True,
        autobalance=True,
    )
    dataset = load(data)
    team = Team(rank, world)
    job = Job(config=config, dataset=dataset, base=load_spec("yolov5n", classes=3), team=team)
    session = start(job, RunFolder(config.out), None)
    session.detector.double()
    session.ema = MovingAverage(session.detector)
    session.forward = team.wrap(session.detector)
    session.train_loader = Doubled(session.train_loader)
    losses = [train_one_epoch(session, epoch) for epoch in range(5)]
    state = {"losses": losses, "weights": session.detector.state_dict(), "ema": session.ema.state_dict()}
    torch.save(state | {"loss": session.loss.state_dict()}, Path(out) / f"{rank}-of-{world}.pt")
    if world > 1:
        dist.destroy_process_group()
    end_process()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])

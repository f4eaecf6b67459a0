"""Plans: which images, when, and at which size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.plan import Plan


def plan(images=10, batch=4, sizes=((640, 640),), seed=1, **changes):
    return Plan(np.arange(images), list(sizes), batch, seed, False, **changes)


def indices(batches):
    return [[draw.index for draw in batch] for batch in batches]


class TestSizes:
    def test_each_batch_has_a_size_of_its_own_from_half_to_one_and_a_half(self):
        drawn = []
        for epoch in range(60):
            for batch in plan(multi_scale=32, epoch=epoch):
                assert len({(draw.size, draw.zoom) for draw in batch}) == 1
                height, width = batch[0].size
                assert height == width
                assert batch[0].zoom == height / 640
                drawn.append(height)
        assert set(drawn) == set(range(320, 961, 32))
        assert np.mean(drawn) == pytest.approx(640, abs=60)

    def test_sizes_follow_from_seed_epoch_and_batch(self):
        one, same = (list(plan(multi_scale=32, epoch=3)) for _ in range(2))
        assert one == same
        others = [list(plan(multi_scale=32, epoch=4)), list(plan(multi_scale=32, epoch=3, seed=2))]
        assert all([b[0].size for b in one] != [b[0].size for b in other] for other in others)

    @given(st.integers(1, 10), st.integers(1, 10), st.sampled_from([32, 64]), st.integers(0, 99))
    def test_rectangles_keep_their_shape_and_stay_multiples_of_the_grid(self, rows, columns, grid, epoch):
        shape = rows * grid, columns * grid
        for batch in plan(sizes=[shape, shape], multi_scale=grid, epoch=epoch):
            (height, width), zoom = batch[0].size, batch[0].zoom
            assert height % grid == width % grid == 0
            assert 0.5 - 1 / max(rows, columns) <= zoom <= 1.5 + 1 / max(rows, columns)
            assert 0 <= height - shape[0] * zoom < grid + 0.5
            assert 0 <= width - shape[1] * zoom < grid + 0.5

    def test_without_multi_scale_sizes_are_those_given(self):
        assert {(draw.size, draw.zoom) for batch in plan() for draw in batch} == {((640, 640), 1.0)}


class TestShares:
    @pytest.mark.parametrize("world", [1, 2, 3])
    def test_the_shares_of_all_ranks_are_the_batch(self, world):
        whole = indices(plan())
        shares = [indices(plan(rank=rank, world=world)) for rank in range(world)]
        for number, batch in enumerate(whole):
            parts = [share[number] for share in shares]
            assert all(parts), "no rank may wait for one that has nothing to do"
            assert sorted({index for part in parts for index in part}) == sorted(batch)

    def test_chances_decide_which_images_come(self):
        chances = np.zeros(10)
        chances[[2, 7]] = 0.5
        drawn = {index for batch in indices(plan(chances=chances)) for index in batch}
        assert drawn == {2, 7}
        assert indices(plan(chances=chances, epoch=1)) != indices(plan(chances=chances, epoch=2))

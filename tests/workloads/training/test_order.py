import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from baseai.workloads.training.order import samples_of, share_of


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_each_epoch_holds_every_sample_once(samples: int, batch: int, seed: int) -> None:
    steps = -(-3 * samples // batch)
    seen = np.concatenate([samples_of(seed=seed, step=s, batch=batch, samples=samples) for s in range(steps)])
    for epoch in range(3):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
def test_any_number_of_workers_shares_the_same_step(world: int, batch: int, step: int) -> None:
    whole = samples_of(seed=1, step=step, batch=batch, samples=1000)
    shares = [share_of(whole, rank=rank, world=world) for rank in range(world)]
    assert sorted(np.concatenate(shares)) == sorted(whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_epochs_and_seeds_differ() -> None:
    first, second = (samples_of(seed=1, step=step, batch=100, samples=100) for step in (0, 1))
    other = samples_of(seed=2, step=0, batch=100, samples=100)
    assert list(first) != list(second)
    assert list(first) != list(other)

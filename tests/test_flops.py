"""FLOPs of a step, by hand: matrix products, expected dropout, active exits, recomputation."""

import pytest
from conftest import compose_config, tiny_model

from models.flops import block_flops, flops_per_token, head_flops, plain_flops
from train.cost.flops import mean_flops, step_flops

MODEL = tiny_model()  # dim 32, 4 layers, 4 heads of 8, 2 of keys, ffn 48, vocabulary 96


def test_one_block_and_the_head_by_hand() -> None:
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32  # q, k and v, o
    feed_forward = 3 * 32 * 48
    scores = 2 * 32 * 10 / 2  # q.k and p.v over half of 10 tokens on average
    assert block_flops(MODEL, 10) == 2 * (attention + feed_forward + scores)
    assert head_flops(MODEL) == 2 * 32 * 96


def test_exits_dropout_and_recomputation() -> None:
    block, head = block_flops(MODEL, 10), head_flops(MODEL)
    assert plain_flops(MODEL, 10) == 3 * (4 * block + head)
    assert plain_flops(MODEL, 10, recompute=True) == 4 * 4 * block + 3 * head
    assert flops_per_token(MODEL, 10, [1.0, 0.9, 0.8, 0.5], (1, 3)) == pytest.approx(3 * (3.2 * block + 2 * head))
    # Blocks above the highest active exit are not run.
    assert flops_per_token(MODEL, 10, [1.0] * 4, (1,)) == 3 * (2 * block + head)


def test_a_run_in_expectation() -> None:
    config = compose_config("early_exit=rotational", "early_exit.rotation_period=3", "layer_dropout=exp")
    n = config.model.n_layers
    block, head = block_flops(config.model, config.train.seq_len), head_flops(config.model)
    blocks = sum(1 - 0.1 * (2 ** (i / (n - 1)) - 1) for i in range(n)) * block
    # R = 3 of 6 layers: layers l with (l - t) mod 3 = 0 and a weight, and the last: 3 and 5, 1 and 4 and 5, 2 and 5.
    assert step_flops(config, 0) == pytest.approx(3 * (blocks + 2 * head))
    assert step_flops(config, 1) == pytest.approx(3 * (blocks + 3 * head))
    assert mean_flops(config, range(3)) == pytest.approx(3 * (blocks + 7 / 3 * head))

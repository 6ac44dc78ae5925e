"""Compiled training steps against the modules, whose gradients are those of PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.flows import level_autograd
from glow_bt.flows.level import GlowLevel

# In eval mode a level goes through its modules.
CLOSE = 1e-10


def make_level(width, contexts=0, coupling="affine", hidden=8, dtype=torch.float64, **settings):
    """Return a level in training with weights of ordinary size, as after some steps."""
    torch.manual_seed(width + 100 * contexts)
    level = GlowLevel(width, 2, hidden, contexts, coupling=coupling, **settings).to(dtype).train()
    with torch.no_grad():
        level(*draw(64, width, contexts, dtype))
        for parameter in level.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return level


def draw(count, width, contexts, dtype=torch.float64):
    x = 2 * torch.randn(count, width, dtype=dtype)
    return x, torch.randn(count, contexts, dtype=dtype) if contexts else None


def outcome(level, x, context, *, compiled):
    """Return latents, log_det, and the gradients of some loss in everything."""
    level.train(compiled)
    given = [block.clone().requires_grad_() for block in (x, context) if block is not None]
    z, log_det = level(*given)
    # Every element counts, each by another weight.
    weights = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
    loss = (weights * z.sin()).sum() + (log_det * log_det.cos()).sum()
    parameters = [p for p in level.parameters() if p.requires_grad]
    return [z, log_det, *torch.autograd.grad(loss, [*given, *parameters])]


def assert_same(level, x, context):
    names = [
        *("z", "log_det", "x"),
        *(["context"] if context is not None else []),
        *(name for name, p in level.named_parameters() if p.requires_grad),
    ]
    pair = (outcome(level, x, context, compiled=compiled) for compiled in (True, False))
    for name, found, expected in zip(names, *pair, strict=True):
        scale = 1 + expected.abs().max() if len(x) else 1
        error = (found - expected).abs() / scale
        assert found.shape == expected.shape
        assert (error < CLOSE).all(), (name, error.max())


@pytest.fixture
def steps_taken(monkeypatch):
    """The numbers of rows that went through compiled steps."""
    taken = []

    def take(x, *others):
        taken.append(len(x))
        return level_autograd.take_steps(x, *others)

    monkeypatch.setattr("glow_bt.flows.level.take_steps", take)
    return taken


@pytest.mark.parametrize("coupling", ["affine", "additive"])
@pytest.mark.parametrize("contexts", [0, 3])
@pytest.mark.parametrize("width", range(1, 34))
def test_gradients_are_those_of_the_modules(width, contexts, coupling):
    level = make_level(width, contexts, coupling)
    assert_same(level, *draw(21, width, contexts))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 63, 64, 65, 255, 256, 1000])
def test_any_number_of_rows_is_taken(count, steps_taken):
    level = make_level(6, 2, hidden=33)
    steps_taken.clear()
    assert_same(level, *draw(count, 6, 2))
    assert steps_taken == [count]


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(2, 20),
    contexts=st.integers(0, 9),
    hidden=st.integers(1, 70),
    count=st.integers(1, 140),
    coupling=st.sampled_from(["affine", "additive"]),
    permutation=st.sampled_from(["conv1x1", "reverse"]),
)
def test_any_sizes_are_taken(width, contexts, hidden, count, coupling, permutation):
    level = make_level(width, contexts, coupling, hidden, permutation=permutation)
    assert_same(level, *draw(count, width, contexts))


@pytest.mark.parametrize("hidden", [32, 128])
def test_float32_differs_by_rounding(hidden):
    level = make_level(16, 4, hidden=hidden, dtype=torch.float32)
    with torch.no_grad():
        # Hidden units far from their kinks, where rounding would turn one on or off.
        for layer in list(level.nets.net)[:2]:
            layer.weight *= 0.1
            layer.bias.copy_(2 * layer.bias.sign())
    rows = draw(300, 16, 4, torch.float32)
    found, expected = (outcome(level, *rows, compiled=compiled) for compiled in (True, False))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_far_rows_have_the_gradients_of_the_modules():
    level = make_level(4, 2)
    x, context = draw(8, 4, 2)
    assert_same(level, x * 1e4, context)


def test_a_batch_has_the_same_gradients_again():
    level = make_level(8, hidden=16)
    x, _ = draw(500, 8, 0)
    once, again = (outcome(level, x, None, compiled=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_makes_its_own_result_so(value):
    level = make_level(4)
    x, _ = draw(300, 4, 0)
    x[130, 1] = value
    z, log_det = level.train()(x)
    finite = torch.isfinite(z).all(dim=1) & torch.isfinite(log_det)
    assert finite.tolist() == [row != 130 for row in range(300)]
    (z.sum() + log_det.sum()).backward()
    assert not torch.isfinite(level.norm.bias.grad).all()


def test_frozen_parameters_and_contexts_get_no_gradient():
    level = make_level(4, 2)
    frozen = level.nets.net[1].weight.requires_grad_(False)
    x, context = draw(9, 4, 2)
    z, log_det = level.train()(x, context)
    (z.sum() + log_det.sum()).backward()
    assert frozen.grad is None
    assert context.grad is None
    assert level.nets.net[2].weight.grad.abs().sum() > 0


def test_rows_in_any_memory_order_are_taken():
    level = make_level(5)
    x = torch.randn(5, 12, dtype=torch.float64).T
    assert_same(level, x, None)


def test_gradients_accumulate():
    level = make_level(6)
    x, _ = draw(10, 6, 0)
    for _ in range(2):
        level.train()(x)[0].sum().backward()
    twice = level.nets.net[1].weight.grad.clone()
    level.zero_grad()
    level(x)[0].sum().backward()
    torch.testing.assert_close(twice, 2 * level.nets.net[1].weight.grad)


@pytest.mark.parametrize(
    ("case", "settings"),
    [("spline", {"coupling": "spline"}), ("constant", {"width": 1}), ("bfloat16", {})],
)
def test_the_modules_serve_the_rest(case, settings, steps_taken):
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float64
    level = make_level(**{"width": 4, **settings})
    steps_taken.clear()
    level.to(dtype)(draw(5, level.num_features, 0, dtype)[0])
    assert steps_taken == []


def test_nothing_is_compiled_without_gradients_or_in_eval(steps_taken):
    level = make_level(4)
    steps_taken.clear()
    x, _ = draw(5, 4, 0)
    level.eval()(x)
    with torch.no_grad():
        level.train()(x)
    assert steps_taken == []


def test_transforms_see_the_modules(steps_taken):
    level = make_level(4)
    steps_taken.clear()
    x, _ = draw(5, 4, 0)
    per_row = torch.func.vmap(torch.func.jacrev(lambda row: level(row[None])[0][0]))(x)
    assert steps_taken == []
    whole = torch.autograd.functional.jacobian(lambda rows: level(rows)[0], x)
    assert steps_taken == [5]
    torch.testing.assert_close(per_row, torch.stack([whole[n, :, n] for n in range(5)]))

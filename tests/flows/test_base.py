import jaxtyping
import pytest
import torch
from torch import nn

from glow_bt.errors import FlowError
from glow_bt.flows import (
    Glow,
    GlowLevel,
    NormalPrior,
    TailLayer,
)
from glow_bt.flows.base import check_sizes


def flow_of(num_features=3, context_features=0):
    """Return a small flow whose ActNorms have seen a batch."""
    flow = Glow(num_features, 2, 1, 8, context_features)
    context = torch.randn(64, context_features) if context_features else None
    flow.log_prob(torch.randn(64, num_features), context)
    return flow.eval()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0,), "num_features of at least 1, found 0"),
        ((-2,), "num_features of at least 1, found -2"),
        ((2, -1), "context_features of at least 0, found -1"),
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes, message):
    with pytest.raises(FlowError, match=message):
        TailLayer(*sizes)


@pytest.mark.parametrize("size", [0, -1, 1.5, "8", None])
def test_a_size_that_is_no_whole_number_of_at_least_1_is_named(size):
    check_sizes(depth=1, width=8)
    with pytest.raises(FlowError, match=f"width of at least 1, found {size!r}; give a whole"):
        check_sizes(depth=1, width=size)


def test_the_density_is_that_of_the_latents_times_the_change_of_volume():
    flow = flow_of()
    x = torch.randn(5, 3)
    z, log_det = flow(x)
    torch.testing.assert_close(flow.log_prob(x), NormalPrior(3).log_prob(z) + log_det)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 4), (5, 3, 1)])
def test_rows_of_the_wrong_shape_are_refused(shape):
    flow = flow_of()
    with pytest.raises(FlowError, match=rf"rows of shape \(N, 3\), found \({shape[0]},"):
        flow.check_rows(torch.zeros(shape), None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_named(bad):
    x = torch.zeros(9, 3)
    x[4, 1] = bad
    x[7, 0] = bad
    with pytest.raises(
        FlowError, match=rf"found 2 that are not, first row 4: \[0.0, {bad}, 0.0\]"
    ):
        flow_of().log_prob(x)


def test_opposite_infinities_are_found_too():
    x = torch.zeros(9, 3)
    x[2, 1], x[2, 2] = float("inf"), float("-inf")
    with pytest.raises(FlowError, match="first row 2"):
        flow_of().log_prob(x)


def test_finite_rows_whose_sum_is_not_are_taken():
    flow_of().check_rows(torch.full((9, 3), 3e38), None)


def test_rows_of_another_type_are_refused():
    flow = flow_of()
    with pytest.raises(FlowError, match=r"flow's torch.float32, found torch.float64; convert"):
        flow.log_prob(torch.zeros(5, 3, dtype=torch.float64))
    assert flow.double().log_prob(torch.zeros(5, 3, dtype=torch.float64)).dtype == torch.float64


def test_a_context_has_to_be_there_and_fit():
    flow, x = flow_of(context_features=2), torch.zeros(5, 3)
    with pytest.raises(FlowError, match=r"context of shape \(N, 2\), found none"):
        flow.log_prob(x)
    with pytest.raises(FlowError, match=r"contexts of shape \(N, 2\), found \(5, 1\)"):
        flow.log_prob(x, torch.zeros(5, 1))
    with pytest.raises(FlowError, match="one context a row, found 4 contexts for 5 rows"):
        flow.check_rows(x, torch.zeros(4, 2))
    bad = torch.zeros(5, 2)
    bad[3, 0] = float("nan")
    with pytest.raises(FlowError, match="finite contexts, found 1 that are not, first row 3"):
        flow.log_prob(x, bad)


def test_a_context_that_nobody_reads_is_refused():
    with pytest.raises(FlowError, match="no context for a flow of context_features=0, found one"):
        flow_of().log_prob(torch.zeros(5, 3), torch.zeros(5, 2))


def test_one_context_serves_all_samples():
    flow = flow_of(context_features=2)
    context = torch.randn(1, 2)

    def draw(contexts):
        return flow.sample(6, contexts, generator=torch.Generator().manual_seed(0))

    assert torch.equal(draw(context), draw(context.expand(6, -1).contiguous()))
    with pytest.raises(FlowError, match="found 4 contexts for 6 rows"):
        draw(torch.zeros(4, 2))


@pytest.mark.parametrize("n", [0, -1])
def test_a_number_of_samples_below_1_is_refused(n):
    with pytest.raises(FlowError, match=f"at least 1 row, found n={n}"):
        flow_of().sample(n)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_cannot_work_is_refused(temperature):
    with pytest.raises(FlowError, match="temperature above 0, found"):
        flow_of().sample(3, temperature=temperature)


def test_an_untrained_flow_draws_no_samples():
    with pytest.raises(FlowError, match="has seen a training batch"):
        Glow(3, 2, 1, 8).sample(3)


def test_samples_carry_no_gradients():
    assert not flow_of().sample(3).requires_grad


class MatrixPrior(nn.Module):
    """Breaks the contract: one column a row where one number is due."""

    dtype = torch.float32

    def log_prob(self, z):
        return z.sum(dim=1, keepdim=True)


def test_shape_hints_are_executed():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'x'"):
        TailLayer(3)(torch.zeros(3))
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'context'"):
        GlowLevel(3, 1, 8, context_features=2)(torch.zeros(4, 3), torch.zeros(5, 2))
    flow = flow_of()
    flow.prior = MatrixPrior()
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        flow.log_prob(torch.zeros(5, 3))


def test_a_density_is_never_nan_without_a_word():
    flow = Glow(3, 1, 2, 8, tails=False).double()
    flow.log_prob(torch.randn(64, 3, dtype=torch.float64))
    rows = torch.zeros(4, 3, dtype=torch.float64)
    rows[2] = torch.tensor([1.7e308, -1.7e308, 1.7e308], dtype=torch.float64)
    with torch.no_grad():
        flow.levels[0].mixing.upper += torch.ones(3, 3).triu(1)
    with pytest.raises(FlowError, match=r"found NaN for 1, first row 2: .* beyond what torch.flo"):
        flow.eval().log_prob(rows)
    assert flow.objective(rows).isnan().tolist() == [False, False, True, False]

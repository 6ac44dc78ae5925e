import backtrader as bt
import numpy as np
import pytest

from glow_bt.bt import BybitPerpetual, GlowIndicator, GlowVaRSizer
from glow_bt.errors import ConfigError
from tests.bt.market import WindowScorer, cerebro_over, random_bars, run_strategy, scores_of

CASH = 10_000.0
BARS = random_bars(80)
SCORES = scores_of(BARS)


class ConstantScorer(WindowScorer):
    """In distribution or not, a VaR and a CVaR, the same at every bar."""

    def __init__(self, inside, var, cvar=None):
        super().__init__(2)
        self.row = [0.0, 0.5, inside, 0.5, 0.0, var, var if cvar is None else cvar]

    def score_arrays(self, stamps_ns, bars):
        scores = np.full((len(bars), 7), np.nan)
        scores[1:] = self.row
        return scores


class Sided(bt.Strategy):
    """Plain orders, +1 buy and -1 sell, at given bars; writes down sizes and refusals."""

    params = (("plan", {}), ("model", None))

    def __init__(self):
        self.glow = GlowIndicator(self.data, model=self.p.model)
        self.ordered, self.equity, self.refused = {}, {}, []

    def notify_order(self, order):
        if order.status in (order.Margin, order.Rejected):
            self.refused.append(order.ref)

    def prenext(self):
        self.next()

    def next(self):
        bar = len(self) - 1
        side = self.p.plan.get(bar)
        if side:
            order = self.buy() if side > 0 else self.sell()
            self.ordered[bar] = order.created.size if order else None
            self.equity[bar] = self.broker.getvalue()


def run_sized(plan, *, model=None, bars=BARS, commission=None, **sizer):
    cerebro = cerebro_over(bars)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(commission or BybitPerpetual())
    cerebro.addsizer(GlowVaRSizer, **sizer)
    return run_strategy(cerebro, Sided, plan=plan, model=model or WindowScorer())


def inside_bars():
    return [i for i in range(len(BARS)) if SCORES[i, 2] == 1.0]


@pytest.mark.parametrize("side", [1, -1])
def test_size_is_equity_times_the_var_limit_over_the_price(side):
    bar = inside_bars()[5]
    strategy = run_sized({bar: side}, risk_budget=0.005)
    limit = min(0.005 / abs(SCORES[bar, 5]), 0.99)
    assert limit < 0.9
    expected = side * CASH * limit / BARS["close"].iloc[bar]
    assert strategy.ordered[bar] == pytest.approx(expected, rel=1e-12)
    assert strategy.position.size == strategy.ordered[bar]


def test_no_order_in_the_warm_up_or_outside_the_filter():
    outside = [i for i in range(7, len(BARS) - 1) if SCORES[i, 2] == 0.0]
    strategy = run_sized(dict.fromkeys([0, 3, 5, *outside], 1))
    assert len(outside) > 3
    assert set(strategy.ordered.values()) == {None}


def test_no_order_without_a_var():
    strategy = run_sized({10: 1}, model=ConstantScorer(1.0, np.nan))
    assert strategy.ordered == {10: None}


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("budgets", "limit"),
    [
        ({"es_budget": None}, 0.4),  # 0.02 / (0.04 + 0.01)
        ({"es_budget": 0.03}, 0.375),  # 0.03 / 0.08
        ({"es_budget": 0.08}, 0.4),
        ({"error_margin": 6.0}, 0.2),  # 0.02 / (0.04 + 6 x 0.01)
        ({"error_margin": 0.0}, 0.5),
        ({"error_margin": 0.0, "es_budget": 0.01, "risk_budget": 9.0}, 0.125),
    ],
)
def test_shortfall_and_estimation_error_limit_the_size(monkeypatch, side, budgets, limit):
    monkeypatch.setattr(GlowIndicator, "var_error", lambda self: 0.01, raising=False)
    model = ConstantScorer(1.0, -0.04, -0.08)
    ordered = run_sized({5: side}, model=model, **{"risk_budget": 0.02} | budgets).ordered[5]
    assert ordered == pytest.approx(side * CASH * limit / BARS["close"].iloc[5], rel=1e-12)


def test_an_es_budget_without_a_shortfall_or_an_error_that_is_not_known_is_no_order(monkeypatch):
    model = ConstantScorer(1.0, -0.04, np.nan)
    assert run_sized({5: 1}, model=model, es_budget=0.03).ordered == {5: None}
    assert run_sized({5: 1}, model=model).ordered[5] > 0.0
    monkeypatch.setattr(GlowIndicator, "var_error", lambda self: np.nan, raising=False)
    assert run_sized({5: 1}, model=model).ordered == {5: None}


def test_the_error_is_asked_for_only_where_it_counts(monkeypatch):
    asked = []
    monkeypatch.setattr(
        GlowIndicator, "var_error", lambda self: asked.append(len(self)) or 0.01, raising=False
    )
    run_sized({2: 1, 20: 1})
    assert asked == [21]  # not in the warm-up
    run_sized({20: 1}, error_margin=0.0)
    assert asked == [21]


def test_repeated_orders_do_not_pile_up():
    calm = random_bars(30, volatility=1e-5)
    strategy = run_sized({5: 1, 6: 1, 7: 1}, model=ConstantScorer(1.0, -0.04), bars=calm)
    first, second, third = strategy.ordered.values()
    assert first == pytest.approx(CASH * 0.25 / calm["close"].iloc[5])
    assert abs(second or 0.0) < 1e-3 * first
    assert abs(third or 0.0) < 1e-3 * first


def test_an_order_against_the_position_has_its_full_size():
    model = ConstantScorer(1.0, -0.04)
    strategy = run_sized({5: 1, 6: -1}, model=model)
    limit = 0.25 * strategy.equity[6] / BARS["close"].iloc[6]
    assert strategy.ordered[6] == pytest.approx(-limit, rel=1e-12)


@pytest.mark.parametrize("leverage", [1.0, 4.0])
@pytest.mark.parametrize("side", [1, -1])
def test_an_order_at_full_leverage_is_not_refused(side, leverage):
    strategy = run_sized(
        {20: side},
        model=ConstantScorer(1.0, -1e-9),
        commission=BybitPerpetual(leverage=leverage),
        leverage_cap=leverage,
    )
    assert strategy.refused == []
    value = abs(strategy.position.size) * BARS["close"].iloc[20]
    assert value == pytest.approx(0.99 * leverage * CASH)


def test_sizes_are_fractions_and_in_steps_if_asked():
    dear = random_bars(30)
    dear[["open", "high", "low", "close"]] *= 600.0
    model = ConstantScorer(1.0, -0.04)
    free = run_sized({5: 1}, model=model, bars=dear).ordered[5]
    stepped = run_sized({5: 1}, model=model, bars=dear, qty_step=0.01).ordered[5]
    assert 0.0 < stepped < free < 0.1
    assert stepped == pytest.approx(round(stepped, 2), abs=1e-12)
    assert free - stepped < 0.01


def test_data_without_an_indicator_is_refused():
    class Bare(bt.Strategy):
        def next(self):
            self.buy()

    cerebro = cerebro_over(BARS)
    cerebro.addsizer(GlowVaRSizer)
    with pytest.raises(ConfigError, match="expected a GlowIndicator on data"):
        run_strategy(cerebro, Bare)


@pytest.mark.parametrize(
    "setting",
    [
        {"risk_budget": 0.0},
        {"leverage_cap": -1.0},
        {"es_budget": -0.1},
        {"error_margin": -1.0},
        {"budget": 1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ConfigError):
        run_sized({}, **setting)

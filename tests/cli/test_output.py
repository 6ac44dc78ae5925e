"""What a study prints: intervals beside what they are of, and what the tests leave of it."""

from glow_bt.cli.output import print_study
from tests.evaluation.runs import NAMES, made_up_run, without_statistics

METRICS, _ = made_up_run(num_trials=3)


def lines_of(metrics, capsys):
    print_study(metrics)
    return capsys.readouterr().out.splitlines()


def test_intervals_stand_below_sharpe_and_drawdown(capsys):
    lines = lines_of(METRICS, capsys)
    assert "net of costs; 95% intervals" in lines[0]
    assert max(map(len, lines)) <= 120
    at = next(i for i, line in enumerate(lines) if line.startswith("GLOW"))
    ends = METRICS["statistics"]["intervals"]["glow"]
    sharpe, drawdown = ends["sharpe"], ends["max_drawdown"]
    assert lines[at + 1].split() == [
        *f"{sharpe['low']:.2f} to {sharpe['high']:.2f}".split(),
        *f"{drawdown['low']:.0%} to {drawdown['high']:.0%}".split(),
    ]
    assert f"{METRICS['strategies']['glow']['sharpe']:.2f}" in lines[at]
    assert f"{sum(METRICS['strategies']['glow']['costs'].values()):,.0f}" in lines[at]


def test_trials_and_the_difference_from_buy_and_hold_are_said(capsys):
    said = " ".join(lines_of(METRICS, capsys))
    assert "trials counted: 3." in said
    difference = METRICS["statistics"]["sharpe_difference"]["buy_and_hold"]["difference"]
    assert f"Sharpe minus that of buy and hold: {difference:+.2f}, p " in said


def test_who_never_traded_is_named(capsys):
    metrics, _ = made_up_run(idle=True)
    said = " ".join(lines_of(metrics, capsys))
    assert "No order was placed by GLOW: what was wanted" in said
    assert "Deflated" not in said


def test_runs_of_an_earlier_version_are_printed_without_intervals(capsys):
    lines = lines_of(without_statistics(METRICS), capsys)
    assert "interval" not in lines[0]
    assert sum(" to " in line for line in lines) == 1  # the span
    assert len([line for line in lines if line.startswith(("GLOW", "buy", "no "))]) == 3
    assert len(NAMES) == 5

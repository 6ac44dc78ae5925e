"""The command line as a person or a program calls it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest

from datafeeds.samples import load_sp500
from glow_bt.artifact import load_artifact, save_artifact
from glow_bt.cli import main
from glow_bt.cli.app import app
from glow_bt.errors import ResultsError
from glow_bt.evaluation import run_folder, study, unit_training
from glow_bt.flows import FAMILIES
from glow_bt.scoring import Scorer
from glow_bt.training import TrainConfig
from tests.models import small_artifact, sp500_bars

SMALL = ["--hidden", "8", "--levels", "1", "--steps", "1", "--epochs", "2", "--regimes", "2"]
SMALL += ["--members", "2"]
# A study that is quick: the strategy and its baselines only.
STUDY = [*SMALL, "--no-ablations"]


def call(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    return int(end.value.code or 0)


def printed(*args: object) -> str:
    """Run the command line to success and return what it printed on standard output."""
    with redirect_stdout(io.StringIO()) as output:
        assert call(*args) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with bars, a trained model, a backtest, and what the calls printed as JSON."""
    folder = tmp_path_factory.mktemp("cli")
    bars, model = folder / "bars.csv", folder / "model"
    load_sp500().iloc[:1000].to_csv(bars)
    for name, args in {
        "train": ["train", bars, "--out", model, *SMALL],
        "backtest": ["backtest", bars, "--model", model, "--out", folder / "run"],
    }.items():
        (folder / f"{name}.json").write_text(printed(*args, "--json"))
    return folder


@pytest.fixture
def no_tearsheet(monkeypatch):
    """Leave out the page that takes longest, where a test looks at another or at none."""
    monkeypatch.setattr(run_folder, "write_tearsheet", lambda *_args, **_kwargs: None)


def commands_of(group, path=()):
    """Yield the words that call each command, those of its groups before it."""
    for name, command in sorted(group.commands.items()):
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, (*path, name))


@pytest.mark.parametrize("words", list(commands_of(app)), ids=" ".join)
def test_every_command_has_help_with_an_example(words, capsys):
    assert call(*words, "--help") == 0
    text = capsys.readouterr().out
    assert "Example:" in text
    assert f"\n  glow-bt {' '.join(words)} " in f"{text} ".replace("\n", " \n")
    if "Commands:" not in text:
        assert "--json" in text
        assert "--seed" in text


def test_the_families_of_flows_can_be_chosen_wherever_a_model_is_trained():
    for command in ("train", "demo", "walk-forward"):
        (option,) = [o for o in app.commands[command].params if o.name == "flow"]
        assert tuple(option.type.choices) == FAMILIES
        assert "--coupling" in printed(command, "--help")


def test_a_setting_that_the_family_has_not_is_refused_in_one_line(workplace, tmp_path, capsys):
    bars, out = workplace / "bars.csv", tmp_path / "model"
    args = ["train", bars, "--out", out, "--flow", "flow_matching", "--coupling", "spline"]
    assert call(*args) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no coupling with flow 'flow_matching', found coupling='spline'; leave it out" in told
    assert not out.exists()


@pytest.mark.usefixtures("no_tearsheet")
def test_another_family_goes_the_whole_way_to_the_pages(workplace, tmp_path):
    bars, model, run = workplace / "bars.csv", tmp_path / "model", tmp_path / "run"
    args = ["--flow", "flow_matching", "--hidden", 8, "--epochs", 2, "--regimes", 2]
    trained = json.loads(printed("train", bars, "--out", model, *args, "--json"))
    assert trained["flow"] == "flow_matching"
    assert "Sharpe" in printed("backtest", bars, "--model", model, "--out", run)
    assert "Mean objective by epoch" in (run / "model.html").read_text()


def test_options_show_the_trainers_own_defaults():
    options = {option.name: option.default for option in app.commands["train"].params}
    config = TrainConfig().to_dict()
    assert options.pop("return_horizons") == "1"
    assert config.pop("return_horizons") == [1]
    shared = options.keys() & config.keys() - {"train_until", "validation_until"}
    assert len(shared) > 10
    assert {name: options[name] for name in shared} == {name: config[name] for name in shared}


@pytest.mark.parametrize(
    "args",
    [
        ["fly"],
        ["train"],
        ["train", "bars.csv"],
        ["train", "bars.csv", "--out", "m", "--epochs", "many"],
        ["train", "bars.csv", "--out", "m", "--return-horizons", "1,day"],
        ["train", "bars.csv", "--out", "m", "--members", "few"],
        ["demo", "--sample", "moon"],
        ["backtest", "bars.csv", "--out", "o"],
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(args, capsys):
    assert call(*args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "--help" in captured.err


def test_train_wrote_a_model_and_left_no_checkpoint(workplace):
    assert (workplace / "model" / "manifest.json").is_file()
    assert not list(workplace.glob(".*checkpoint*"))


def test_backtest_writes_the_whole_run(workplace):
    names = {path.name for path in (workplace / "run").iterdir()}
    assert names == {
        "manifest.json",
        "metrics.json",
        "states.parquet",
        "equity.parquet",
        "latents.parquet",
        "index.html",
        "tearsheet.html",
        "model.html",
        "pictures",
    }
    metrics = json.loads((workplace / "run" / "metrics.json").read_text())
    baselines, ablations = (
        ["glow", "buy_and_hold", "volatility_target"],
        [
            "no_filter",
            "no_direction",
            "no_var_sizing",
            "no_averaging",
            "direction_alone",
            "random_direction",
        ],
    )
    assert list(metrics["strategies"]) == [*baselines, *ablations]
    assert list(metrics["statistics"]["differences"]) == [*baselines[1:], *ablations]
    assert metrics["costs"]["fee"] == 0.00055
    assert metrics["span"]["bars"] == 150
    trained_until = json.loads((workplace / "model" / "manifest.json").read_text())["training"][
        "trained_until"
    ]
    assert pd.Timestamp(metrics["span"]["from"]) > pd.Timestamp(trained_until)


def test_report_makes_the_pages_anew_from_the_folder_alone(workplace, tmp_path):
    run = shutil.copytree(workplace / "run", tmp_path / "moved")
    for page in ("index.html", "tearsheet.html", "model.html"):
        (run / page).unlink()
    assert "Sharpe" in printed("report", run)
    assert (run / "index.html").stat().st_size > 50_000
    assert (run / "tearsheet.html").stat().st_size > 100_000
    assert (run / "model.html").stat().st_size > 50_000


def test_json_is_one_object_and_nothing_else_on_standard_output(workplace, tmp_path, capsys):
    trained = json.loads((workplace / "train.json").read_text())
    assert trained["bars"] == 850
    assert trained["metrics"]["state_validation_nll"] > 0
    assert "strategies" in json.loads((workplace / "backtest.json").read_text())
    assert call("report", tmp_path / "nowhere", "--json") == 1
    assert "expected a results folder" in json.loads(capsys.readouterr().out)["error"]


def test_demo_gives_the_same_numbers_for_the_same_seed(tmp_path, capsys, monkeypatch):
    args = ["demo", "--folds", 3, "--seed", 7, *STUDY, "--out"]
    assert "Kupiec" in printed(*args, tmp_path / "a")
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    again = json.loads(printed(*args, tmp_path / "b", "--json"))
    again.pop("out")
    assert again == json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert len(list((tmp_path / "a" / "artifacts").iterdir())) == 3
    assert call(*args, tmp_path / "a") == 1
    assert "already" in capsys.readouterr().err


def test_walk_forward_says_how_many_bars_its_folds_need(workplace, tmp_path, capsys):
    out = tmp_path / "run"
    assert call("walk-forward", workplace / "bars.csv", "--folds", 4, "--out", out, *SMALL) == 1
    assert "at least" in capsys.readouterr().err
    assert not out.exists()


def _broken(bars: pd.DataFrame, kind: str) -> pd.DataFrame:
    bars = bars.reset_index()
    if kind == "unknown column":
        return bars.assign(vwap=1.0)
    if kind == "duplicate":
        return pd.concat([bars, bars.iloc[-1:]])
    if kind == "unordered":
        return bars.iloc[::-1]
    if kind == "future":
        return bars.assign(timestamp=bars["timestamp"] + pd.Timedelta(days=36_500))
    if kind == "negative":
        return bars.assign(close=-bars["close"])
    if kind == "nan":
        return bars.assign(close=np.nan)
    if kind == "high < low":
        return bars.assign(high=bars["low"], low=bars["high"] + 1)
    if kind == "too few":
        return bars.iloc[:40]
    return pd.DataFrame({"nothing": [1.0]})


@pytest.mark.parametrize(
    "kind",
    [
        "unknown column",
        "duplicate",
        "unordered",
        "future",
        "negative",
        "nan",
        "high < low",
        "too few",
        "rubbish",
    ],
)
def test_bad_bars_give_one_clear_line(kind, tmp_path, capsys):
    file = tmp_path / "bad.csv"
    _broken(load_sp500().iloc[:900], kind).to_csv(file, index=False)
    assert call("train", file, "--out", tmp_path / "m", *SMALL) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("Error: ")
    assert "found" in captured.err
    assert not (tmp_path / "m").exists()


def test_too_few_bars_says_how_many_suffice(tmp_path, capsys):
    file, bars = tmp_path / "few.csv", load_sp500()
    bars.iloc[:200].to_csv(file)
    assert call("train", file, "--out", tmp_path / "m", *SMALL) == 1
    needed = int(capsys.readouterr().err.split("at least ")[1].split()[0])
    bars.iloc[:needed].to_csv(file)
    assert call("train", file, "--out", tmp_path / "m", *SMALL) == 0


def test_bars_inside_the_training_interval_are_not_backtested(workplace, tmp_path, capsys):
    file = tmp_path / "old.csv"
    load_sp500().iloc[:700].to_csv(file)
    args = ["backtest", file, "--model", workplace / "model", "--out", tmp_path / "r"]
    assert call(*args) == 1
    assert "has seen them all" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_gaps_are_reported_and_filled_only_when_asked(tmp_path, capsys):
    # Real days, relabelled as hours: a market that trades round the clock.
    bars = load_sp500().iloc[:900]
    bars.index = pd.date_range("2004-01-01", periods=900, freq="h", tz="UTC", name="timestamp")
    bars.drop(bars.index[100:103]).to_csv(tmp_path / "gap.csv")
    args = ["train", tmp_path / "gap.csv", *SMALL, "--json", "--out"]
    assert call(*args, tmp_path / "a") == 0
    captured = capsys.readouterr()
    assert "1 gaps (3 bars)" in captured.err
    left = json.loads(captured.out)
    assert call(*args, tmp_path / "b", "--fill-gaps") == 0
    filled = json.loads(capsys.readouterr().out)
    assert filled["data_sha256"] != left["data_sha256"]


def test_a_damaged_model_is_one_clear_line(workplace, tmp_path, capsys):
    model = shutil.copytree(workplace / "model", tmp_path / "model")
    tensors = model / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    args = ["backtest", workplace / "bars.csv", "--model", model, "--out", tmp_path / "r"]
    assert call(*args) == 1
    assert "damaged" in capsys.readouterr().err


@pytest.fixture
def believer(tmp_path):
    """A folder with a model that is often sure of a direction, and bars it has not seen."""
    artifact = small_artifact()
    readout = artifact.direction
    sure = replace(readout, coefficients=30.0 * readout.coefficients, drift_belief=0.0)
    save_artifact(replace(artifact, direction=sure), tmp_path / "model")
    sp500_bars(0, 800).to_csv(tmp_path / "bars.csv")
    return tmp_path


def test_backtest_trades_as_its_options_say(believer, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)

    def states(name, *options):
        out = believer / name
        args = ["backtest", believer / "bars.csv", "--model", believer / "model", "--out", out]
        at_once = ["--stance", 0, "--half-life", 0]
        printed(*args, "--risk-budget", 0.2, "--dead-band", 0, *at_once, *options)
        return pd.read_parquet(out / "states.parquet")

    both = states("both")["exposure"]
    long_only = states("long", "--long-only")["exposure"]
    assert both.min() < -0.01
    assert long_only.min() == 0.0
    assert long_only.max() > 0.01
    held = states("band", "--dead-band", 5)["exposure"]
    assert (held == 0.0).all()
    small = states("cap", "--leverage-cap", 0.05)["exposure"]
    assert 0.01 < small.abs().max() < 0.06 < both.abs().max()
    careful = states("es", "--es-budget", 0.02)["exposure"]
    assert 0.01 < careful.abs().max() < 0.8 * both.abs().max()
    held = states("stance", "--stance", 1)["exposure"]
    assert held.min() == 0.0
    assert held.mean() > long_only.mean()
    assert states("slow", "--half-life", 50)["exposure"].diff().abs().sum() < 0.9 * (
        both.diff().abs().sum()
    )
    equity = states("cash", "--cash", 5000)["equity"]
    assert equity.iloc[0] == 5000.0


def test_the_broker_allows_the_leverage_that_the_cap_asks_for(believer, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    out = believer / "run"
    args = ["backtest", believer / "bars.csv", "--model", believer / "model", "--out", out]
    bold = ["--leverage-cap", 3, "--risk-budget", 5, "--dead-band", 0, "--json"]
    told = json.loads(printed(*args, *bold))
    exposure = pd.read_parquet(out / "states.parquet")["exposure"]
    assert exposure.abs().max() > 1.2
    assert told["strategies"]["glow"]["n_rejected"] == 0


@pytest.mark.parametrize(("bps", "paid"), [(0, False), (25, True)])
def test_backtest_pays_the_slippage_asked_for(believer, monkeypatch, bps, paid):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    out = believer / "run"
    args = ["backtest", believer / "bars.csv", "--model", believer / "model", "--out", out]
    told = json.loads(printed(*args, "--slippage-bps", bps, "--json"))
    held = told["strategies"]["buy_and_hold"]["costs"]["slippage"]
    # One purchase with 99 % of the cash.
    assert held == pytest.approx(0.99 * 100_000.0 * bps * 1e-4, rel=0.05)
    assert (held > 0.0) == paid


@pytest.fixture
def contenders(monkeypatch):
    """Parameters of each contender that a backtest was asked for, in place of the backtest."""
    asked = {}

    def record(bars, models, contenders, **others):
        asked.update({contender.name: contender.params for contender in contenders})
        raise ResultsError("expected nothing, found enough")

    monkeypatch.setattr(study, "run_study", record)
    return asked


@pytest.mark.parametrize(("market", "expected"), [("days", 252.0), ("hours", 8760.0)])
def test_the_volatility_target_counts_the_years_of_its_bars(
    believer, contenders, market, expected
):
    bars = sp500_bars(0, 800)
    if market == "hours":
        stamps = pd.date_range("2004-01-01", periods=len(bars), freq="h", tz="UTC")
        bars = bars.set_axis(stamps.rename("timestamp"))
    bars.to_csv(believer / "bars.csv")
    args = ["backtest", believer / "bars.csv", "--model", believer / "model"]
    assert call(*args, "--out", believer / "run") == 1
    assert contenders["volatility_target"]["periods_per_year"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"risk_budget": 0.01, "es_budget": None, "error_margin": 1.0}),
        ([], {"stance": 1.0, "half_life": 24.0}),
        (["--stance", -0.5, "--half-life", 3], {"stance": -0.5, "half_life": 3.0}),
        ([], {"horizon": 1, "recalibrate": False}),
        (["--var-horizon", 5, "--recalibrate"], {"horizon": 5, "recalibrate": True}),
        (
            ["--risk-budget", 0.01, "--es-budget", 0.03, "--error-margin", 2],
            {"risk_budget": 0.01, "es_budget": 0.03, "error_margin": 2.0},
        ),
    ],
)
def test_the_budgets_reach_the_strategy(believer, contenders, options, expected):
    args = ["backtest", believer / "bars.csv", "--model", believer / "model", *options]
    assert call(*args, "--no-ablations", "--out", believer / "run") == 1
    assert contenders["glow"].items() >= expected.items()


@pytest.mark.usefixtures("no_tearsheet")
def test_var_of_several_bars_recalibrated_goes_the_whole_way(workplace, tmp_path, capsys):
    bars, model, run = workplace / "bars.csv", tmp_path / "model", tmp_path / "run"
    args = ["train", bars, "--out", model, *SMALL, "--return-horizons", "5"]
    trained = json.loads(printed(*args, "--json"))
    assert "return_5_test_nll" in trained["metrics"]
    artifact = load_artifact(model)
    assert artifact.returns.horizons == (1, 5)
    assert artifact.returns.flows[5].config["num_members"] == 2
    args = ["backtest", bars, "--model", model, "--out", run, "--json"]
    told = json.loads(printed(*args, "--var-horizon", 5, "--recalibrate"))
    states = pd.read_parquet(run / "states.parquet")
    until = artifact.training.trained_until
    span = load_sp500().iloc[:1000]
    first = span.index.searchsorted(until, side="right")
    scorer = Scorer(artifact, horizon=5, recalibrate=True)
    scores = scorer.score(span.iloc[first - scorer.min_bars + 1 :]).dropna()
    assert states.index.equals(scores.index)
    np.testing.assert_allclose(states["var"], scores["var"], rtol=1e-9)
    assert told["span"]["bars"] == 150
    assert told["var"]["0.01"]["n"] == 29  # of 145 returns over 5 bars, those that do not overlap
    trading = json.loads((run / "manifest.json").read_text())["trading"]
    assert trading["var_horizon"] == 5
    assert trading["recalibrate"] is True
    args = ["backtest", bars, "--model", workplace / "model", "--out", tmp_path / "other"]
    assert call(*args, "--var-horizon", 5) == 2
    assert "found 5; train with --return-horizons 5" in capsys.readouterr().err


def test_help_is_quick_and_loads_no_heavy_library():
    code = (
        "import sys\n"
        "from glow_bt.cli import app\n"
        "heavy = {'torch', 'backtrader', 'ccxt', 'quantstats', 'matplotlib', 'pandas'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_installed_command_runs():
    done = subprocess.run(
        [Path(sys.executable).with_name("glow-bt"), "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("glow-bt, version ")


def test_a_bare_call_is_the_help(capsys):
    assert call() == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["--risk-budget", -1],
        ["--es-budget", 0],
        ["--error-margin", -0.5],
        ["--leverage-cap", 0],
        ["--cash", "nan"],
        ["--slippage-bps", -2],
        ["--folds", 0],
        ["--folds", 2, "--test-every", "3MS"],
        ["--test-every", "fortnight"],
        ["--test-every", 0],
        ["--purge", 61],
        ["--purge", -1],
        ["--embargo", -1],
        ["--epochs", 0],
        ["--members", 1],
        ["--return-horizons", "0,5"],
        ["--var-horizon", 5],
        ["--var-horizon", 0, "--return-horizons", "1,5"],
        ["--false-alarm-rate", 2],
        ["--test-fraction", 1.5],
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_any_work(
    options, workplace, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("glow_bt.evaluation.unit_training.train", None)
    out = tmp_path / "run"
    assert call("walk-forward", workplace / "bars.csv", "--out", out, *options) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("Error: expected ")
    assert not out.exists()


@pytest.mark.parametrize("command", ["train", "walk-forward"])
def test_a_folder_of_something_else_is_never_overwritten(command, workplace, tmp_path, capsys):
    thesis = tmp_path / "mine" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("precious")
    args = [command, workplace / "bars.csv", "--out", tmp_path / "mine", "--overwrite"]
    assert call(*args, *SMALL) == 1
    assert "found another folder" in capsys.readouterr().err
    assert thesis.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_results_do_not_replace_the_model_they_come_from(workplace, tmp_path, capsys):
    model = shutil.copytree(workplace / "model", tmp_path / "model")
    args = ["backtest", workplace / "bars.csv", "--model", model, "--out", model, "--overwrite"]
    assert call(*args) == 1
    assert "found another folder" in capsys.readouterr().err
    assert (model / "model.safetensors").is_file()


def test_an_interrupted_walk_forward_goes_on_at_its_first_unfinished_fold(
    workplace, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    real, trained = unit_training.train, []

    def train(bars, *args, **kwargs):
        trained.append(len(bars))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(bars, *args, **kwargs)

    monkeypatch.setattr(unit_training, "train", train)
    args = ["walk-forward", workplace / "bars.csv", "--folds", 2, "--test-fraction", 0.3, *STUDY]
    out = tmp_path / "run"
    assert call(*args, "--out", out) == 1
    assert "goes on" in capsys.readouterr().err
    assert not out.exists()
    assert call(*args, "--out", out) == 0
    first, second, again = trained
    assert again == second > first
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_test_spans_have_the_length_that_is_asked_for(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    out = tmp_path / "run"
    args = ["walk-forward", workplace / "bars.csv", "--test-fraction", 0.3, *STUDY]
    given = ["--test-every", 150, "--rolling", "--purge", 70, "--embargo", 3]
    printed(*args, *given, "--out", out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["trading"]["folds"] == len(manifest["models"]) == 2
    assert manifest["trading"]["test_every"] == "150"
    assert manifest["training"]["purge"] == 70
    assert manifest["training"]["embargo"] == 3
    first, second = manifest["models"]
    assert first["trained_bars"] == second["trained_bars"]


def test_a_strategy_that_never_traded_says_so(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    args = ["backtest", workplace / "bars.csv", "--model", workplace / "model"]
    said = printed(*args, "--out", tmp_path / "r", "--dead-band", 9, "--no-ablations")
    assert "No order was placed by GLOW" in said
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert set(metrics["strategies"]) == {"glow", "buy_and_hold", "volatility_target"}


def test_makers_pay_the_fee_of_makers(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    args = ["backtest", workplace / "bars.csv", "--model", workplace / "model"]
    printed(*args, "--out", tmp_path / "r", "--liquidity", "maker", "--no-ablations")
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["costs"]["fee"] == 0.0002
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert manifest["trading"]["liquidity"] == "maker"


def test_a_folder_of_runs_is_reported_as_a_list(workplace, tmp_path, capsys):
    for name in ("a", "b"):
        shutil.copytree(workplace / "run", tmp_path / name)
    assert f"wrote {tmp_path / 'index.html'}" in printed("report", tmp_path)
    assert json.loads(printed("report", tmp_path, "--json"))["runs"] == 2
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count('href="a/index.html"') == page.count('href="b/index.html"') == 9


def test_what_the_system_refuses_is_one_line(workplace, capsys):
    assert call("train", workplace / "bars.csv", "--out", "/dev/null/model", *SMALL) == 1
    assert capsys.readouterr().err.count("\n") <= 2
    assert call("train", "/dev/null/bars.csv", "--out", "model", *SMALL) == 1
    assert capsys.readouterr().err.startswith("Error: expected ")

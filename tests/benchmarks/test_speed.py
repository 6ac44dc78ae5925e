import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.speed import __main__ as command
from benchmarks.speed.bare import BLOCK_ROWS, BareProducts
from benchmarks.speed.contender import Contender, Size, training_step
from benchmarks.speed.line_up import contenders, missing_peers
from benchmarks.speed.page import duration, numbers, page, table
from benchmarks.speed.row_loop import RowLoop
from benchmarks.speed.run import Measured, measure
from benchmarks.speed.summary import Spread, fastest, ratios, verdicts
from benchmarks.speed.tasks import BARE, BARS, BEST_PEER, TASKS, Bar, Task
from benchmarks.speed.timing import interleaved

SMALL = Size(features=8, levels=2, steps=1, hidden=8)
GROUPS = {"glow_bt float32": "ours", "glow_bt float64": "ours", "a": "peer", BARE: "reference"}


class Fixed(Contender):
    """Returns what it is told to."""

    def __init__(self, z, log_prob):
        super().__init__("fixed", "peer")
        self.result = z, log_prob

    def encode(self, x):
        return lambda: self.result


class Failing(Contender):
    def encode(self, x):
        def call():
            raise RuntimeError("cannot compile\nlong story")

        return call


def test_every_contender_is_timed_once_a_round():
    called = Counter()
    calls = {name: lambda name=name: called.update([name]) for name in "abc"}
    seconds = interleaved(calls, rounds=5, slice_seconds=0.0)
    assert {name: len(rounds) for name, rounds in seconds.items()} == dict.fromkeys("abc", 5)
    # Three calls to warm up, then one a round.
    assert called == dict.fromkeys("abc", 8)


def test_contenders_alternate_in_random_order():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    interleaved(calls, rounds=20, slice_seconds=0.0)
    rounds = [tuple(order[start : start + 3]) for start in range(9, len(order), 3)]
    assert all(sorted(names) == list("abc") for names in rounds)
    assert len(set(rounds)) > 1


def test_short_calls_fill_their_slice():
    called = Counter()
    interleaved({"a": lambda: called.update("a")}, rounds=1, slice_seconds=0.01)
    assert called["a"] > 100


def test_longer_work_takes_longer():
    x = torch.randn(64, 64)
    calls = {"one": lambda: x @ x, "ten": lambda: [x @ x for _ in range(10)]}
    seconds = interleaved(calls, rounds=5, slice_seconds=0.002)
    assert min(seconds["ten"]) > 3 * min(seconds["one"])


def test_a_spread_holds_median_and_quartiles():
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 1.0, 2.0, 4.0, 5)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0, 1)


def test_ratios_are_taken_within_rounds():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert fastest({"a": [1.0, 5.0, 5.0], "b": [4.0, 4.0, 4.0]}, ["a", "b"]) == "b"
    assert fastest({}, []) is None


@pytest.mark.parametrize(
    ("against", "ratio", "met"),
    [(BEST_PEER, 2.0, True), (BEST_PEER, 1.9, False), (BARE, 2.0, True), (BARE, 2.1, False)],
)
def test_a_bar_is_least_against_peers_and_most_against_the_bare_products(against, ratio, met):
    assert Bar("encode-1", against, 2.0).is_met(ratio) is met


def test_verdicts_compare_with_the_fastest_peer_and_the_bare_products():
    seconds = {
        "encode-256": {
            "glow_bt float32": [1.0, 2.0, 1.0],
            "a": [3.0, 6.0, 2.0],
            "b": [9.0, 1.0, 9.0],
            BARE: [0.5, 1.0, 0.5],
        }
    }
    bare, peer = verdicts(seconds, {**GROUPS, "b": "peer"})
    assert (bare.against, bare.ratio, bare.is_met) == (BARE, 2.0, False)
    assert (peer.against, peer.ratio, peer.is_met) == ("a", 3.0, True)
    assert peer.best_ratio == 2.0  # the least time of a over ours, whenever they were


def test_verdicts_keep_the_dtypes_apart():
    seconds = {"encode-1": {"glow_bt float32": [1.0], "glow_bt float64": [2.0], "a": [80.0]}}
    found = {verdict.bar.dtype: verdict for verdict in verdicts(seconds, GROUPS)}
    assert found["float32"].ratio == 80.0
    assert found["float64"].ratio == 40.0
    assert found["float64"].ours == "glow_bt float64"


def test_no_verdict_without_both_sides():
    assert verdicts({"encode-1": {"glow_bt float32": [1.0]}}, GROUPS) == []
    assert verdicts({"encode-1": {"a": [1.0], BARE: [1.0]}}, GROUPS) == []


def test_every_bar_has_its_task():
    assert {bar.task for bar in BARS} <= {task.key for task in TASKS}
    assert all(bar.factor > 1 for bar in BARS)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.57e-5, "15.7 us"), (0.00344, "3.44 ms"), (4.218, "4.22 s")]
)
def test_durations_have_three_digits(seconds, text):
    assert duration(seconds) == text


def test_tables_are_markdown():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_contender_that_cannot_run_is_left_out_with_its_reason():
    tasks = [Task("encode", 4, 1)]
    everyone = [Failing("failing", "peer"), BareProducts(SMALL)]
    measured = measure(everyone, tasks, 8, slice_seconds=0.0)
    assert list(measured.seconds["encode-4"]) == [BARE]
    assert measured.left_out == {"encode-4, failing": "RuntimeError: cannot compile"}


@pytest.mark.parametrize(
    ("z", "log_prob", "message"),
    [
        (np.zeros((4, 7)), np.zeros(4), r"expected latents \(4, 8\)"),
        (np.zeros((4, 8)), np.zeros((4, 1)), r"found \(4, 8\) and \(4, 1\)"),
        (np.zeros((4, 8)), np.full(4, math.nan), "expected finite"),
    ],
)
def test_wrong_results_are_refused(z, log_prob, message):
    with pytest.raises(ValueError, match=message):
        measure([Fixed(z, log_prob)], [Task("encode", 4, 1)], 8, slice_seconds=0.0)


def test_bare_products_are_those_of_the_flow():
    size = Size()
    shapes = BareProducts(size)._shapes
    assert len(shapes) == size.levels * size.steps * 4
    assert shapes[:4] == [(16, 16), (8, 128), (128, 128), (128, 16)]
    assert shapes[-4:] == [(4, 4), (2, 128), (128, 128), (128, 4)]
    assert all(first[1] == second[0] for first, second in pairwise(shapes[1:4]))


def test_bare_products_take_every_row_once(monkeypatch):
    rows = []
    monkeypatch.setattr(torch, "mm", lambda left, right, out: rows.append(len(left)))
    BareProducts(SMALL).sample(2 * BLOCK_ROWS + 7)()
    products = SMALL.levels * SMALL.steps * 4
    assert rows == [*[BLOCK_ROWS] * 2 * products, *[7] * products]


def test_the_textbook_loop_is_a_density():
    """Rows drawn with latents z have the density that encoding them finds."""
    model = RowLoop(SMALL)._model
    x = model.sample(3)
    z, log_prob = model.log_prob(x)

    def latents(row):
        return model.log_prob(row[None])[0][0]

    jacobian = torch.autograd.functional.jacobian(latents, x[1])
    expected = torch.linalg.slogdet(jacobian)[1] - 0.5 * (
        z[1].square().sum() + 8 * math.log(2 * math.pi)
    )
    torch.testing.assert_close(log_prob[1], expected, rtol=1e-4, atol=1e-4)


def test_a_training_step_raises_the_likelihood():
    mean = torch.nn.Parameter(torch.ones(1))
    step = training_step([mean], lambda x: -(x - mean).square()[:, 0], torch.zeros(4, 1))
    step()
    assert mean < 1.0


def test_the_page_shows_times_bars_and_what_was_left_out():
    seconds = {"encode-1": {"glow_bt float32": [1e-5], "a": [2e-3], BARE: [5e-6]}}
    measured = Measured(seconds, {"train-256, a": "RuntimeError: no"})
    everyone = [Contender(name, group, 7) for name, group in GROUPS.items()]
    results = numbers(measured, everyone, Size(), verdicts(seconds, GROUPS))
    text = page(results)
    assert "| encode-1 | glow_bt float32 | at least 60x faster than the best peer (a) |" in text
    assert "200.00x" in text
    assert "| a | 7 | 2 ms (2 ms) |" in text
    assert "- train-256, a: RuntimeError: no" in text
    assert results["tasks"]["encode-1"]["a"]["over_bare"] == pytest.approx(400)
    assert json.loads(json.dumps(results)) == results


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_quick_run_writes_page_and_numbers(tmp_path, capsys):
    if missing_peers():
        pytest.skip(f"{', '.join(missing_peers())} not installed (the extra `bench`)")
    words = ["--quick", "--rounds", "1", "--only", "encode-1", "train-256", "--out"]
    assert command.main([*words, str(tmp_path)]) == 0
    results = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert (tmp_path / "speed.md").read_text(encoding="utf-8") == capsys.readouterr().out[:-1]
    assert not results["left_out"]
    timed = results["tasks"]["encode-1"]
    assert {"normflows", "nflows", "zuko, LU", "glow_bt float32", BARE} <= set(timed)
    assert all(spread["median"] > 0 for spread in timed.values())


def test_every_contender_is_built_to_the_same_size():
    """Within 2 % of the parameters: the peers have neither tail layer nor learned priors."""
    found = [c.parameters for c in contenders(Size(), compiled=False) if c.parameters]
    assert max(found) <= 1.02 * min(found)

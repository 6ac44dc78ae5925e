import numpy as np
import pytest
from matplotlib.colors import to_hex

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.evaluation import canvas as canvas_module
from glow_bt.evaluation.canvas import regime_colour
from glow_bt.evaluation.flow_pictures import latent_picture, training_picture
from tests.evaluation.states import made_up_latents, made_up_states, made_up_training


@pytest.fixture
def drawn(monkeypatch):
    """The panels that were drawn, one a picture."""
    panels = []

    class Recorded(canvas_module.Canvas):
        def picture(self, *args, **kwargs):
            panels.append(self.axes[0])
            return super().picture(*args, **kwargs)

    monkeypatch.setattr(canvas_module, "Canvas", Recorded)
    return panels


def test_latents_are_projected_on_their_principal_axes(drawn):
    states = made_up_states(500, num_regimes=2, warm_up=20)
    latents = made_up_latents(states) * [1.0, 3.0, 1.0, 2.0, 1.0]
    picture = latent_picture(latents)
    known = latents.dropna()
    values = known.drop(columns="regime").to_numpy()
    _, scales, directions = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    share = (scales[:2] ** 2).sum() / (scales**2).sum()
    assert f"{len(known)} market states" in picture.caption
    assert f"({share:.0%} of the variance)" in picture.caption
    expected = (values - values.mean(axis=0)) @ directions[:2].T
    for number, dots in enumerate(drawn[0].lines):
        assert to_hex(dots.get_color()).upper() == regime_colour(number)
        shown = np.column_stack([dots.get_xdata(), dots.get_ydata()])
        rows = known["regime"].to_numpy() == number
        np.testing.assert_allclose(np.abs(shown), np.abs(expected[rows]), atol=1e-9)


def test_only_the_last_models_latents_are_shown(drawn):
    states = made_up_states(300, num_regimes=1)
    latents = made_up_latents(states)
    picture = latent_picture(latents, [states.index[100], states.index[220]])
    assert len(drawn[0].lines[0].get_xdata()) == 80
    assert "Only the last model's bars" in picture.caption


def test_many_latents_are_thinned_in_every_regime(drawn):
    states = made_up_states(20_000)
    states["regime"] = 0.0
    states.iloc[::4000, states.columns.get_loc("regime")] = 1.0
    picture = latent_picture(made_up_latents(states))
    assert "One state in 5 is drawn." in picture.caption
    assert [len(dots.get_xdata()) for dots in drawn[0].lines] == [3999, 1]


def test_a_single_latent_is_a_line(drawn):
    states = made_up_states(60, num_regimes=1)
    picture = latent_picture(made_up_latents(states, num_latents=1))
    assert not drawn[0].lines[0].get_ydata().any()
    assert "(100% of the variance)" in picture.caption


def test_too_few_latents():
    states = made_up_states(30, warm_up=29)
    with pytest.raises(TooFewBarsError, match="latent space needs at least 2"):
        latent_picture(made_up_latents(states))


def test_the_best_epoch_of_each_fold_is_marked(drawn):
    training = made_up_training(3)
    picture = training_picture(training)
    best = [curve for curve in drawn[0].lines if curve.get_marker() == "o"]
    assert [curve.get_xdata().tolist() for curve in best] == [[8]] * 3
    for curve, history in zip(best, training, strict=True):
        assert curve.get_ydata().tolist() == [min(history["validation_nll"])]
    labels = [text.get_text() for text in drawn[0].get_legend().get_texts()]
    assert labels == ["fold 1", "fold 2", "fold 3"]
    assert "early epochs are cut off" in picture.caption
    assert drawn[0].get_ylim()[1] < 30


def test_many_folds_name_the_first_and_the_last(drawn):
    training_picture(made_up_training(12))
    labels = [text.get_text() for text in drawn[0].get_legend().get_texts()]
    assert labels == ["fold 1", "fold 12"]


def test_epochs_without_a_finite_loss_are_gaps(drawn):
    history = {
        "label": "only",
        "train_nll": [np.inf, 3.0, 2.0],
        "validation_nll": [np.nan, 4.0, np.inf],
    }
    picture = training_picture([history])
    dot = next(curve for curve in drawn[0].lines if curve.get_marker() == "o")
    assert (dot.get_xdata().tolist(), dot.get_ydata().tolist()) == ([2], [4.0])
    assert "cut off" not in picture.caption
    broken = history | {"train_nll": [np.nan] * 3, "validation_nll": [np.nan] * 3}
    assert training_picture([broken]).png.startswith(b"\x89PNG")


def test_a_flow_with_another_objective_than_the_likelihood_is_labelled_so(drawn):
    history = {"label": "only", "train_loss": [3.0, 2.0], "validation_loss": [4.0, 3.5]}
    caption = training_picture([history]).caption
    assert caption.startswith("Mean objective by epoch")
    assert "Mean negative log-likelihood" in training_picture(made_up_training(2)).caption


def test_a_history_without_its_lists_is_named():
    with pytest.raises(DataError, match="train_nll and validation_nll, found label"):
        training_picture([{"label": "fold 1"}])
    uneven = {"label": "fold 1", "train_nll": [1.0, 2.0], "validation_nll": [1.0]}
    with pytest.raises(DataError, match="equally long"):
        training_picture([uneven])


def test_stamps_of_latents_and_bounds_are_compared_in_time():
    states = made_up_states(50, num_regimes=1)
    bound = states.index[40].tz_convert("Asia/Tokyo")
    assert "10 market states" in latent_picture(made_up_latents(states), [bound]).caption

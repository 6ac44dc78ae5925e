"""Where a level's numbers lie."""

import numpy as np
import pytest

from glow_bt.fused.level_layout import GradientLines, Layout, tiled


def level_of(width, context, hidden, outputs, steps=3):
    rng = np.random.default_rng(0)
    widths = (width, width // 2 + context, hidden, hidden), (width, hidden, hidden, outputs)
    maps = tuple(rng.normal(size=(steps, *pair)) for pair in zip(*widths, strict=True))
    return maps, tuple(rng.normal(size=(steps, out)) for out in widths[1])


@pytest.mark.parametrize(("width", "context", "hidden", "outputs"), [(2, 0, 1, 2), (9, 4, 33, 10)])
def test_no_two_groups_of_lines_overlap(width, context, hidden, outputs):
    layout = Layout.of(level_of(width, context, hidden, outputs)[0], context)
    groups = [
        (0, width),
        (layout.mapped, -(-width // 8) * 8),
        (layout.factor, 1),
        (layout.condition, width // 2 + context),
        (layout.first, -(-hidden // 8) * 8),
        (layout.second, -(-hidden // 8) * 8),
        (layout.raw, -(-outputs // 8) * 8),
    ]
    ends = [start + count for start, count in groups]
    assert ends == [*(start for start, _ in groups[1:]), layout.step]
    assert layout.total >= context + 1 + 3 * layout.step + width
    lines = GradientLines.of(layout)
    assert list(lines) == sorted(lines)
    assert lines.first - lines.condition >= width // 2 + context
    assert lines.total - lines.raw >= outputs


def test_gradients_of_maps_come_in_whole_tiles():
    assert tiled((3, 1, 8)) == (3, 4, 8)
    assert tiled((2, 13, 5)) == (2, 16, 8)

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from datafeeds.ohlcv_spans import cut, end_of, minus, overlap, union

STEP, ORIGIN = 5, 2
SPANS = st.lists(
    st.builds(
        lambda start, count, slack: range(
            ORIGIN + STEP * start, ORIGIN + STEP * (start + count) - slack, STEP
        ),
        st.integers(-30, 30),
        st.integers(0, 12),
        st.integers(0, STEP - 1),
    ),
    max_size=6,
)


def covered(spans):
    return {stamp for span in spans for stamp in span}


def assert_canonical(spans):
    for span in spans:
        assert len(span) > 0
        assert span.stop == end_of(span)
        assert (span.start - ORIGIN) % STEP == 0
    for span, following in pairwise(spans):
        assert span.stop < following.start


@given(SPANS, SPANS)
def test_spans_are_sets_of_stamps(spans, others):
    for operation, expected in [
        (minus, covered(spans) - covered(others)),
        (overlap, covered(spans) & covered(others)),
    ]:
        found = operation(spans, others)
        assert covered(found) == expected
        assert_canonical(found)
    found = union(spans + others)
    assert covered(found) == covered(spans) | covered(others)
    assert_canonical(found)


@given(SPANS)
def test_equal_sets_have_equal_spans(spans):
    singles = [range(stamp, stamp + 1, STEP) for stamp in sorted(covered(spans), reverse=True)]
    assert [(s.start, s.stop, s.step) for s in union(singles)] == [
        (s.start, s.stop, s.step) for s in union(spans)
    ]


@given(SPANS, st.integers(1, 9), st.integers(-9, 9))
def test_cuts_lie_at_multiples_from_the_origin_and_nowhere_else(spans, steps, shift):
    origin = ORIGIN + STEP * shift
    pieces = cut(spans, steps, origin)
    assert [stamp for piece in pieces for stamp in piece] == sorted(covered(spans))
    edges = {edge for span in union(spans) for edge in (span.start, span.stop)}
    for piece in pieces:
        assert 0 < len(piece) <= steps
        for edge in (piece.start, piece.stop):
            assert edge in edges or (edge - origin) % (steps * STEP) == 0
        inner = range(piece.start + STEP, piece.stop, STEP)
        assert not any((stamp - origin) % (steps * STEP) == 0 for stamp in inner)

import json

import pytest

from datafeeds.bybit_answers import (
    answer_result,
    answer_rows,
    answer_time_ms,
    check_answer,
    ongoing_maintenance,
    server_time_ms,
)
from datafeeds.bybit_retry import UnclearRefusalError
from glow_bt.errors import (
    AccessError,
    ClockSkewError,
    FeedError,
    MaintenanceError,
    MalformedAnswerError,
    RateLimitError,
    RegionError,
    SymbolError,
    TransientFeedError,
)


def answer(result, code=0, message="OK"):
    return {"retCode": code, "retMsg": message, "result": result, "time": 1709891679050}


def check(body, status=200):
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    check_answer(status, body, parsed)


@pytest.mark.parametrize("code", [0, "0"])
def test_results_pass(code):
    check(json.dumps(answer({"list": []}, code)))
    check(json.dumps(answer({"timeNano": "1"}, code)))
    assert answer_rows(answer({"list": [[1]]}, code)) == [[1]]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        "7",
        "<!DOCTYPE html><html>",
        '{"retCode": 0, "resu',
        json.dumps(answer(None)),
        json.dumps(answer([])),
        json.dumps(answer({"list": None})),
        json.dumps(answer({"list": {}})),
    ],
)
def test_what_is_no_answer_is_worth_asking_again(body):
    with pytest.raises(TransientFeedError, match=r"^expected a .*Bybit.*, found .+$"):
        check(body)


@pytest.mark.parametrize("code", [10000, 10002, 10006, 10016, 10018, 10429, "10006"])
def test_codes_that_pass_are_worth_asking_again(code):
    with pytest.raises(TransientFeedError, match=f"retCode {code}, .*busy"):
        answer_result(answer({}, code, "busy"))


@pytest.mark.parametrize("code", [10001, 110001, -1, None, "soon"])
def test_other_codes_are_refusals(code):
    with pytest.raises(FeedError, match=f"refused the request .retCode {code}: no") as caught:
        answer_result(answer({}, code, "no"))
    assert type(caught.value) is FeedError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10000, TransientFeedError),
        (10002, ClockSkewError),
        (10006, RateLimitError),
        (10018, RateLimitError),
        (10429, RateLimitError),
        (10016, TransientFeedError),
        *((code, AccessError) for code in (10003, 10004, 10005, 10007, 10009, 10010, 33004)),
        (10024, RegionError),
    ],
)
@pytest.mark.parametrize("written", [int, str])
def test_codes_are_told_apart(code, kind, written):
    with pytest.raises(FeedError, match=f"retCode {code}.*: no") as caught:
        answer_result(answer({}, written(code), "no"))
    assert type(caught.value) is kind


@pytest.mark.parametrize("message", ["System is under maintenance.", "Server maintained"])
def test_a_server_error_for_maintenance_is_one(message):
    with pytest.raises(MaintenanceError, match=message):
        answer_result(answer({}, 10016, message))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, "", MaintenanceError),
        (502, "<h1>Scheduled Maintenance</h1>", MaintenanceError),
        (502, "bad gateway", TransientFeedError),
        (408, "", TransientFeedError),
        (429, "", RateLimitError),
        (418, "", RateLimitError),
        (403, "403, access too frequent", RateLimitError),
        (401, "", AccessError),
        (404, "", FeedError),
        (200, "<html>", MalformedAnswerError),
    ],
)
def test_statuses_are_told_apart(status, body, kind):
    with pytest.raises(FeedError) as caught:
        check(body, status)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("answered", "found"),
    [({"time": 7}, 7), ({"time": "7"}, 7), ({}, None), ({"time": "x"}, None), (None, None)],
)
def test_the_envelope_shows_the_exchanges_clock(answered, found):
    assert answer_time_ms(answered) == found


def test_ongoing_maintenance_is_described():
    rows = [
        {"state": "completed", "title": "old", "end": "1"},
        {"state": "ongoing", "title": "Matching engine", "end": "1709895600000"},
    ]
    assert ongoing_maintenance(answer({"list": rows})) == (
        "maintenance is going on until 2024-03-08 11:00+00:00: Matching engine"
    )
    assert ongoing_maintenance(answer({"list": rows[:1]})) is None


def test_unknown_symbol_code():
    with pytest.raises(SymbolError, match="Not supported symbols"):
        answer_result(answer({}, 10001, "Not supported symbols"))


@pytest.mark.parametrize("status", [403, 408, 418, 429, 500, 502, 503, 504, 520, 525])
def test_statuses_that_pass_are_worth_asking_again(status):
    with pytest.raises(TransientFeedError, match=f"HTTP {status}"):
        check("upstream error", status)


@pytest.mark.parametrize("status", [400, 404, 407, 410, 422])
def test_other_statuses_are_refusals(status):
    with pytest.raises(
        FeedError, match=f"found HTTP {status}: not here; check base_url"
    ) as caught:
        check("not here", status)
    assert type(caught.value) is FeedError


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (451, ""),
        (
            403,
            "The Amazon CloudFront distribution is configured to block access from your country.",
        ),
        (403, "Country banned"),
        (403, "The service is not available in your region"),
        (403, "Service unavailable from a restricted location according to b. Eligibility"),
    ],
)
def test_blocked_region_is_said_and_not_asked_again(status, body):
    with pytest.raises(RegionError, match="because of its country or region"):
        check(body, status)


@pytest.mark.parametrize(
    "body", ["", "<H1>Access Denied</H1> Reference #18.d41", "<H1>403 ERROR</H1> Request blocked."]
)
def test_a_403_that_does_not_say_why_names_both_causes(body):
    with pytest.raises(UnclearRefusalError, match=r"too many requests .* or a region"):
        check(body, 403)


@pytest.mark.parametrize(
    "body", ["403, access too frequent", '{"retMsg": "Too many visits"}', "IP rate limit"]
)
def test_an_address_that_asked_too_often_is_told_to_wait(body):
    with pytest.raises(RateLimitError, match=r"too often .* wait ten minutes") as caught:
        check(body, 403)
    assert type(caught.value) is RateLimitError


def test_messages_are_one_short_line():
    with pytest.raises(FeedError) as caught:
        check("<html>\n" + "x" * 10_000, 502)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_server_time_is_whole_milliseconds():
    result = {"timeSecond": "1709891679", "timeNano": "1709891679050999999"}
    assert server_time_ms(answer(result)) == 1709891679050


@pytest.mark.parametrize(
    "result", [{}, {"timeNano": None}, {"timeNano": "noon"}, {"timeNano": ""}]
)
def test_damaged_server_time_is_worth_asking_again(result):
    with pytest.raises(TransientFeedError, match="timeNano"):
        server_time_ms(answer(result))

"""Ways in which an exchange's answer goes wrong: what the loopback server does when told to.

A fault takes a good reply and gives a worse one. `FAULTS` holds those that a client can heal by
asking again, by name; the functions make others.
"""

import json
import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; faults make a worse one of it."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    stall: float = 0.0
    reset_after: int | None = None  # bytes of the body that leave before the connection breaks
    headers: tuple[tuple[str, str], ...] = ()


def http_status(status, body=b"upstream error", content_type="text/plain"):
    return lambda reply: replace(reply, status=status, body=body, content_type=content_type)


def ret_code(code, message):
    def fault(reply):
        answer = json.loads(reply.body) | {"retCode": code, "retMsg": message, "result": {}}
        return replace(reply, body=json.dumps(answer).encode())

    return fault


def body(text, content_type="application/json"):
    return lambda reply: replace(reply, body=text, content_type=content_type)


def edit(change):
    """Change the answer's JSON in place."""

    def fault(reply):
        answer = json.loads(reply.body)
        change(answer)
        return replace(reply, body=json.dumps(answer).encode())

    return fault


def edit_rows(change):
    """Replace the answer's rows."""

    def fault(answer):
        rows = answer["result"].get("list")
        if rows is not None:
            answer["result"]["list"] = change(rows)

    return edit(fault)


def with_cell(field, value):
    """Put a value into the newest row."""

    def change(rows):
        for row in rows[:1]:
            row[field] = value
        return rows

    return edit_rows(change)


def stall(seconds):
    return lambda reply: replace(reply, stall=seconds)


def _forming_bar(answer):
    """The bar that is forming now before the others, as when the exchange ignores the end."""
    rows = answer["result"].get("list", [])
    if len(rows) > 1 and isinstance(rows[0], list):
        newest, step = int(rows[0][0]), int(rows[0][0]) - int(rows[1][0])
        forming = newest + (answer["time"] - newest) // step * step
        rows.insert(0, [str(forming), *rows[0][1:]])


def _stale_forming(answer):
    """The newest closed bar as it was while it formed, and no bar after it."""
    rows = answer["result"].get("list", [])
    if len(rows) < 2 or not isinstance(rows[0], list):
        return
    step = int(rows[0][0]) - int(rows[1][0])
    forming = int(answer["time"]) - step
    if int(rows[0][0]) + step <= forming:
        return  # not the newest bars
    closed = [row for row in rows if int(row[0]) <= forming]
    if closed:
        stamp, open_ = closed[0][:2]
        closed[0] = [stamp, *[open_] * 4, "0.001", "0.1"][: len(closed[0])]
    answer["result"]["list"] = closed


def _stale_answer(answer):
    """An answer out of a cache: of before the newest bar closed."""
    rows = answer["result"].get("list", [])
    if len(rows) > 1 and isinstance(rows[0], list):
        step = int(rows[0][0]) - int(rows[1][0])
        _stale_forming(answer)
        newest = answer["result"]["list"][:1]
        if newest and int(newest[0][0]) + 2 * step > int(answer["time"]):
            answer["time"] = int(newest[0][0]) + step - 1


def _as_text(answer):
    """Numbers of the envelope as text, as some of Bybit's answers have them."""
    answer.update(retCode=str(answer["retCode"]), time=str(answer["time"]))


HTML = b"<!DOCTYPE html><html><body>Checking your browser...</body></html>"
BLOCKED = (
    b"<html>403 ERROR: The Amazon CloudFront distribution is configured to block access "
    b"from your country.</html>"
)

# Faults that a client can heal by asking again.
FAULTS = {
    "http_403": http_status(403),
    "http_418": http_status(418),
    "http_429": http_status(429),
    "http_403_frequent": http_status(403, b"403, access too frequent"),
    "http_500": http_status(500),
    "http_502": http_status(502, HTML, "text/html"),
    "http_503": http_status(503),
    "http_504": http_status(504),
    "server_timeout": ret_code(10000, "Server Timeout"),
    "clock": ret_code(10002, "invalid request, please check your server timestamp"),
    "rate_limit": ret_code(10006, "Too many visits. Exceeded the API Rate Limit."),
    "server_error": ret_code(10016, "Server error."),
    "maintenance": ret_code(10016, "System is under maintenance."),
    "address_limit": ret_code(10018, "Exceeded the IP Rate Limit."),
    "protection": ret_code(10429, "System level frequency protection"),
    "truncated": lambda reply: replace(reply, body=reply.body[: math.ceil(len(reply.body) / 2)]),
    "html": body(HTML, "text/html"),
    "empty": body(b""),
    "null": body(b"null"),
    "text": body(b'"OK"'),
    "array": body(b"[]"),
    "object": body(b"{}"),
    "null_result": edit(lambda answer: answer.update(result=None)),
    "null_list": edit(lambda answer: answer["result"].update(list=None)),
    "no_result": edit(lambda answer: answer.pop("result")),
    "no_code": edit(lambda answer: answer.pop("retCode")),
    "reset": lambda reply: replace(reply, reset_after=0),
    "reset_in_body": lambda reply: replace(reply, reset_after=len(reply.body) // 2),
    "duplicate_rows": edit_rows(lambda rows: [row for row in rows for _ in range(2)]),
    "unordered_rows": edit_rows(lambda rows: rows[1::2] + rows[::2]),
    "conflicting_rows": edit_rows(lambda rows: [[*r[:5], "0.5", "1"] for r in rows[:1]] + rows),
    "nan": with_cell(2, "NaN"),
    "infinite": with_cell(5, "Infinity"),
    "empty_price": with_cell(4, ""),
    "text_price": with_cell(1, "abc"),
    "null_price": with_cell(1, None),
    "high_below_low": with_cell(2, "0.000001"),
    "negative_price": with_cell(3, "-1"),
    "negative_volume": with_cell(5, "-1"),
    "off_grid": edit_rows(lambda rows: [[str(int(r[0]) + 1), *r[1:]] for r in rows]),
    "short_row": edit_rows(lambda rows: [row[:4] for row in rows]),
    "scalar_row": edit_rows(lambda rows: [1, *rows]),
    "short_page": edit_rows(lambda rows: rows[: len(rows) // 2]),
    "hole": edit_rows(lambda rows: rows[:3] + rows[6:]),
    "no_rows": edit_rows(lambda rows: []),
    "forming_bar": edit(_forming_bar),
    "stale_forming": edit(_stale_forming),
    "stale_answer": edit(_stale_answer),
    "text_envelope": edit(_as_text),
    "other_symbol": edit(lambda answer: answer["result"].update(symbol="DOGEUSDT")),
}

# Healed by asking again too, after the client's timeout.
SLOW_FAULTS = {"timeout": stall(60)}

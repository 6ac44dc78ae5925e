"""What Bybit's v5 answers say: a result, a failure worth asking again, or a refusal.

Bybit reports most failures inside an answer of HTTP status 200, as ``retCode``; proxies and
load balancers in front of it add HTTP statuses and pages of their own. ccxt passes bodies that
are no JSON object through as if they held nothing, so each answer is judged here.
"""

from __future__ import annotations

from typing import Any

from glow_bt.errors import FeedError, SymbolError, TransientFeedError

__all__ = ["answer_result", "answer_rows", "check_answer", "server_time_ms"]

_TRANSIENT_CODES = {
    10000: "server timeout",
    10002: "request outside the time window",
    10006: "too many requests",
    10016: "server error",
    10018: "too many requests from this address",
    10429: "system protection",
}
_BAD_PARAMETER_CODE = 10001
_SLOW_DOWN_STATUSES = (418, 429)
_TIMEOUT_STATUS = 408
_SHOWN_CHARACTERS = 80


def check_answer(status: int, body: str, answer: object) -> None:
    """Raise unless an HTTP answer holds a Bybit v5 result.

    Args:
        status: HTTP status.
        body: the answer as text.
        answer: the body as JSON, None if it is none.

    Raises:
        TransientFeedError: if the same question may well be answered later.
        SymbolError: if the exchange does not know the symbol asked for.
        FeedError: on any other refusal.
    """
    if status >= 400:
        raise _status_error(status, body)
    if not isinstance(answer, dict):
        raise TransientFeedError(f"expected a Bybit v5 answer (JSON), found {_shown(body)}")
    if "list" in answer_result(answer):
        answer_rows(answer)


def answer_result(answer: object) -> dict[str, Any]:
    """Return the ``result`` object of an answer.

    Raises:
        FeedError: as `check_answer`.
    """
    if not isinstance(answer, dict) or "retCode" not in answer:
        raise TransientFeedError(
            f"expected a Bybit v5 answer with a retCode, found {_shown(answer)}"
        )
    if str(answer["retCode"]) != "0":
        raise _code_error(answer)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise TransientFeedError(f"expected a result in Bybit's answer, found {_shown(result)}")
    return result


def answer_rows(answer: object) -> list[Any]:
    """Return the ``result.list`` of an answer.

    Raises:
        FeedError: as `check_answer`.
    """
    rows = answer_result(answer).get("list")
    if not isinstance(rows, list):
        raise TransientFeedError(f"expected a list in Bybit's answer, found {_shown(rows)}")
    return rows


def server_time_ms(answer: object) -> int:
    """Return the exchange's clock in epoch milliseconds from ``/v5/market/time``.

    Raises:
        FeedError: as `check_answer`.
    """
    stamp = answer_result(answer).get("timeNano")
    try:
        return int(str(stamp)) // 1_000_000
    except ValueError as error:
        raise TransientFeedError(
            f"expected timeNano in Bybit's server time, found {_shown(stamp)}"
        ) from error


def _status_error(status: int, body: str) -> FeedError:
    if status == 451 or (status == 403 and "country" in body.lower()):
        return FeedError(
            f"Bybit refuses this address because of its country or region (HTTP {status}); "
            "ask from a permitted region or give another base_url"
        )
    if status == 403:
        return TransientFeedError(
            "Bybit refused the request (HTTP 403): either too many requests from this address "
            "(wait ten minutes) or a region that it blocks (give another base_url)"
        )
    if status in _SLOW_DOWN_STATUSES:
        return TransientFeedError(
            f"Bybit asked to slow down (HTTP {status}); fetch with fewer clients at once"
        )
    if status >= 500 or status == _TIMEOUT_STATUS:
        return TransientFeedError(
            f"Bybit is unavailable for now (HTTP {status}: {_shown(body)}); try again later"
        )
    return FeedError(
        f"expected a Bybit v5 answer, found HTTP {status}: {_shown(body)}; check base_url"
    )


def _code_error(answer: dict[str, Any]) -> FeedError:
    code, message = answer["retCode"], str(answer.get("retMsg", ""))
    number = int(code) if str(code).isdecimal() else None
    if number in _TRANSIENT_CODES:
        return TransientFeedError(
            f"Bybit could not answer for now (retCode {code}, {_TRANSIENT_CODES[number]}: "
            f"{_shown(message)}); try again later"
        )
    if number == _BAD_PARAMETER_CODE and "symbol" in message.lower():
        return SymbolError(f"Bybit does not serve the symbol asked for: {_shown(message)}")
    return FeedError(f"Bybit refused the request (retCode {code}: {_shown(message)})")


def _shown(found: object) -> str:
    """What was found, on one line and short enough for a message."""
    text = " ".join(found.split()) if isinstance(found, str) else repr(found)
    if not text:
        return "nothing"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."

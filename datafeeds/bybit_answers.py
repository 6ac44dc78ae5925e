"""What Bybit's v5 answers say: a result, a failure worth asking again, or a refusal.

Bybit reports most failures inside an answer of HTTP status 200, as ``retCode``; proxies and
load balancers in front of it add HTTP statuses and pages of their own. ccxt passes bodies that
are no JSON object through as if they held nothing, so each answer is judged here.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

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

__all__ = [
    "answer_result", "answer_rows", "answer_time_ms", "check_answer", "ongoing_maintenance",
    "server_time_ms",
]  # fmt: skip

_TRANSIENT_CODES: dict[int, tuple[type[TransientFeedError], str]] = {
    10000: (TransientFeedError, "server timeout"),
    10002: (ClockSkewError, "request outside the time window"),
    10006: (RateLimitError, "too many requests"),
    10016: (TransientFeedError, "server error"),
    10018: (RateLimitError, "too many requests from this address"),
    10429: (RateLimitError, "system protection"),
}
_ACCESS_CODES = {
    10003: "the key is not valid: check it, and whether it is of this exchange or its testnet",
    10004: "the signature is wrong: check the secret",
    10005: "the key lacks the permission: change it on the exchange",
    10007: "the key was not accepted: check it",
    10009: "the address is banned: ask from another",
    10010: "the key is bound to other addresses: add this one on the exchange",
    33004: "the key has expired: make a new one",
}
_REGION_CODE = 10024
_SERVER_ERROR_CODE = 10016
_BAD_PARAMETER_CODE = 10001
_SLOW_DOWN_STATUSES = (418, 429)
_TIMEOUT_STATUS = 408
# What Bybit itself and the networks in front of it say with HTTP 403: to a blocked region for
# good, to an address that sent more than 600 requests in 5 seconds for ten minutes.
_REGION_WORDS = ("country", "your region", "restricted location", "jurisdiction")
_FREQUENT_WORDS = ("too frequent", "too many", "rate limit")
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
        raise MalformedAnswerError(f"expected a Bybit v5 answer (JSON), found {_shown(body)}")
    if "list" in answer_result(answer):
        answer_rows(answer)


def answer_result(answer: object) -> dict[str, Any]:
    """Return the ``result`` object of an answer.

    Raises:
        FeedError: as `check_answer`.
    """
    if not isinstance(answer, dict) or "retCode" not in answer:
        raise MalformedAnswerError(
            f"expected a Bybit v5 answer with a retCode, found {_shown(answer)}"
        )
    if str(answer["retCode"]) != "0":
        raise _code_error(answer)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise MalformedAnswerError(f"expected a result in Bybit's answer, found {_shown(result)}")
    return result


def answer_rows(answer: object) -> list[Any]:
    """Return the ``result.list`` of an answer.

    Raises:
        FeedError: as `check_answer`.
    """
    rows = answer_result(answer).get("list")
    if not isinstance(rows, list):
        raise MalformedAnswerError(f"expected a list in Bybit's answer, found {_shown(rows)}")
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
        raise MalformedAnswerError(
            f"expected timeNano in Bybit's server time, found {_shown(stamp)}"
        ) from error


def answer_time_ms(answer: object) -> int | None:
    """Return the exchange's clock from an answer's envelope, None if it does not say."""
    stamp = answer.get("time") if isinstance(answer, dict) else None
    text = str(stamp)
    return int(text) if text.isascii() and text.isdecimal() else None


def ongoing_maintenance(answer: object) -> str | None:
    """Return what ``/v5/system/status`` says of a maintenance that goes on, None if none does.

    Raises:
        FeedError: as `check_answer`.
    """
    for row in answer_rows(answer):
        if isinstance(row, dict) and row.get("state") == "ongoing":
            title, end = _shown(str(row.get("title", ""))), str(row.get("end", ""))
            until = f" until {_utc(int(end))}" if end.isdecimal() and int(end) else ""
            return f"maintenance is going on{until}: {title}"
    return None


def _utc(stamp_ms: int) -> str:
    moment = dt.datetime.fromtimestamp(stamp_ms / 1000, tz=dt.UTC)
    return moment.isoformat(sep=" ", timespec="minutes")


def _status_error(status: int, body: str) -> FeedError:
    lower = body.lower()
    if status == 451 or (status == 403 and any(words in lower for words in _REGION_WORDS)):
        return RegionError(
            f"Bybit refuses this address because of its country or region (HTTP {status}); "
            "ask from a permitted region or give another base_url"
        )
    if status == 401:
        return AccessError(
            f"Bybit does not accept the key (HTTP 401: {_shown(body)}); check key and secret"
        )
    if status == 403 and any(words in lower for words in _FREQUENT_WORDS):
        return RateLimitError(
            f"Bybit was asked too often from this address (HTTP 403: {_shown(body)}); end all "
            "that asks from it, wait ten minutes and ask again"
        )
    if status == 403:
        return UnclearRefusalError(
            f"Bybit refused the request (HTTP 403: {_shown(body)}): either too many requests from "
            "this address (wait ten minutes) or a region that it blocks (ask from a permitted one "
            "or give another base_url)"
        )
    if status in _SLOW_DOWN_STATUSES:
        return RateLimitError(
            f"Bybit asked to slow down (HTTP {status}); fetch with fewer clients at once"
        )
    if status >= 500 or status == _TIMEOUT_STATUS:
        down = status == 503 or "maintenance" in lower
        return (MaintenanceError if down else TransientFeedError)(
            f"Bybit is unavailable for now (HTTP {status}: {_shown(body)}); try again later"
        )
    return FeedError(
        f"expected a Bybit v5 answer, found HTTP {status}: {_shown(body)}; check base_url"
    )


def _code_error(answer: dict[str, Any]) -> FeedError:
    code, message = answer["retCode"], str(answer.get("retMsg", ""))
    number = int(code) if str(code).isdecimal() else None
    said = f"retCode {code}: {_shown(message)}"
    if number in _TRANSIENT_CODES:
        kind, meaning = _TRANSIENT_CODES[number]
        if number == _SERVER_ERROR_CODE and "maint" in message.lower():
            kind = MaintenanceError
        return kind(
            f"Bybit could not answer for now (retCode {code}, {meaning}: {_shown(message)}); "
            "try again later"
        )
    if number in _ACCESS_CODES:
        return AccessError(f"Bybit refused the request ({said}); {_ACCESS_CODES[number]}")
    if number == _REGION_CODE:
        return RegionError(
            f"Bybit refused the request ({said}): it does not serve this account's country or "
            "region; ask from a permitted region or give another base_url"
        )
    if number == _BAD_PARAMETER_CODE and "symbol" in message.lower():
        return SymbolError(f"Bybit does not serve the symbol asked for: {_shown(message)}")
    return FeedError(f"Bybit refused the request ({said})")


def _shown(found: object) -> str:
    """What was found, on one line and short enough for a message."""
    text = " ".join(found.split()) if isinstance(found, str) else repr(found)
    if not text:
        return "nothing"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."

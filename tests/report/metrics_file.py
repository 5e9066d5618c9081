"""Parts of a metrics.json, written by hand."""

from typing import Any


def concordance(
    value: float, low: float, high: float, *, n: int = 45, events: int = 17, pairs: int = 310
) -> dict[str, Any]:
    return {"harrell_c": {"value": value, "ci_low": low, "ci_high": high, "n": n, "events": events, "pairs": pairs}}


def no_pairs(reason: str) -> dict[str, Any]:
    empty = {"value": None, "ci_low": None, "ci_high": None, "n": 6, "events": 0, "pairs": 0}
    return {"harrell_c": {**empty, "reason": reason}}


def site(name: str, patients: int = 120) -> dict[str, Any]:
    return {
        "site": name,
        "patients": patients,
        "events": {"os": 44, "dm": 50},
        "with_image": patients - 2,
        "image_flags": {"border": 9, "parts": 0, "volume": 3, "spacing": 0},
        "variables": {
            "age": {"n": patients - 2, "mean": 58.1, "sd": 14.0},
            "grade": {"n": patients - 5, "levels": {"low": 20, "intermediate": 40, "high": patients - 65}},
        },
    }

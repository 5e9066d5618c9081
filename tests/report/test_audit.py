import json

import pytest

from stsmm_core.errors import RunError
from stsmm_core.report.audit import left_out_sentences, read_audit


def write(run, *entries):
    lines = [json.dumps({"time": "2026-01-01T00:00:00+00:00"} | entry) for entry in entries]
    (run / "audit.jsonl").write_text("\n".join(lines) + "\n")


def entry(site, round_number, *, decision="left out", reason="refused: no", fold=0):
    return {"fold": fold, "round": round_number, "site": site, "stage": "train", "decision": decision, "reason": reason}


def test_rounds_are_counted_once_a_site_and_warnings_not_at_all(tmp_path):
    write(
        tmp_path,
        entry("north", 1),
        entry("north", 2, reason="the update holds a value that is not finite"),
        entry("north", 2, reason="the update holds a value that is not finite"),
        entry("north", 2, fold=1, reason="the update holds a value that is not finite"),
        entry("south", 5),
        entry("south", 0, decision="warning"),
    )
    assert left_out_sentences(read_audit(tmp_path)) == (
        "Left out: 3 replies of north to train (the update holds a value that is not finite). audit.jsonl has each.",
        "Left out: 1 reply of south to train (refused: no). audit.jsonl has each.",
    )


def test_nothing_left_out_nothing_said(tmp_path):
    assert left_out_sentences(read_audit(tmp_path)) == ()


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "audit.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="line 1 is no entry"):
        read_audit(tmp_path)

"""What a site remembers of approvals, runs and rounds."""

from client.node.approval import revoke
from client.node.ledger import FREE_REPEATS, Ledger


def test_a_round_that_is_asked_for_without_end_uses_up_the_day(kit):
    ledger = Ledger(kit)
    served = [ledger.serve_round("run", 0, 1, limit=3) for _ in range(FREE_REPEATS + 10)]
    assert served.count(True) == 1 + FREE_REPEATS + 2
    assert served.index(False) == 1 + FREE_REPEATS + 2
    assert ledger.rounds_today() == 3


def test_a_resumed_run_repeats_its_rounds_for_free(kit):
    ledger = Ledger(kit)
    assert all(ledger.serve_round("run", 0, number, limit=4) for number in (1, 2, 3, 2, 3, 4))
    assert ledger.rounds_today() == 4
    assert not ledger.serve_round("run", 0, 5, limit=4)
    assert ledger.serve_round("run", 0, 4, limit=4)


def test_an_app_that_others_signed_can_be_forbidden(kit):
    assert revoke(kit, "ab" * 32) == "ab" * 32
    assert Ledger(kit).is_revoked("ab" * 32)
    assert not Ledger(kit).is_approved("ab" * 32)


def test_an_app_that_is_revoked_again_stays_revoked_since_the_first_time(kit):
    approved, forbidden = "12" * 32, "ab" * 32
    Ledger(kit).approve(approved, "stsmm", "tester")
    for sha256 in (approved, forbidden):
        revoke(kit, sha256)
    before = Ledger(kit).approvals()
    for sha256 in (approved, approved[:8], forbidden):
        assert revoke(kit, sha256) in (approved, forbidden)
    assert Ledger(kit).approvals() == before
    Ledger(kit).approve(approved, "stsmm", "tester")
    revoke(kit, approved[:8])
    assert Ledger(kit).is_revoked(approved)


def test_a_name_stands_for_one_configuration(kit):
    ledger = Ledger(kit)
    ledger.note_run(1, "first", "code", "config a", "admitted")
    assert not ledger.other_configuration("first", "config a")
    assert ledger.other_configuration("first", "config b")
    assert not ledger.other_configuration("second", "config b")

"""Twelve steps at two upstreams: whatever happens on the way, each contact gets its true outcome."""

KORE = [f"6960cbe9b155d194e2f0000{n}" for n in range(1, 6)]
WETHOD = ["101", "102", "103"]


def told(result):
    return result["outcome"], result["evidence"], result["attempts"]


def test_a_scenario_of_twelve_steps_across_two_upstreams(mocks, gateway):
    mocks.seed("kore_ai", *KORE)
    mocks.seed("wethod", *WETHOD)
    mocks.play(
        # The first call is put off, and the second deletes all but one.
        {"upstream": "kore_ai", "fault": "busy", "wait_s": 1},
        {"upstream": "kore_ai", "fault": "partial", "failing": [{"id": KORE[1]}]},
        # Deleted, and the answer is lost.
        {"upstream": "kore_ai", "fault": "commit_then_drop"},
        {"upstream": "kore_ai", "fault": "none"},
        # Deleted, and the answer cannot be true.
        {"upstream": "kore_ai", "fault": "contradict"},
        {"upstream": "kore_ai", "fault": "none"},
        # The vendor's own 429, with the vendor's own header.
        {"upstream": "wethod", "fault": "throttle", "wait_s": 1},
        {"upstream": "wethod", "fault": "none"},
        # A proxy's page: nobody knows whether the call arrived.
        {"upstream": "wethod", "fault": "html", "status": 502},
        {"upstream": "wethod", "fault": "none"},
        # Deleted, and half of the answer.
        {"upstream": "wethod", "fault": "cut_body"},
        {"upstream": "wethod", "fault": "none"},
    )

    first, second, third = gateway.delete("kore_ai", *KORE[:3])
    assert [told(first), told(third)] == [("deleted", "item", 2)] * 2
    assert (second["outcome"], second["error"]["code"]) == ("failed", "upstream_unspecified")
    # The repeat finds nothing. Who took it away, nobody can prove: it is gone, and that is inferred.
    assert told(*gateway.delete("kore_ai", KORE[3])) == ("not_found", "inferred", 2)
    assert told(*gateway.delete("kore_ai", KORE[4])) == ("not_found", "inferred", 2)

    assert told(*gateway.delete("wethod", WETHOD[0])) == ("deleted", "status", 2)
    assert told(*gateway.delete("wethod", WETHOD[1])) == ("deleted", "status", 2)
    assert told(*gateway.delete("wethod", WETHOD[2])) == ("not_found", "inferred", 2)

    assert mocks.contacts("kore_ai") == [KORE[1]]
    assert mocks.contacts("wethod") == []
    put_off = {upstream: mocks.journal(upstream)[0]["at_ms"] for upstream in ("kore_ai", "wethod")}
    mocks.check(
        {"check": "scenario_done"},
        {"check": "deleted_twice"},
        {"check": "only_asked"},
        {"check": "calls_per_contact_at_most", "n": 2},
        *({"check": "count", "upstream": each, "kind": "delete", "exactly": 6} for each in put_off),
        # Who was told to wait a second waits a second.
        *(
            {"check": "no_call_between", "upstream": each, "from_ms": at + 1, "to_ms": at + 900}
            for each, at in put_off.items()
        ),
    )


def test_a_lie_is_told_apart_by_the_journal_alone(mocks, gateway):
    mocks.seed("kore_ai", KORE[0])
    mocks.play({"upstream": "kore_ai", "fault": "lie"})
    (result,) = gateway.delete("kore_ai", KORE[0])
    # The gateway says what the upstream said, and for whom it said it.
    assert told(result) == ("deleted", "item", 1)
    assert mocks.contacts("kore_ai") == [KORE[0]]
    assert mocks.journal("kore_ai")[0]["deleted"] == []


def test_checks_say_what_does_not_hold(mocks, gateway):
    mocks.seed("wethod", *WETHOD)
    gateway.delete("wethod", WETHOD[0])
    answer = mocks.ask("POST", "/checks", {"checks": [{"check": "only", "contacts": [{"id": WETHOD[1]}]}]})
    assert not answer["ok"] and answer["results"][0]["check"] == "only"

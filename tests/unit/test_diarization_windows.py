"""Windows to one time line: linking, units, pauses, votes."""

from __future__ import annotations

import numpy as np

from podtool.engines.diarization_windows import (
    Windows,
    collect_units,
    link,
    pauses,
    share_frames,
    together,
    traces,
    vote_how_many,
    vote_speakers,
)

HOP, LENGTH = 25, 100
ORDERS = ([0, 1, 2], [2, 0, 1], [1, 2, 0], [1, 0, 2])
# Two people: the first alone, both, the second alone, a pause, the first again.
TURNS = ((0, 0, 60), (1, 50, 110), (0, 130, 170))
TOTAL = 175


def speech() -> np.ndarray:
    active = np.zeros((TOTAL, 3), bool)
    for who, a, b in TURNS:
        active[a:b, who] = True
    return active


def windows() -> Windows:
    """Each window numbers its speakers in another order, as a segmentation model does."""
    active = speech()
    count = (TOTAL - LENGTH) // HOP + 1
    p = np.full((count, LENGTH, 7), 0.01, np.float16)
    classes = {(): 0, (0,): 1, (1,): 2, (2,): 3, (0, 1): 4, (0, 2): 5, (1, 2): 6}
    for k in range(count):
        order = ORDERS[k % len(ORDERS)]
        for t in range(LENGTH):
            here = active[k * HOP + t]
            names = tuple(sorted(order[s] for s in range(3) if here[s]))
            p[k, t, classes[names]] = 0.94
    return Windows(p, HOP, TOTAL)


def test_windows_agree_on_how_many_speak() -> None:
    votes = vote_how_many(windows())
    assert votes.argmax(1).tolist() == speech().sum(1).tolist()
    assert np.allclose(votes.sum(1), 1.0, atol=0.02)


def test_chains_follow_a_person_through_windows_that_number_them_anew() -> None:
    found = windows()
    chains = traces(found, link(found, 0.6))
    active = speech()
    for chain in chains:
        heard = np.zeros(TOTAL, bool)
        heard[chain.start : chain.stop] = chain.trace > 0.5
        owners = [w for w in range(2) if (active[heard, w]).all()]
        assert heard.any()
        assert len(owners) == 1


def test_units_are_clean_and_disjoint_and_no_longer_than_asked() -> None:
    found = windows()
    chains = traces(found, link(found, 0.6))
    two = vote_how_many(found)[:, 2]
    none = np.zeros(TOTAL, bool)
    units = collect_units(chains, TOTAL, none, two, 0.3, longest=30, shortest=5)
    alone = speech().sum(1) == 1
    assert units
    for u in units:
        assert 5 <= u.frames <= 30
        if u.clean:
            assert alone[u.start : u.stop].all()
    clean = np.zeros(TOTAL, int)
    for u in units:
        clean[u.start : u.stop] += u.clean
    assert clean.max() == 1


def test_votes_give_each_person_their_turns_with_the_overlap() -> None:
    found = windows()
    chains = traces(found, link(found, 0.6))
    none = np.zeros(TOTAL, bool)
    units = collect_units(
        chains, TOTAL, none, vote_how_many(found)[:, 2], 0.3, longest=200, shortest=5
    )
    active = speech()
    labels = np.array([int(active[u.start : u.stop].sum(0).argmax()) for u in units])
    shares = share_frames(chains, units, none)
    votes = vote_speakers(chains, shares, labels, 2, TOTAL)
    assert ((votes > 0.5) == active[:, :2]).mean() > 0.98
    assert all(labels[a] != labels[b] for a, b, part in together(chains, shares) if part > 0.2)


def test_pauses_are_found_where_the_model_only_hints_at_them() -> None:
    nobody = np.full(100, 0.01, np.float32)
    nobody[40] = 0.12
    nobody[42] = 0.1  # lower and next to it: not another one
    nobody[70:75] = 0.9
    cuts = pauses(nobody, reach=5, least=0.05)
    assert cuts[40] and not cuts[42] and cuts[70:75].any()
    assert not cuts[:35].any()


def test_turns_reach_into_silence_and_no_further() -> None:
    from podtool.segments import Span
    from podtool.stages.diarize import into_silence

    first = [Span(0.05, 1.0), Span(3.0, 4.0)]
    second = [Span(1.1, 2.0), Span(3.5, 4.95)]
    padded = into_silence([first, second], 0.1, 5.0)
    expected = [[(0.0, 1.05), (2.9, 4.0)], [(1.05, 2.1), (3.5, 5.0)]]
    for own, wanted in zip(padded, expected, strict=True):
        assert np.allclose(own, wanted)
    assert into_silence([first, second], 0.0, 5.0) == [first, second]
    assert into_silence([[], []], 0.1, 5.0) == [[], []]

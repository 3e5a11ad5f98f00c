"""Outcomes as columns: what a dictionary of rows would say."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.manifests.corpus.digests import to_hex
from coat.pipeline.plan.planning import to_integers
from coat.pipeline.store import outcomes
from coat.pipeline.store.outcomes import OUTCOME_COLUMNS, GrowingArray, Outcomes, RowsByDigest
from coat.pipeline.store.rows import ROWS_SCHEMA, Row, Status

DIGESTS = st.sampled_from([f"{n:016x}" for n in (0, 1, 2**63, 2**64 - 1, 0xABCDEF, 12345678901234567890 % 2**64)])
OUTCOMES: st.SearchStrategy[tuple[Status, str | None]] = st.sampled_from(
    [("ok", None), ("failed", "missing: no such file"), ("failed", "span: ends: late"), ("skipped", "too_short: 1 s")]
)


@st.composite
def units(draw: st.DrawFn) -> list[list[Row]]:
    """Units of a few rows, most of which were tried more than once."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        rows = []
        for digest in draw(st.lists(DIGESTS, unique=True, max_size=4)):
            status, error = draw(OUTCOMES)
            source = None if status == "failed" else f"{number:016x}"
            identity = draw(st.sampled_from(["a", "b", "ä"]))
            rows.append(Row(f"u-{number}", identity, digest, source, 1.5 * number, number, 3, status, error))
        found.append(rows)
    return found


def table(rows: list[Row]) -> pa.Table:
    names = ROWS_SCHEMA.names
    return pa.table([pa.array([getattr(r, n) for r in rows], ROWS_SCHEMA.field(n).type) for n in names], ROWS_SCHEMA)


@given(units())
@settings(deadline=None)
def test_rows_are_the_newest_of_each_digest(found: list[list[Row]]) -> None:
    rows = RowsByDigest([f"u-{i}" for i in range(len(found))], map(table, found))
    expected = {row.digest: row for unit in found for row in unit}
    assert dict(rows) == expected
    assert len(rows) == len(expected)
    asked = to_integers(["0000000000000001", "00000000000000ff", *expected])
    positions = rows.find(asked).tolist()
    assert [None if p < 0 else rows.row_at(p) for p in positions] == [expected.get(d) for d in to_hex(asked)]
    for identity in ("a", "b", "ä", "nobody"):
        ok = [r for r in expected.values() if r.id == identity and r.status == "ok"]
        assert sorted(rows.by_id(identity), key=lambda r: r.digest) == sorted(ok, key=lambda r: r.digest)


@given(units())
@settings(deadline=None)
def test_counts_are_those_of_the_rows(found: list[list[Row]]) -> None:
    names = [f"u-{i}" for i in range(len(found))]
    kept = list(RowsByDigest(names, map(table, found)).values())
    rows = Outcomes(names, (table(unit).select(OUTCOME_COLUMNS) for unit in found))
    counts = rows.count()
    assert (counts.ok, counts.failed, counts.skipped) == tuple(
        sum(r.status == s for r in kept) for s in ("ok", "failed", "skipped")
    )
    assert counts.seconds == sum(r.seconds for r in kept if r.status == "ok")
    assert counts.failures == tuple((r.id, r.error) for r in kept if r.status == "failed")
    assert sum(counts.reasons.values()) == sum(r.status != "ok" for r in kept)
    assert counts.reasons.keys() == {r.reason for r in kept if r.status != "ok"}
    half = rows.find(to_integers([r.digest for r in kept[::2]]))
    assert rows.count(half).ok == sum(r.status == "ok" for r in kept[::2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"digest": "xyz"}, "not 16 hex digits"),
        ({"digest": "g" * 16}, "non-hexadecimal"),
        ({"status": "lost"}, "ok, failed"),
    ],
)
def test_values_that_are_none_are_refused(changed: dict[str, str], message: str) -> None:
    row = {"id": "a", "digest": "0" * 16, "seconds": 1.0, "first": 0, "frames": 1, "status": "ok"} | changed
    with pytest.raises(ValueError, match=message):
        RowsByDigest(["u"], [pa.Table.from_pylist([row], ROWS_SCHEMA)])


def test_what_is_no_digest_is_in_no_row() -> None:
    with pytest.raises(KeyError):
        RowsByDigest([], [])["nobody"]


@given(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**60, 2**60 - 1, 2**63, 2**64 - 1]), max_size=60))
@settings(deadline=None)
def test_what_is_done_share_by_share_is_what_is_done_at_once(found: list[int]) -> None:
    digests = np.array(found, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes, "BLOCK_ROWS", 3)
        order = outcomes.ascending_order(digests)
        assert order.tolist() == np.argsort(digests, kind="stable").tolist()
        in_order = digests[order]
        assert outcomes.equals_next(digests, order).tolist() == [*(in_order[1:] == in_order[:-1]), False][: len(found)]


@given(units(), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_rows_that_are_added_later_are_those_of_all_at_once(found: list[list[Row]], split: int, random) -> None:
    """In blocks of some rows, and with later units that are older than those that were there."""
    names, tables = [f"u-{i}" for i in range(len(found))], [table(unit) for unit in found]
    whole = RowsByDigest(names, tables)
    first = sorted(random.sample(range(len(found)), min(split, len(found))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes, "BLOCK_ROWS", 3)
        rows = RowsByDigest([names[i] for i in first], [tables[i] for i in first])
        assert len(dict(rows)) == len(rows)  # what is remembered of them now is not of what they become
        others = [i for i in range(len(found)) if i not in first]
        rows.extend(names, RowsByDigest([names[i] for i in others], [tables[i] for i in others]))
        assert dict(rows) == dict(whole)
        assert rows.count() == whole.count()
        asked = to_integers(["0000000000000001", "00000000000000ff", *whole])
        assert [p >= 0 for p in rows.find(asked).tolist()] == [d in whole for d in to_hex(asked)]


def test_an_array_that_grows_is_the_sum_of_its_parts() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**63, n).astype(np.uint64) for n in (0, 5, 70_000, 1, 400_000)]
    grown = GrowingArray(np.uint64)
    for part in parts:
        grown.append(part)
    np.testing.assert_array_equal(grown.values, np.concatenate(parts))

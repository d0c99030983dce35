"""The study of equal vectors: what HNSW over every item loses, a bundle's graph does not."""

from __future__ import annotations

from nann.training.studies.equal_vectors import EqualSettings, markdown, measure


def test_a_bundle_keeps_the_coverage_that_hnsw_over_every_item_loses():
    result = measure(EqualSettings(items=3000, users=50, zero_shares=(0.0, 0.2, 0.5)))
    none, *zeros, copies, near = result["rows"]
    for row in (*zeros, copies):
        assert row["bundle"]["coverage"] >= none["bundle"]["coverage"] - 0.02, row
    assert zeros[1]["every"]["coverage"] < 0.5 < zeros[1]["bundle"]["coverage"]
    assert zeros[1]["every"]["unreachable_items"] > 1000 > zeros[1]["bundle"]["unreachable_items"]
    assert [row["copies"] for row in result["rows"]] == [0, 599, 1499, 2700, 0]
    assert near["bundle"] == near["every"], "near copies are items of their own"
    text = markdown(result)
    assert f"| 50% zero vectors | {100 * zeros[1]['every']['coverage']:.1f}% |" in text

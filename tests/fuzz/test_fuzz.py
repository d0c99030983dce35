"""Runs the fuzz targets with inputs from hypothesis: of the right form with wrong content, and arbitrary bytes."""

import io
import json

import numpy as np
import targets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nann.search_params import REQUEST_PARAMETERS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.from_regex(r"[-+0-9, ]{0,12}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
NUMBERS = st.integers(-2, 70) | st.integers()
LISTS = st.lists(NUMBERS, min_size=1, max_size=3).map(lambda numbers: ",".join(map(str, numbers)))
KEYS = sorted(targets.whole().manifest)
FORM = settings(max_examples=200)
QUICK = settings(max_examples=60)


@FORM
@given(
    st.dictionaries(
        st.sampled_from(list(REQUEST_PARAMETERS)) | st.text(max_size=6),
        NUMBERS | LISTS | st.sampled_from(["seeds", "layers"]) | VALUES,
        max_size=5,
    )
)
def test_parameters(body):
    targets.parameters(json.dumps(body).encode())


@FORM
@given(st.binary(max_size=200))
@example(b'{"top_k": 1' + b"0" * 5000 + b"}")
@example(b"[" * 100_000)
@example(b"[1]")
@example(b"nonsense")
def test_parameters_of_any_bytes(data):
    targets.parameters(data)


WORDS = [
    *'()=<>,"',
    "!=",
    "price",
    "tags",
    "year",
    "available",
    "x",
    " and ",
    " or ",
    "not ",
    " in ",
    " between ",
    '"t1"',
    "5",
]


@FORM
@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(max_size=40) | st.just("(" * 9000))
@example("not " * 4000 + "x")
@example('"' + "\\" * 8000)
@example("year = " + "9" * 5000)
def test_filters(text):
    targets.filter_text(text.encode())


@FORM
@given(st.binary(max_size=300))
def test_tensors(data):
    targets.tensors(data)


@FORM
@given(st.binary(max_size=8), st.lists(st.sampled_from([0, -1, 9, 10, 12, 88, 89]) | st.integers(-(2**63), 2**63 - 1)))
def test_features(head, ids):
    targets.features(head.ljust(8, b"\1") + np.array(ids, np.int64).tobytes())


@QUICK
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.none() | VALUES | NUMBERS), min_size=1, max_size=2))
def test_a_manifest_with_other_values(changes):
    body = json.loads(json.dumps(targets.whole().manifest))
    for key, value in changes:
        body[key] = value
    targets.manifest(json.dumps(body).encode())


@QUICK
@given(st.sampled_from(["graph", "search", "export", "search_by_entry", "files"]), st.data())
def test_a_manifest_with_other_values_within(key, data):
    body = json.loads(json.dumps(targets.whole().manifest))
    inner = data.draw(st.sampled_from(sorted(body[key])))
    body[key][inner] = data.draw(VALUES | NUMBERS)
    targets.manifest(json.dumps(body).encode())


@QUICK
@given(st.binary(max_size=100))
@example(b"[" * 100_000)
@example(b'{"format_version": 1' + b"0" * 5000 + b"}")
def test_a_manifest_of_any_bytes(data):
    targets.manifest(data)


@FORM
@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_side=4)), st.booleans(), st.data())
def test_an_array_that_was_changed_and_cut(array, fortran, data):
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(array) if fortran else array)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    targets.array(bytes(content[: data.draw(st.integers(0, len(content)))]))


@QUICK
@given(st.binary(max_size=64))
@example(b"PK\x03\x04" + bytes(60))
@example(b"PK\x05\x06" + bytes(18))
@example(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
def test_an_array_of_any_bytes(data):
    targets.array(data)


@FORM
@given(st.binary(min_size=2, max_size=12))
def test_a_bundles_file_that_was_changed_and_passes_as_whole(data):
    targets.bundle_file(data)


@FORM
@given(st.lists(st.binary(max_size=4), max_size=6), st.lists(st.sampled_from([b"a", b"a\0", b"", b"\xff", b"a" * 300])))
def test_texts(asked, known):
    targets.texts(b"\r".join((b"\n".join([*asked, *known]), b"\n".join([*known, b"b", *asked]))))

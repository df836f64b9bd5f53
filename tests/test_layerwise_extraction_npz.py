"""Files of .npz that are encrypted, bombed or malformed: one line each, before their bytes are inflated."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layerwise.errors import UserError
from layerwise.extraction.stores import open_arrays, whole


def member(
    descr: str = "'<f8'", shape: str = "(3,)", data: bytes = bytes(24), version: tuple[int, int] = (1, 0)
) -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(head)) + head + data


def npz(folder: Path, *members: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w", compression) as file:
        for i, content in enumerate(members):
            file.writestr(f"a{i}.npy", content)
    return folder / "a.npz"


def test_a_plain_member_is_read(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        data = np.arange(3.0).tobytes()
        assert whole(open_arrays(npz(tmp_path, member(data=data, version=version))), "a0").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "content",
    [
        member(shape="(4,)"),
        member(shape="(2,)"),
        member(shape="(1000000000000,)"),
        member(shape="(-1, -3)"),
        member(descr="'<U0'", data=b""),
        member(descr="[('x', '<f8')]"),
        member(descr="('<f8', (3,))", shape="(1,)"),
        member(descr="'nonsense'"),
        member(shape="(" * 4000 + ")" * 4000),
        b"\x93NUMPY\x09\x09" + bytes(40),
        b"nothing",
        b"",
    ],
)
def test_headers_that_say_otherwise_than_the_member_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a.npz cannot be read as .npz .* Write it by numpy.savez"):
        open_arrays(npz(tmp_path, content))


def test_a_bombed_header_is_not_inflated(tmp_path: Path) -> None:
    size = 200 * 10**6
    path = npz(tmp_path, b"\x93NUMPY\x02\x00" + struct.pack("<I", size) + bytes(size))
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a header of 200.0 MB"):
        open_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_labels_without_bound_are_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerwise.extraction.stores.WHOLE_BYTES", 10**6)
    store = open_arrays(npz(tmp_path, member(shape="(1000000,)", data=bytes(8 * 10**6))))
    tracemalloc.start()
    with pytest.raises(
        UserError, match=r"'a0' takes 8.0 MB, of which 1.0 MB are read at most. Give integers as labels"
    ):
        whole(store, "a0")
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("place", range(5))
def test_damage_of_any_compression_is_named(compression: int, place: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 99, 3000)
    path = npz(tmp_path, member("'<i8'", "(3000,)", data.tobytes()), compression=compression)
    content = bytearray(path.read_bytes())
    content[50 + place * (len(content) - 150) // 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.npz(: array 'a0' is damaged| cannot be read as .npz|: array 'a0' ends)"):
        whole(open_arrays(path), "a0")


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    content = bytearray(npz(tmp_path, member()).read_bytes())
    for place, offset in ((content.find(b"PK\3\4"), 6), (content.find(b"PK\1\2"), 8)):
        content[place + offset] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"a.npz cannot be read as .npz \(RuntimeError: File 'a0.npy' is encrypted"):
        open_arrays(tmp_path / "a.npz")


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        for _ in range(2):
            file.writestr("x.npy", member())
    with pytest.raises(UserError, match="two arrays of one name"):
        open_arrays(tmp_path / "a.npz")


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(5, dtype=">i4"), "b": np.zeros((5, 0)), "c": np.array(["x", ""]), "d": np.float64(3)}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    (tmp_path / "a.npz").write_bytes(stream.getvalue())
    store = open_arrays(tmp_path / "a.npz")
    assert [store.shape(name) for name in store.names()] == [(5,), (5, 0), (2,), ()]
    assert whole(store, "a").tolist() == [0, 1, 2, 3, 4] and whole(store, "c").tolist() == ["x", ""]

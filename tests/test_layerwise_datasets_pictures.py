"""Pictures of every kind: their pixels as a viewer shows them, and a word about each that is changed for that."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from layerwise.commandline import set_verbosity
from layerwise.datasets.filling import decode
from layerwise.errors import UserError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)


def saved(folder: Path, name: str, image: Image.Image, **words: Any) -> str:
    image.save(folder / name, **words)
    return str(folder / name)


def read(path: str) -> np.ndarray:
    """Return the pixels [H, W, C] of one picture."""
    ((images, _),) = decode([[path]], 0)
    return images[0].transpose(1, 2, 0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def loud() -> None:
    set_verbosity(quiet=False, verbose=False)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "palette with alphas", "key of RGB", "key of L", "gif"])
def test_what_lies_under_transparent_pixels_is_white(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clear = np.zeros((6, 6), bool)
    clear[:, :3] = True
    colours, words, name = COLOURS.copy(), {}, "a.png"
    match kind:
        case "RGBA" | "LA":
            grey = kind == "LA"
            colours = colours[..., :1].repeat(3, 2) if grey else colours
            parts = [colours[..., 0]] if grey else list(colours.transpose(2, 0, 1))
            image = Image.fromarray(np.stack([*parts, np.where(clear, 0, 255).astype(np.uint8)], -1), kind)
        case "key of RGB" | "key of L":
            grey = kind == "key of L"
            colours = colours // 2 + 100
            colours[clear] = (7, 8, 9)
            colours = colours[..., :1].repeat(3, 2) if grey else colours
            image = Image.fromarray(colours[..., 0] if grey else colours)
            words = {"transparency": 7 if grey else (7, 8, 9)}
        case _:
            indices = np.where(clear, 0, 1 + np.arange(36).reshape(6, 6)).astype(np.uint8)
            palette = RNG.integers(0, 256, (37, 3)).astype(np.uint8)
            image = Image.fromarray(indices, "P")
            image.putpalette(palette.tobytes())
            colours = palette[indices]
            words = {"transparency": bytes([0] + [255] * 36) if kind == "palette with alphas" else 0}
            name = "a.gif" if kind == "gif" else name
    expected = np.where(clear[..., None], 255, colours)
    path = saved(tmp_path, name, image, **words)
    found = read(path)
    assert np.array_equal(found, expected[..., : found.shape[2]])
    assert f"images: 1 with transparent pixels, composed on white ({path})" in said(capsys)


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (6, 6, 1)).astype(np.uint8)
    path = saved(tmp_path, "a.png", Image.fromarray(np.concatenate([COLOURS, alpha], -1), "RGBA"))
    expected = (COLOURS * (alpha / 255) + 255 * (1 - alpha / 255)).round()
    assert np.abs(read(path) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_alpha_changes_nothing(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    found = read(saved(tmp_path, "a.png", image))
    assert np.array_equal(found, np.asarray(image.convert("RGB" if mode == "RGBA" else "L")).reshape(found.shape))
    assert said(capsys) == ""


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(
    orientation: int, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = np.zeros((8, 16), np.uint8)  # bright at the left and darker above, wide
    stored[:, :8], stored[:4] = 200, stored[:4] + 50
    exif = Image.Exif()
    exif[0x0112] = orientation
    words = {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    found = read(saved(tmp_path, f"a.{ending}", Image.fromarray(stored).convert("RGB"), exif=exif, **words))[..., 0]
    # Where row 0 and column 0 of the file are to be seen, by the EXIF standard.
    upright = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T}
    upright |= {6: stored.T[:, ::-1], 7: stored.T[::-1, ::-1], 8: stored.T[::-1]}
    assert found.shape == upright[orientation].shape
    assert np.abs(found.astype(int) - upright[orientation]).max() <= 3
    if ending != "tif":  # which Pillow turns itself
        assert ("turned upright, as their EXIF orientation says" in said(capsys)) == (orientation > 1)


def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", Image.fromarray(COLOURS), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(read(path), COLOURS)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.fromarray(np.full((6, 6, 3), value, np.uint8)) for value in (40, 90, 200)]
    words = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path, f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **words)
    assert (read(path) == 40).all()
    assert f"images: 1 of several frames, of which the first is read ({path})" in said(capsys)


def test_changes_are_counted_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = Image.new("RGBA", (6, 6))
    paths = [saved(tmp_path, f"{i}.png", clear) for i in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 3
    paths.append(saved(tmp_path, "3.png", Image.fromarray(COLOURS), exif=exif))
    decode([paths[:2], paths[2:]], 0)
    assert said(capsys).splitlines() == [
        f"images: 3 with transparent pixels, composed on white (first {paths[0]}); "
        f"1 turned upright, as their EXIF orientation says ({paths[3]})"
    ]


def png16(colour_type: int, channels: int) -> bytes:
    """Return a PNG of 2 x 2 pixels of 16 bits a channel, which Pillow cannot write in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(4 * channels)) for _ in range(2))
    head = struct.pack(">IIBBBBB", 2, 2, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff16() -> bytes:
    """Return a TIFF of 2 x 2 pixels in colour of 16 bits a channel."""
    tags = [(256, 2), (257, 2), (259, 1), (262, 2), (273, 128), (277, 3), (278, 2), (279, 24)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack("<HHII", 258, 3, 3, 122))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return head + struct.pack("<3H", 16, 16, 16) + bytes(24)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("grey.png", png16(0, 1)),
        ("colour.png", png16(2, 3)),
        ("grey and alpha.png", png16(4, 2)),
        ("colour and alpha.png", png16(6, 4)),
        ("colour.tif", tiff16()),
        ("grey.pgm", b"P5 2 2 65535\n" + bytes(8)),
        ("colour.ppm", b"P6 2 2 1023\n" + bytes(24)),
    ],
)
def test_sixteen_bits_in_any_format_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} has more than 8 bits a channel .*: convert it to 8 bits"):
        decode([[str(tmp_path / name)]], 0)


def test_fewer_grey_levels_than_256_are_spread_over_them(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 100\n" + bytes([0, 100]))
    assert read(str(tmp_path / "a.pgm"))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["a pipe", "a link to nothing"])
def test_what_is_no_file_is_named_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=f"{path} cannot be read as an image .FileNotFoundError: no file, or a link"):
        decode([[str(path)]], 0)


def test_pictures_that_cannot_be_read_are_named_up_to_five_and_counted(tmp_path: Path) -> None:
    good = [saved(tmp_path, f"{i}.png", Image.fromarray(COLOURS)) for i in range(3)]
    (tmp_path / "deep.png").write_bytes(png16(2, 3))
    bad = [tmp_path / f"bad{i}.png" for i in range(6)]
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        decode([[str(bad[0]), str(tmp_path / "deep.png"), *good], [str(path) for path in bad[1:]]], 0)
    message = str(caught.value)
    assert message.startswith(f"7 images cannot be read: {bad[0]} (Unidentified")
    assert f"{tmp_path}/deep.png (more than 8 bits a channel, mode RGB;16B), {bad[1]} (Unid" in message
    assert message.endswith("and 2 more. Convert those of more than 8 bits to 8. Replace or remove what is no image.")
    assert str(bad[3]) in message and str(bad[4]) not in message


def test_an_unreadable_first_picture_does_not_set_the_form(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    colour = saved(tmp_path, "b.png", Image.fromarray(COLOURS))
    with pytest.raises(UserError, match=r"^\S*a.png cannot be read as an image .*Replace it or remove it[.]$"):
        decode([[str(tmp_path / "a.png"), colour]], 0)
    with pytest.raises(UserError, match=r"^2 images cannot be read"):
        decode([[str(tmp_path / "a.png")], [str(tmp_path / "gone.png")]], 0)

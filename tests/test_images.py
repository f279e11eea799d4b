"""Image files keep what they hold, or are refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import random_bytes, save
from numpy.typing import NDArray
from PIL import Image

from iadd.data import images
from iadd.data.images import decode


def levels(values: NDArray[np.generic]) -> int:
    return len(np.unique(values))


def ramp(top: int) -> NDArray[np.uint16]:
    return np.linspace(0, top, 256).round().astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize(("top", "high"), [(4095, 4095), (255, 255), (1000, 1023), (65535, 65535)])
def test_deep_grey_keeps_its_depth_and_is_scaled_by_the_whole_set(
    tmp_path: Path, top: int, high: int
) -> None:
    files = [save(tmp_path / "a.png", ramp(top)), save(tmp_path / "b.png", ramp(top // 2))]
    found = decode(files)
    assert (found.low, found.high) == (0, high)
    assert np.array_equal(found.images[0, 0], ramp(top))
    assert np.array_equal(found.images[1, 0], ramp(top // 2))
    assert found.images.dtype == np.float32


def test_the_depth_of_a_set_does_not_depend_on_the_resolution(tmp_path: Path) -> None:
    values = np.zeros((64, 64), dtype=np.uint16)
    values[10, 10] = 4000  # A peak that resizing lowers.
    found = decode([save(tmp_path / "a.png", values)], resolution=8)
    assert found.high == 4095
    assert 0 < found.images.max() < 4000


@pytest.mark.parametrize("kind", ["float", "hounsfield"])
def test_float_and_signed_tiffs_are_scaled_by_the_sets_range(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).uniform(size=(16, 16))
    stored = values.astype(np.float32) if kind == "float" else (1000 * values - 1000).astype(int)
    stored = stored.astype(np.float32 if kind == "float" else np.int32)
    found = decode([save(tmp_path / "a.tif", stored), save(tmp_path / "b.tif", stored // 2)])
    assert np.array_equal(found.images[0, 0], stored)
    assert found.low == found.images.min()
    assert found.high == found.images.max()


@pytest.mark.parametrize("top", [255, 65535])
def test_tiffs_in_which_white_is_zero_look_like_those_in_which_black_is(
    tmp_path: Path, top: int
) -> None:
    """Else one hospital's X-rays would be the negatives of another's."""
    shown = ramp(top).astype(np.uint8 if top == 255 else np.uint16)
    Image.fromarray(shown).save(tmp_path / "black.tif")
    kept = shown if top == 255 else top - shown  # of 8 bits Pillow turns them round itself
    Image.fromarray(kept).save(tmp_path / "white.tif", tiffinfo={262: 0})
    found = decode([tmp_path / "black.tif", tmp_path / "white.tif"])
    assert np.array_equal(found.images[0], found.images[1]) and found.high == top
    assert np.array_equal(found.digests[0], found.digests[1])
    deeper = np.zeros((16, 16), np.float32)
    Image.fromarray(deeper).save(tmp_path / "white.tif", tiffinfo={262: 0})
    with pytest.raises(ValueError, match=r"white\.tif: .*white is zero in more than 16 bits"):
        decode([tmp_path / "white.tif"])


def test_eight_bits_stay_eight_bits(tmp_path: Path) -> None:
    pixels = random_bytes(10, 10)
    found = decode([save(tmp_path / "a.png", pixels)])
    assert found.images.dtype == np.uint8
    assert (found.low, found.high) == (0, 255)
    assert np.array_equal(found.images[0, 0], pixels)


def test_mixed_depths_and_nan_and_deep_colour_are_refused_by_name(tmp_path: Path) -> None:
    flat = save(tmp_path / "flat.png", random_bytes(16, 16))
    deep = save(tmp_path / "deep.png", ramp(4095))
    with pytest.raises(ValueError, match=r"deep\.png: has more than 8 bits a value, other images"):
        decode([flat, deep])
    nan = save(tmp_path / "nan.tif", np.full((16, 16), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match=r"nan\.tif: has NaN"):
        decode([nan])
    flat_float = save(tmp_path / "flat.tif", np.full((16, 16), 0.5, dtype=np.float32))
    with pytest.raises(ValueError, match=r"flat\.tif: this and all other images hold nothing but"):
        decode([flat_float])
    rgb16 = tmp_path / "rgb16.png"
    rgb16.write_bytes(sixteen_bit_colour())
    with pytest.raises(ValueError, match=r"rgb16\.png: has 16 bits a colour"):
        decode([rgb16])


def sixteen_bit_colour() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b"".join(b"\0" + bytes(16 * 6) for _ in range(16))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0))
    body = header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def drawing(ink: int) -> NDArray[np.uint8]:
    """A drawing that is in the alpha channel alone."""
    pixels = np.full((16, 16, 4), ink, dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[4:12, 4:12, 3] = 255
    return pixels


@pytest.mark.parametrize(("ink", "background"), [(0, 255), (255, 0), (128, 255)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_laid_where_they_can_be_seen(
    tmp_path: Path, ink: int, background: int, mode: str
) -> None:
    path = tmp_path / "a.png"
    if mode == "P":
        image = Image.fromarray((drawing(0)[..., 3] > 0).astype(np.uint8), "P")
        image.putpalette([9, 9, 9, ink, ink, ink])
        image.save(path, transparency=0)
    else:
        save(path, drawing(ink), mode)
    found = decode([path])
    assert found.transparent
    assert found.look.background == background
    assert found.images.shape == (1, 1, 16, 16)
    assert found.images[0, 0, 0, 0] == background
    assert found.images[0, 0, 8, 8] == ink


def test_one_background_serves_the_whole_set_or_it_is_refused(tmp_path: Path) -> None:
    black, white = save(tmp_path / "b.png", drawing(0)), save(tmp_path / "w.png", drawing(255))
    grey = save(tmp_path / "g.png", drawing(100))
    assert (decode([white, grey]).images[:, 0, 0, 0] == 0).all()
    with pytest.raises(ValueError, match=r"b\.png: is transparent and blank on black"):
        decode([white, black], like=decode([white]).look)
    with pytest.raises(ValueError, match="is transparent and blank on"):
        decode([white, black])


def test_colours_are_found_or_asked_for(tmp_path: Path) -> None:
    grey = np.repeat(random_bytes(10, 10, 1), 3, axis=2)
    files = [save(tmp_path / "a.png", random_bytes(10, 10)), save(tmp_path / "g.png", grey)]
    assert decode(files).images.shape == (2, 1, 10, 10)
    assert decode(files, channels=3).images.shape == (2, 3, 10, 10)
    files.append(save(tmp_path / "c.png", random_bytes(10, 10, 3)))
    coloured = decode(files).images
    assert np.array_equal(coloured[1], grey.transpose(2, 0, 1))
    assert np.array_equal(coloured[0, 0], coloured[0, 2])
    assert decode(files, channels=1).images.shape == (3, 1, 10, 10)


def test_a_digest_does_not_depend_on_resolution_channels_or_format(tmp_path: Path) -> None:
    pixels = random_bytes(10, 10)
    files = [save(tmp_path / "a.png", pixels), save(tmp_path / "a.bmp", pixels)]
    files.append(save(tmp_path / "rgb.png", np.repeat(pixels[..., None], 3, 2)))
    found = [decode(files), decode(files, 3), decode(files, 1, 8)]
    assert len({row.tobytes() for each in found for row in each.digests}) == 1


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    pixels = random_bytes(8, 8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode([tmp_path / "a.png"]).images[0, 0], np.rot90(pixels, -1))


def test_an_image_is_cropped_about_its_centre(tmp_path: Path) -> None:
    wide = np.zeros((8, 24), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert (decode([save(tmp_path / "wide.png", wide)], resolution=8).images == 200).all()


def test_sizes_that_differ_need_a_resolution(tmp_path: Path) -> None:
    files = [save(tmp_path / "a.png", random_bytes(10, 10))]
    files.append(save(tmp_path / "odd.png", random_bytes(10, 12)))
    with pytest.raises(ValueError, match=r"odd\.png: is 12x10 pixels, a\.png 10x10; give a resol"):
        decode(files)
    assert decode(files, resolution=8).images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    whole = save(tmp_path / "a.png", random_bytes(10, 10)).read_bytes()
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole[:-40] if content is None else content)
    with pytest.raises(ValueError, match=r"broken\.png: is no readable image") as error:
        decode([tmp_path / "a.png", broken])
    assert "\n" not in str(error.value)


def test_all_unreadable_images_are_named_up_to_a_few(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.png", random_bytes(10, 10, seed=k)) for k in range(12)]
    for path in files[3:10]:  # Their headers are sound.
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        ValueError, match=r"7 files are no readable images: .*7\.png and 2 more$"
    ) as e:
        decode(files)
    for path in files[4:6]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 files are no readable images: .*4\.png, .*5\.png$"):
        decode(files)
    assert "\n" not in str(e.value)


def test_a_few_images_in_colour_among_grey_ones_are_noted(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.png", random_bytes(10, 10, seed=k)) for k in range(5)]
    assert decode(files).notes == ()
    save(files[2], random_bytes(10, 10, 3))
    assert decode(files).notes == (
        f"of 5 images all but 1 are grey ({files[2]} is in colour): all are read as colour; "
        "channels: 1 reads all as grey",
    )
    assert decode(files, channels=3).notes == decode(files, channels=1).notes == ()
    for path in files[1:4]:  # Now it is a set of photographs, of which some are grey.
        save(path, random_bytes(10, 10, 3))
    assert decode(files).notes == ()


def test_no_interpreter_is_started_for_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(ValueError, match="is no readable image"):
        decode([tmp_path / "a.png"])


def test_images_that_claim_too_much_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path, out = tmp_path / "a.png", io.BytesIO()
    Image.new("1", (9000, 9000)).save(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"a\.png: .*9000 x 9000 pixels, at most 67,108,864"):
        decode([path])
    Image.fromarray(random_bytes(8, 8)).save(out, format="JPEG", progressive=True)
    content = out.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + 200 * scan + content[-2:])
    with pytest.raises(ValueError, match=r"a\.png: .* scans, at most 100 are read"):
        decode([path])
    path.write_bytes(content)
    assert decode([path]).images.shape == (1, 1, 8, 8)


def test_further_frames_are_counted(tmp_path: Path) -> None:
    frames = [Image.fromarray(random_bytes(8, 8, seed=k)) for k in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode([tmp_path / "a.gif", save(tmp_path / "b.png", random_bytes(8, 8))]).several == 1


def test_many_files_come_in_order_with_progress(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.png", np.full((8, 8), k, dtype=np.uint8)) for k in range(90)]
    told: list[tuple[int, int]] = []
    found = decode(files, progress=lambda done, total, note: told.append((done, total)))
    assert found.images[:, 0, 0, 0].tolist() == list(range(90))
    assert told[-1] == (90, 90)
    assert images.TOGETHER > 90

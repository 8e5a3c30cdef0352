"""ImageNet's photographs: from their files to crops of one size, and what RandAugment does to them."""

import io
import tarfile

import jax.image
import numpy as np
import pytest
from PIL import Image

from timetrial.errors import UserError
from timetrial.full import crops, photographs, randaugment
from timetrial.full.crops import Box


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def jpeg(image_hwc):
    file = io.BytesIO()
    Image.fromarray(image_hwc).save(file, "JPEG", quality=95)
    return file.getvalue()


def tar_of(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


# Files


def test_training_images_have_the_class_of_their_tar_among_the_sorted_wordnet_numbers(tmp_path):
    inner = {
        "n01443537.tar": tar_of({"n01443537_2.JPEG": b"b"}),
        "n15075141.tar": tar_of({"n15075141_9.JPEG": b"c"}),
        "n01440764.tar": tar_of({"n01440764_18.JPEG": b"a", "n01440764_3.JPEG": b"aa"}),
    }
    (tmp_path / photographs.TRAIN).write_bytes(tar_of(inner))
    found = {name: (e["image"], e["label"]) for name, e in photographs.examples(tmp_path, "train")}
    assert found == {
        "n01440764_18.JPEG": (b"a", 0),
        "n01440764_3.JPEG": (b"aa", 0),
        "n01443537_2.JPEG": (b"b", 1),
        "n15075141_9.JPEG": (b"c", 999),
    }


def test_validation_images_have_their_published_classes(tmp_path):
    # The first five as every list of the 50,000 has them: sea snake, alp, Shetland sheepdog, soup bowl, cradle.
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 6)]
    (tmp_path / photographs.VALID).write_bytes(tar_of({name: name.encode() for name in reversed(names)}))
    found = {name: e["label"] for name, e in photographs.examples(tmp_path, "valid")}
    assert [found[name] for name in names] == [65, 970, 230, 809, 516]


def test_test_images_have_the_class_of_their_folder(tmp_path):
    top = "imagenetv2-matched-frequency-format-val"
    (tmp_path / photographs.TEST).write_bytes(tar_of({f"{top}/7/a.jpeg": b"x", f"{top}/981/a.jpeg": b"y"}))
    found = {name: (e["image"], e["label"]) for name, e in photographs.examples(tmp_path, "test")}
    assert found == {"7/a.jpeg": (b"x", 7), "981/a.jpeg": (b"y", 981)}


def test_a_broken_tar_is_named(tmp_path):
    (tmp_path / photographs.VALID).write_bytes(b"no tar")
    with pytest.raises(UserError, match=rf"{photographs.VALID}.*is it whole"):
        next(photographs.examples(tmp_path, "valid"))


# Crops


def test_photographs_of_other_colours_and_formats_are_decoded_to_red_green_and_blue():
    grey, cmyk, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("L", (30, 20), 200).save(grey, "JPEG")
    Image.new("RGB", (30, 20), (255, 0, 0)).convert("CMYK").save(cmyk, "JPEG")
    Image.fromarray(noise(20, 30)).save(png, "PNG")
    assert (crops.decoded(grey.getvalue()) == 200).all()
    np.testing.assert_allclose(crops.decoded(cmyk.getvalue()), np.broadcast_to([255, 0, 0], (20, 30, 3)), atol=3)
    np.testing.assert_array_equal(crops.decoded(png.getvalue()), noise(20, 30))


@pytest.mark.parametrize("box", [Box(0, 0, 40, 60), Box(3, 5, 37, 20), Box(1, 0, 8, 9)])
def test_a_part_is_resized_bicubically_without_a_filter(box):
    image = noise(40, 60)
    part = image[box.top : box.top + box.height, box.left : box.left + box.width].astype(np.float32)
    expected = jax.image.resize(part, (16, 16, 3), "cubic", antialias=False)
    np.testing.assert_allclose(crops.resized(image, box, 16), np.clip(expected, 0, 255), atol=0.51)


def test_the_central_crop_is_that_of_a_side_of_256_pixels_cut_to_224():
    assert crops.central_box(256, 256) == Box(16, 16, 224, 224)
    assert crops.central_box(375, 500) == Box(24, 86, 328, 328)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (40, 41)])
def test_random_crops_lie_in_the_image_and_cover_a_tenth_at_an_aspect_within_bounds(height, width):
    rng = np.random.RandomState(0)
    for _ in range(300):
        top, left, h, w = crops.random_box(height, width, rng)
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
        assert h * w >= 0.1 * height * width
        assert 3 / 4 * h - 0.51 <= w <= 4 / 3 * h + 0.51


def test_heights_of_random_crops_are_uniform_between_the_smallest_and_the_largest():
    rng = np.random.RandomState(0)
    # In a square image of 1000 at aspect a a crop of a tenth is sqrt(1e5 / a) high, one that fits min(1000, 1000 / a).
    shares = []
    for _ in range(4000):
        _, _, h, w = crops.random_box(1000, 1000, rng)
        low, high = (1e5 / (w / h)) ** 0.5, min(1000, 1000 * h / w)
        shares.append((h - low) / (high - low))
    np.testing.assert_allclose(np.quantile(shares, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.03)


def test_an_image_too_narrow_for_a_random_crop_is_cropped_centrally():
    assert crops.random_box(1000, 20, np.random.RandomState(0)) == crops.central_box(1000, 20)


# RandAugment: each operation against its definition


def apply(name, image, seed=0):
    operation = getattr(randaugment, name)
    return np.asarray(operation(Image.fromarray(image), np.random.RandomState(seed)))


def luma(image):
    return np.rint(image @ [0.299, 0.587, 0.114])[..., None]


def away(image, other, weight=1.9):
    return np.clip(other + weight * (image.astype(float) - other), 0, 255)


def test_auto_contrast_stretches_each_colour():
    image = noise(16, 16) // 3 + np.array([0, 20, 100], np.uint8)
    low, high = image.min((0, 1)).astype(float), image.max((0, 1))
    np.testing.assert_allclose(apply("auto_contrast", image), 255 * (image - low) / (high - low), atol=1)


def test_equalize_gives_each_value_the_share_of_those_below_it():
    image = (noise(64, 64) // 8).astype(np.uint8) ** 2 // 4
    found = apply("equalize", image)
    for colour in range(3):
        before = image[..., colour]
        below = np.array([(before < value).sum() for value in range(256)])
        step = (before.size - (before == before.max()).sum()) // 255
        np.testing.assert_array_equal(found[..., colour], np.clip((below + step // 2) // step, 0, 255)[before])


def test_invert_is_the_negative():
    np.testing.assert_array_equal(apply("invert", noise(9, 9)), 255 - noise(9, 9))


def test_posterize_keeps_four_bits():
    np.testing.assert_array_equal(apply("posterize", noise(9, 9)), noise(9, 9) & 0xF0)


def test_solarize_changes_nothing_at_full_magnitude():
    np.testing.assert_array_equal(apply("solarize", noise(9, 9)), noise(9, 9))


def test_solarize_add_brightens_what_is_dark():
    image = noise(9, 9).astype(int)
    np.testing.assert_array_equal(apply("solarize_add", noise(9, 9)), np.where(image < 128, image + 110, image))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("color", luma),
        ("brightness", np.zeros_like),
        ("contrast", lambda image: np.full(image.shape, 20.0 * 30 // 256)),
    ],
)
def test_an_enhancement_moves_away_from_its_opposite(name, other):
    image = noise(20, 30)
    np.testing.assert_allclose(apply(name, image), away(image, other(image)), atol=2)


def test_contrast_moves_away_from_grey_196_in_a_cropped_image():
    image = np.full((224, 224, 3), 196, np.uint8)
    np.testing.assert_array_equal(apply("contrast", image), image)


def test_sharpness_moves_away_from_the_smoothed_image_but_at_its_edge():
    image = noise(12, 13).astype(float)
    smooth = image.copy()
    parts = [image[i : i + 10, j : j + 11] * (5 if i == j == 1 else 1) for i in range(3) for j in range(3)]
    smooth[1:-1, 1:-1] = sum(parts) / 13
    np.testing.assert_allclose(apply("sharpness", noise(12, 13)), away(image, smooth), atol=2)


def moved(image, place, shift):
    """The pixel at (y, x) is that of the image nearest to place(y, x), grey where there is none."""
    found = np.full(image.shape, 128, np.uint8)
    for y, x in np.ndindex(image.shape[:2]):
        v, u = (int(np.floor(p + 0.5 + shift)) for p in place(y, x))
        if 0 <= v < image.shape[0] and 0 <= u < image.shape[1]:
            found[y, x] = image[v, u]
    return found


def turned(height, width, degrees):
    angle = np.deg2rad(degrees)
    b, a = (height - 1) / 2, (width - 1) / 2
    return lambda y, x: (
        b + np.sin(angle) * (x - a) + np.cos(angle) * (y - b),
        a + np.cos(angle) * (x - a) - np.sin(angle) * (y - b),
    )


@pytest.mark.parametrize(
    ("name", "shape", "place"),
    [
        ("rotate", (31, 40), lambda s: turned(31, 40, 30 * s)),
        ("shear_x", (31, 40), lambda s: lambda y, x: (y, x + 0.3 * s * y)),
        ("shear_y", (31, 40), lambda s: lambda y, x: (y + 0.3 * s * x, x)),
        ("translate_x", (5, 120), lambda s: lambda y, x: (y, x + 100 * s)),
        ("translate_y", (120, 5), lambda s: lambda y, x: (y + 100 * s, x)),
    ],
)
def test_a_movement_goes_either_way_and_leaves_grey(name, shape, place):
    image = noise(*shape)
    # Shifted, because of two pixels that are as near either may be taken.
    both = [[moved(image, place(sign), shift) for shift in (-1e-3, 1e-3)] for sign in (1, -1)]
    seen = set()
    for seed in range(8):
        found = apply(name, image, seed)
        alike = [np.any([(found == e).all(-1) for e in expected], axis=0).all() for expected in both]
        assert any(alike)
        seen.add(alike.index(True))
    assert seen == {0, 1}


def test_cutout_covers_a_square_that_the_edge_may_cut():
    image = np.zeros((224, 224, 3), np.uint8)
    sizes = []
    for seed in range(200):
        covered = apply("cutout", image, seed)[..., 0] == 128
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        assert covered.sum() == len(rows) * len(columns)
        sizes += [len(rows), len(columns)]
    assert (min(sizes) >= 40, max(sizes)) == (True, 80)


def test_two_operations_are_drawn_evenly_from_sixteen(monkeypatch):
    counts = np.zeros(16, int)

    def counting(place):
        def count(image, rng):
            counts[place] += 1
            return image

        return count

    monkeypatch.setattr(randaugment, "OPERATIONS", tuple(map(counting, range(len(randaugment.OPERATIONS)))))
    rng = np.random.RandomState(0)
    for _ in range(1600):
        np.testing.assert_array_equal(randaugment.randaugmented(noise(2, 2), rng), noise(2, 2))
    assert counts.sum() == 3200
    assert counts.min() > 140
    assert counts.max() < 260


def test_the_twins_photographs_are_jpegs_with_the_colour_of_their_class():
    rows = list(photographs.twin("train", np.random.RandomState(0), 40))
    assert len({name for name, _ in rows}) == 40
    red = [crops.decoded(e["image"]).mean((0, 1)) @ [1, -0.5, -0.5] for _, e in rows if e["label"] == 1]
    others = [crops.decoded(e["image"]).mean((0, 1)) @ [1, -0.5, -0.5] for _, e in rows if e["label"] != 1]
    assert min(red) > max(others)

"""ImageNet's photographs: from their files to crops of one size, and what RandAugment does to them."""

import io
import sys
import tarfile
from dataclasses import replace

import jax.image
import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest

from timetrial.data import SPLITS
from timetrial.errors import UserError
from timetrial.full import crops, imagenet, photograph_rows, photographs, randaugment
from timetrial.full.crops import Box
from timetrial.full.recorded import Recorded
from timetrial.registry import load_workload


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


def examples(folder, split):
    return [[(e["image"], e["label"]) for e in part()] for part in photographs.parts(folder, folder, split)]


def test_training_images_have_the_class_of_their_tar_among_the_sorted_wordnet_numbers(tmp_path):
    inner = {
        "n01443537.tar": tar_of({"n01443537_2.JPEG": b"b"}),
        "n15075141.tar": tar_of({"n15075141_9.JPEG": b"c"}),
        "n01440764.tar": tar_of({"n01440764_18.JPEG": b"a", "n01440764_3.JPEG": b"aa"}),
    }
    (tmp_path / photographs.TRAIN).write_bytes(tar_of(inner))
    assert examples(tmp_path, "train") == [[(b"a", 0), (b"aa", 0)], [(b"b", 1)], [(b"c", 999)]]


def test_validation_images_have_their_published_classes(tmp_path):
    # The first five as every list of the 50,000 has them: sea snake, alp, Shetland sheepdog, soup bowl, cradle.
    published = {1: 65, 2: 970, 3: 230, 4: 809, 5: 516}
    images = {f"ILSVRC2012_val_{number:08}.JPEG": b"%d" % number for number in reversed(published)}
    (tmp_path / photographs.VALID).write_bytes(tar_of(images))
    [found] = examples(tmp_path, "valid")
    assert {int(image): label for image, label in found} == published


def test_test_images_have_the_class_of_their_folder(tmp_path):
    top = "imagenetv2-matched-frequency-format-val"
    (tmp_path / photographs.TEST).write_bytes(tar_of({f"{top}/7/a.jpeg": b"x", f"{top}/981/a.jpeg": b"y"}))
    assert examples(tmp_path, "test") == [[(b"x", 7), (b"y", 981)]]


def test_raw_files_become_records_whose_rows_are_cropped(tmp_path):
    images = [jpeg(noise(40, 50, seed)) for seed in range(3)]
    raw = tmp_path / "raw" / "imagenet2012"
    raw.mkdir(parents=True)
    (raw / photographs.TRAIN).write_bytes(tar_of({"n01443537.tar": tar_of({"n01443537_2.JPEG": images[0]})}))
    (raw / photographs.VALID).write_bytes(tar_of({"ILSVRC2012_val_00000001.JPEG": images[1]}))
    (raw / photographs.TEST).write_bytes(tar_of({"imagenetv2/7/a.jpeg": images[2]}))
    layout = replace(photographs.LAYOUT, raw=[], sizes=dict.fromkeys(SPLITS, 1), space_bytes=0)
    dataset = Recorded.of(layout, photograph_rows.CROPPED)
    for split, image, label in zip(SPLITS, images, (1, 65, 7), strict=True):
        rows = dataset.rows(split, tmp_path).take(np.array([0]), None)
        central = crops.resized(crops.decoded(image), crops.central_box(40, 50), 224)
        np.testing.assert_array_equal(rows["image"], central[None])
        assert rows["label"].tolist() == [label]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_broken_tar_is_named(tmp_path, split):
    for name in (photographs.TRAIN, photographs.VALID):
        (tmp_path / name).write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"ILSVRC2012_img_\w+\.tar, as a tar file: .*is it whole"):
        examples(tmp_path, split)


# Crops


def test_photographs_of_other_colours_and_formats_are_decoded_to_red_green_and_blue():
    grey, cmyk, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("L", (30, 20), 200).save(grey, "JPEG")
    Image.new("RGB", (30, 20), (255, 0, 0)).convert("CMYK").save(cmyk, "JPEG")
    Image.fromarray(noise(20, 30)).save(png, "PNG")
    assert (crops.decoded(grey.getvalue()) == 200).all()
    np.testing.assert_allclose(crops.decoded(cmyk.getvalue()), np.broadcast_to([255, 0, 0], (20, 30, 3)), atol=3)
    np.testing.assert_array_equal(crops.decoded(png.getvalue()), noise(20, 30))


def test_without_pillow_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UserError, match=r"pip install 'timetrial\[full\]'"):
        crops.decoded(b"")


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
    drawn = [np.random.RandomState(seed)] if operation in randaugment.DRAWN else []
    return np.asarray(operation(Image.fromarray(image), *drawn))


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


@pytest.mark.parametrize("name", ["invert", "solarize"])
def test_invert_is_the_negative_and_so_is_solarize_at_full_magnitude(name):
    np.testing.assert_array_equal(apply(name, noise(9, 9)), 255 - noise(9, 9))


def test_posterize_keeps_four_bits():
    np.testing.assert_array_equal(apply("posterize", noise(9, 9)), noise(9, 9) & 0xF0)


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
        def count(image, *drawn):
            counts[place] += 1
            return image

        return count

    operations = [counting(place) for place in range(16)]
    sure = len(randaugment.SURE)
    assert sure + len(randaugment.DRAWN) == 16
    monkeypatch.setattr(randaugment, "SURE", operations[:sure])
    monkeypatch.setattr(randaugment, "DRAWN", operations[sure:])
    image, rng = noise(2, 2), np.random.RandomState(0)
    for _ in range(800):
        randaugment.randaugmented(image, rng)
    assert counts.sum() == 1600
    assert counts.min() > 60
    assert counts.max() < 140


# Rows


@pytest.fixture(scope="module")
def twins():
    return list(photographs.twin("train", np.random.RandomState(0), 40))


@pytest.mark.parametrize(
    ("base", "make"), [("imagenet_resnet", photograph_rows.cropped), ("imagenet_vit", photograph_rows.augmented)]
)
@pytest.mark.parametrize("seed", [None, 3])
def test_rows_have_the_fields_of_the_workload(twins, base, make, seed):
    workload = load_workload(base)
    for example in twins[:4]:
        row = make(example, seed if seed is None else np.random.RandomState(seed))
        assert {name: (array.dtype, array.shape) for name, array in row.items()} == {
            name: (field.dtype, field.shape) for name, field in workload.fields.items()
        }
        assert row["label"] == example["label"]


def test_both_workloads_read_the_same_records_and_one_mixes_them(tmp_path):
    resnet, vit = (load_workload(f"imagenet_{model}").data for model in ("resnet", "vit"))
    assert resnet.folder(tmp_path) == vit.folder(tmp_path)
    assert (resnet, vit) == (imagenet.DATASET, imagenet.MIXED_DATASET)
    assert (imagenet.DATASET.pipeline.mix, imagenet.MIXED_DATASET.pipeline.mix) == (None, photograph_rows.mixed)


def test_a_row_that_is_evaluated_is_the_central_crop(twins):
    image = crops.decoded(twins[0]["image"])
    central = crops.resized(image, crops.central_box(*image.shape[:2]), 224)
    cropped, unmixed = photograph_rows.cropped(twins[0], None), photograph_rows.augmented(twins[0], None)
    np.testing.assert_array_equal(cropped["image"], central)
    np.testing.assert_array_equal(unmixed["image"], central)
    assert (unmixed["second_label"], unmixed["share"]) == (twins[0]["label"], 1)


@pytest.mark.parametrize("row", [photograph_rows.cropped, photograph_rows.augmented])
def test_a_training_row_depends_on_its_random_numbers_alone(twins, row):
    first, again, other = (row(twins[0], np.random.RandomState(seed))["image"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_half_of_the_training_rows_are_flipped(twins, monkeypatch):
    monkeypatch.setattr(crops, "random_box", lambda height, width, rng: crops.central_box(height, width))
    straight = photograph_rows.cropped(twins[0], None)["image"]
    rows = [photograph_rows.cropped(twins[0], np.random.RandomState(seed))["image"] for seed in range(40)]
    flipped = [(row == straight[:, ::-1]).all() for row in rows]
    assert [not f for f in flipped] == [(row == straight).all() for row in rows]
    assert 10 < sum(flipped) < 30


def test_two_rows_are_mixed_in_one_proportion_with_their_labels(twins):
    rows = [photograph_rows.augmented(example, None) for example in twins[:2]]
    a, b = (row["image"].astype(float) for row in rows)
    first, second = photograph_rows.mixed(rows[0], rows[1], np.random.RandomState(5))
    share = first["share"]
    assert 0 < share < 1
    assert second["share"] == share
    np.testing.assert_allclose(first["image"], share * a + (1 - share) * b, atol=0.51)
    np.testing.assert_allclose(second["image"], share * b + (1 - share) * a, atol=0.51)
    labels = [[row[name] for name in ("label", "second_label")] for row in (first, second)]
    assert labels == [[twins[0]["label"], twins[1]["label"]], [twins[1]["label"], twins[0]["label"]]]


def test_shares_have_the_beta_distribution_of_mixup():
    pixel = {"image": np.zeros((1, 1, 3), np.uint8), "label": np.zeros((), np.int32)}
    shares = [photograph_rows.mixed(pixel, pixel, np.random.RandomState(seed))[0]["share"] for seed in range(2000)]
    assert kstest(shares, "beta", args=(0.2, 0.2)).pvalue > 0.01


def test_the_twins_photographs_have_the_colour_of_their_class(twins):
    redness = {True: [], False: []}
    for example in twins:
        redness[example["label"] == 1].append(crops.decoded(example["image"]).mean((0, 1)) @ [1, -0.5, -0.5])
    assert min(redness[True]) > max(redness[False])

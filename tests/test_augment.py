import pytest
import torch

from snnbook import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randint(1, 256, (40, 3, 8, 9), generator=generator(1), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_cuts_every_image_out_of_its_padded_self(x, dtype):
    x = x.to(dtype)
    out = augment.random_crop(x, generator(), padding=2)
    padded = torch.nn.functional.pad(x, [2] * 4)
    assert out.shape == x.shape and out.dtype == dtype
    found = set()
    for image, big in zip(out, padded, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if big[:, i : i + 8, j : j + 9].equal(image)]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 12  # 25 places for 40 images
    assert augment.random_crop(x, generator(), padding=0).equal(x)


def test_flip_mirrors_about_half_and_nothing_else(x):
    out = augment.random_flip(x, generator())
    mirrored = [bool(a.equal(b.flip(-1))) for a, b in zip(out, x, strict=True)]
    assert all(m or a.equal(b) for m, a, b in zip(mirrored, out, x, strict=True))
    assert 10 < sum(mirrored) < 30
    assert augment.random_flip(x, generator(), p=1).equal(x.flip(-1))
    assert augment.random_flip(x, generator(), p=0).equal(x)


def test_cutout_sets_one_square_to_zero(x):
    out = augment.cutout(x, generator(), size=4)
    whole = 0
    for image, before in zip(out, x, strict=True):
        hole = image[0] == 0  # the images hold no zeros
        rows, columns = hole.any(1).sum().item(), hole.any(0).sum().item()
        assert hole.sum() == rows * columns and 1 <= rows <= 4 and 1 <= columns <= 4
        assert image.equal(before.masked_fill(hole, 0))
        whole += rows == columns == 4
    assert whole > 5
    assert x.min() > 0, "the batch given is not changed"
    assert augment.cutout(x, generator(), size=40).eq(0).all()


@pytest.mark.parametrize(("most", "shifts"), [(None, 9), (2, 5)])
def test_shift_rolls_every_map_along_its_width(x, most, shifts):
    out = augment.random_shift(x, generator(), *([] if most is None else [most]))
    width, found = x.shape[3], []
    for rolled, before in zip(out, x, strict=True):
        places = [k for k in range(width) if rolled.equal(before.roll(k, -1))]
        assert len(places) == 1
        found += [min(places[0], width - places[0])]
    assert max(found) <= (most or width) and len(set(found)) == (shifts + 1) // 2
    assert augment.augmentation("shift2")(x, generator()).equal(augment.random_shift(x, generator(), 2))


def test_the_same_seed_gives_the_same_images(x):
    standard = augment.standard(padding=2, cutout_size=3)
    assert standard(x, generator()).equal(standard(x, generator()))
    assert not standard(x, generator()).equal(standard(x, generator(1)))


def test_compose_applies_in_turn_from_one_generator(x):
    both = augment.compose(augment.random_flip, augment.random_crop)(x, generator())
    g = generator()
    assert both.equal(augment.random_crop(augment.random_flip(x, g), g))
    assert augment.standard(flip=False)(x, generator()).equal(augment.random_crop(x, generator()))


def test_names_stand_for_augmentations(x):
    named = augment.augmentation("crop2, flip,cutout3")(x, generator())
    assert named.equal(augment.standard(padding=2, cutout_size=3)(x, generator()))
    for bad in ("blur", "flip2", ""):
        with pytest.raises(ValueError, match="augmentation"):
            augment.augmentation(bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, g: augment.random_crop(x[0], g),
        lambda x, g: augment.random_crop(x, g, padding=-1),
        lambda x, g: augment.random_flip(x, g, p=1.5),
        lambda x, g: augment.cutout(x, g, size=0),
        lambda x, g: augment.random_shift(x, g, most=0),
    ],
)
def test_bad_arguments_are_named(x, call):
    with pytest.raises(ValueError, match="is not allowed"):
        call(x, generator())

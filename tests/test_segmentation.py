"""Palettes and the FCN score: hand-computed cases, scikit-learn's metrics, and what must never be resized."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from p2p_jax.data.toy.facades import render
from p2p_jax.errors import InputError
from p2p_jax.evaluation import segmentation
from p2p_jax.evaluation.segmentation import confusion_matrix, fcn_score, palette_score, scores
from p2p_jax.images import palettes
from p2p_jax.images.palettes import CITYSCAPES, CMP_FACADES, PIX2PIX_FACADES, VOID, Palette
from support.images import noise

TWO = Palette(("dark", "light"), np.array([[0, 0, 0], [255, 255, 255]], np.uint8))


# Palettes


@pytest.mark.parametrize("palette", palettes.BUILT_IN.values(), ids=palettes.BUILT_IN)
def test_every_colour_is_its_own_class_under_noise(palette):
    """Noise below half the distance between two colours changes no label."""
    everything = np.concatenate([palette.colors, palette.void]).astype(int)
    distances = np.linalg.norm(everything[:, None] - everything, axis=-1)
    room = int((distances[distances > 0].min() - 1) / 2 / np.sqrt(3))
    labels = noise(40, 50, low=0, high=len(everything), dtype=np.int32)
    image = np.clip(everything[labels] + noise(40, 50, 3, low=-room, high=room + 1, seed=1, dtype=int), 0, 255).astype(
        np.uint8
    )
    expected = np.where(labels < len(palette.names), labels, VOID)
    np.testing.assert_array_equal(palettes.true_labels(image, palette), expected)
    known = labels < len(palette.names)
    np.testing.assert_array_equal(palettes.nearest_labels(image, palette)[known], labels[known])


def test_nearest_labels_are_the_nearest():
    image = noise(30, 20, 3)
    for palette in palettes.BUILT_IN.values():
        squares = (image[..., None, :].astype(int) - palette.colors.astype(int)) ** 2
        labels = palettes.nearest_labels(image, palette)
        np.testing.assert_array_equal(labels, squares.sum(-1).argmin(-1))
        assert labels.dtype == np.int32 and labels.shape == (30, 20)


def test_toy_facades_give_back_their_classes():
    facade = render(3, "test", 64)
    np.testing.assert_array_equal(palettes.true_labels(facade.labels, CMP_FACADES), facade.classes)


def test_cityscapes_colours():
    assert len(CITYSCAPES.names) == 19
    assert dict(zip(CITYSCAPES.names, CITYSCAPES.colors.tolist(), strict=True))["rider"] == [255, 0, 0]
    ego_vehicle_and_road = np.array([[0, 0, 0], [128, 64, 128]], np.uint8)
    assert palettes.true_labels(ego_vehicle_and_road, CITYSCAPES).tolist() == [VOID, 0]
    assert palettes.nearest_labels(ego_vehicle_and_road, CITYSCAPES).tolist() == [14, 0]  # black is nearest to a truck


def test_palettes_are_recognised_by_their_colours():
    classes = [render(i, "train", 64).classes for i in range(4)]
    for name in ("cmp_facades", "pix2pix_facades"):
        maps = [palettes.BUILT_IN[name].colors[x] for x in classes]
        assert palettes.recognise(maps) == name
        palettes.check_palette(maps, palettes.BUILT_IN[name])
    with pytest.raises(InputError, match="away from every colour of the palette; pix2pix_facades fits them"):
        palettes.check_palette(maps, CMP_FACADES)
    photos = [render(i, "train", 64).photo for i in range(4)]
    assert palettes.recognise(photos) is None
    with pytest.raises(InputError, match="are they photographs"):
        palettes.check_palette(photos, PIX2PIX_FACADES)


def test_palette_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"wall": [200, 0, 0], "door": [0, 10, 255], "void": [[0, 0, 0]]}')
    palette = palettes.find_palette(str(path))
    assert palette.names == ("wall", "door")
    assert palette.colors.tolist() == [[200, 0, 0], [0, 10, 255]] and palette.void.tolist() == [[0, 0, 0]]
    for built_in in [*palettes.BUILT_IN.values(), palette]:
        again = palettes.palette_from_json(json.loads(json.dumps(built_in.to_json())))
        assert again.names == built_in.names
        np.testing.assert_array_equal(again.colors, built_in.colors)
        np.testing.assert_array_equal(again.void, built_in.void)
    assert palettes.find_palette("cityscapes") is CITYSCAPES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be used"),
        ("[]", "it must be"),
        ("{}", "0 classes"),
        ('{"void": [[0, 0, 0]]}', "0 classes"),
        ('{"a": [0, 0, 0], "void": [0, 0, 0]}', "'void 0' is 0"),
        ('{"a": [0, 0, 256]}', "'a' is .*three whole numbers"),
        ('{"a": [0, 0.5, 1]}', "'a' is"),
        ('{"a": "#ff0000"}', "'a' is"),
        ('{"a": [1, 2, 3], "b": [1, 2, 3]}', r"the colour \[1, 2, 3\] is in it 2 times"),
    ],
)
def test_wrong_palettes(tmp_path, text, message):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        palettes.find_palette(str(path))


def test_missing_palette_and_wrong_image():
    with pytest.raises(InputError, match="there is no palette 'cmp': choose cmp_facades, pix2pix_facades, cityscapes"):
        palettes.find_palette("cmp")
    with pytest.raises(InputError, match="must be uint8"):
        palettes.nearest_labels(np.zeros((4, 4, 3), np.float32), TWO)
    with pytest.raises(InputError, match="must be uint8"):
        palettes.nearest_labels(np.zeros((4, 4, 1), np.uint8), TWO)


# Metrics


def test_scores_by_hand():
    # class 0: 3 right of 4; class 1: 1 right of 2; class 2 is told twice but never true; class 3 does not occur.
    truth = np.array([[0, 0, 0, 0], [1, 1, 255, 255]])
    predicted = np.array([[0, 0, 0, 2], [2, 1, 0, 9]])
    confusion = confusion_matrix(truth, predicted, 4)
    assert confusion.tolist() == [[3, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert confusion.dtype == np.int64
    found = scores(confusion)
    assert found.pixel_accuracy == pytest.approx(4 / 6)
    assert found.class_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.class_iou == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    np.testing.assert_allclose(found.per_class_accuracy, [3 / 4, 1 / 2, np.nan, np.nan])
    np.testing.assert_allclose(found.per_class_iou, [3 / 4, 1 / 2, 0, np.nan])


def test_perfect_and_hopeless():
    truth = noise(8, 8, low=0, high=3)
    assert scores(confusion_matrix(truth, truth, 3))[:3] == (1, 1, 1)
    assert scores(confusion_matrix(truth, (truth + 1) % 3, 3))[:3] == (0, 0, 0)


@pytest.mark.parametrize("num_classes", [2, 7, 19])
def test_scores_are_those_of_scikit_learn(num_classes):
    truth = noise(3, 20, 30, low=0, high=num_classes + 2, seed=1)  # two of the numbers are no class
    guess = noise(3, 20, 30, low=0, high=num_classes, seed=2)
    predicted = np.where(noise(3, 20, 30, low=0, high=2, seed=3), truth, guess) % num_classes
    predicted[predicted == 1] = 0  # a class that is never told
    known = truth < num_classes
    true, told = truth[known], predicted[known]
    confusion = sum(confusion_matrix(t, p, num_classes) for t, p in zip(truth, predicted, strict=True))
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(true, told, labels=range(num_classes)))
    found = scores(confusion)
    assert found.pixel_accuracy == pytest.approx(metrics.accuracy_score(true, told))
    assert found.class_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, told))
    assert found.class_iou == pytest.approx(metrics.jaccard_score(true, told, average="macro"))
    np.testing.assert_allclose(found.per_class_iou, metrics.jaccard_score(true, told, average=None))
    np.testing.assert_allclose(found.per_class_accuracy, metrics.recall_score(true, told, average=None))


def test_confusion_refuses_what_it_cannot_count():
    truth = np.array([0, 1, 255], np.uint8)
    assert confusion_matrix(truth, np.array([0, 1, 77]), 2).tolist() == [[1, 0], [0, 1]]  # void, whatever is told
    with pytest.raises(InputError, match="labels 0 to 18 were predicted, but the classes are 0 to 1: the segmenter"):
        confusion_matrix(truth, np.array([0, 18, 0]), 2)
    with pytest.raises(InputError, match="labels -1 to 1"):
        confusion_matrix(truth, np.array([-1, 1, 0]), 2)
    with pytest.raises(InputError, match="have the same shape"):
        confusion_matrix(truth, np.array([0, 1]), 2)
    with pytest.raises(InputError, match="predicted labels must be whole numbers, not float64"):
        confusion_matrix(truth, np.array([0.0, 1.0, 0.0]), 2)
    with pytest.raises(InputError, match="no pixel has a true class"):
        scores(np.zeros((2, 2), np.int64))


# The protocol


class Recorder:
    """A segmenter that calls bright pixels class 1, and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, images):
        self.shown.append(images)
        return (images.astype(int).sum(-1) > 382).astype(np.int64)


def test_fcn_score_resizes_images_and_never_labels():
    """One confusion over images of several sizes equals what Pillow and scikit-learn give image by image."""
    sizes = [(32, 48), (16, 16), (32, 48), (16, 16), (32, 48), (8, 40)]
    images = [noise(16, 16, 3, seed=i) for i in range(len(sizes))]
    truths = [noise(*size, low=0, high=3, seed=i) for i, size in enumerate(sizes)]  # 2 is no class here
    before = [truth.copy() for truth in truths]
    segmenter = Recorder()
    found = fcn_score(iter(images), iter(truths), segmenter, 2, batch_size=2)

    assert [batch.shape[:3] for batch in segmenter.shown] == [(2, 32, 48), (2, 16, 16), (1, 32, 48), (1, 8, 40)]
    true, told = [], []
    for image, truth, kept in zip(images, truths, before, strict=True):
        np.testing.assert_array_equal(truth, kept)
        bilinear = Image.fromarray(image).resize(truth.shape[::-1], Image.Resampling.BILINEAR)
        true.append(truth[truth < 2])
        told.append(Recorder()(np.asarray(bilinear)[None])[0][truth < 2])
    true, told = np.concatenate(true), np.concatenate(told)
    assert found.pixel_accuracy == pytest.approx(metrics.accuracy_score(true, told))
    assert found.class_iou == pytest.approx(metrics.jaccard_score(true, told, average="macro"))
    np.testing.assert_array_equal(segmenter.shown[1][0], images[1])  # of the labels' size already: as it is


def test_batches_do_not_change_the_score():
    images = [noise(12, 12, 3, seed=i) for i in range(7)]
    truths = [noise(12, 12, low=0, high=2, seed=10 + i) for i in range(7)]
    found = {fcn_score(images, truths, Recorder(), 2, batch_size=size) for size in (1, 3, 7, 64)}
    assert len(found) == 1


def test_palette_score():
    """What is drawn in the true colours is all right; a quarter drawn in another colour costs a quarter."""
    facades = [render(i, "test", 64) for i in range(3)]
    truths = [facade.classes for facade in facades]
    assert palette_score([facade.labels for facade in facades], truths, CMP_FACADES)[:3] == (1, 1, 1)
    drawn = np.full((4, 4, 3), 10, np.uint8)
    drawn[:2, :2] = 240
    found = palette_score([drawn], [np.zeros((16, 16), int)], TWO)  # enlarged by the nearest pixel
    assert found.pixel_accuracy == 0.75 and found.class_iou == 0.375
    three = Palette((*TWO.names, "grey"), np.concatenate([TWO.colors, [[128, 128, 128]]]).astype(np.uint8))
    step = np.repeat(np.array([[0, 255]], np.uint8)[..., None], 3, axis=-1)
    assert palette_score([step], [np.array([[0, 0, 0, 1, 1, 1]])], three).pixel_accuracy == 1  # no grey between


def test_fcn_score_refuses():
    image, truth = noise(8, 8, 3), noise(8, 8, low=0, high=2)
    with pytest.raises(InputError, match="more images than label maps"):
        fcn_score([image, image], [truth], Recorder(), 2)
    with pytest.raises(InputError, match="more label maps than images"):
        fcn_score([image], [truth, truth], Recorder(), 2)
    with pytest.raises(InputError, match="no image to score"):
        fcn_score([], [], Recorder(), 2)
    with pytest.raises(InputError, match="images must be uint8"):
        fcn_score([image / 255], [truth], Recorder(), 2)
    with pytest.raises(InputError, match=r"labels must be \[H, W\]"):
        fcn_score([image], [truth[..., None]], Recorder(), 2)
    with pytest.raises(InputError, match="it must give a label for every pixel"):
        fcn_score([image], [truth], lambda images: images[:, ::2, ::2, 0], 2)
    with pytest.raises(InputError, match="the segmenter was made for other classes"):
        fcn_score([image], [truth], lambda images: np.full(images.shape[:3], 18), 2)


def test_find_segmenter(monkeypatch, tmp_path):
    module = types.ModuleType("my_lab")
    module.segmenter, module.number = Recorder(), 3
    monkeypatch.setitem(sys.modules, "my_lab", module)
    assert segmentation.find_segmenter("my_lab:segmenter") is module.segmenter
    with pytest.raises(InputError, match="'my_lab:number' is not a segmenter"):
        segmentation.find_segmenter("my_lab:number")
    with pytest.raises(InputError, match="there is no segmenter nowhere"):
        segmentation.find_segmenter("nowhere")
    with pytest.raises(InputError, match="is not a segmenter"):
        segmentation.find_segmenter(str(tmp_path))

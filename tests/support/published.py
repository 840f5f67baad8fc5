"""Names of files as published data sets have them: folders, ends and beginnings, and how many of each."""

from collections.abc import Iterator


def voc() -> Iterator[str]:
    """Yield Pascal VOC: masks of classes and of objects, of a part of the photographs."""
    for i in range(24):
        yield f"VOC2012/JPEGImages/2007_{i:06d}.jpg"
        if i % 2:
            yield f"VOC2012/SegmentationClass/2007_{i:06d}.png"
            yield f"VOC2012/SegmentationObject/2007_{i:06d}.png"


def celeba_mask() -> Iterator[str]:
    """Yield CelebAMask-HQ: a mask of each part of a face, with other numbers, and not of every face."""
    for i in range(12):
        yield f"CelebA-HQ-img/{i}.jpg"
        for part in ("skin", "hair", "nose", "l_brow", "r_brow", "u_lip", "hat"):
            if part != "hat" or i % 4 == 0:
                yield f"CelebAMask-HQ-mask-anno/{i // 6}/{i:05d}_{part}.png"


def diode() -> Iterator[str]:
    """Yield DIODE: photographs, depths and where these are known, in folders of scenes."""
    for split in ("train", "val"):
        for scan in ("scene_00000/scan_00000", "scene_00001/scan_00002"):
            for i in range(4):
                stem = f"{split}/indoors/{scan}/{scan[8:11]}{scan[-3:]}_indoors_{i:03d}_000"
                yield from (f"{stem}.png", f"{stem}_depth.npy", f"{stem}_depth_mask.npy")


def drive() -> Iterator[str]:
    """Yield DRIVE: retinas, the vessels by hand, and the field of view."""
    for split, first in (("training", 21), ("test", 1)):
        for i in range(first, first + 8):
            yield f"{split}/images/{i:02d}_{split}.tif"
            yield f"{split}/1st_manual/{i:02d}_manual1.png"
            yield f"{split}/mask/{i:02d}_{split}_mask.png"


def mapillary() -> Iterator[str]:
    """Yield Mapillary Vistas: three kinds of maps of every photograph, and tests without any."""
    for split in ("training", "validation", "testing"):
        for i in range(6):
            stem = f"{'abc'[i % 3]}{i}{split[:2]}X_-q"
            yield f"{split}/images/{stem}.jpg"
            if split != "testing":
                yield from (f"{split}/{kind}/{stem}.png" for kind in ("instances", "labels", "panoptic"))


def kitti() -> Iterator[str]:
    """Yield KITTI's semantics: two cameras and three kinds of maps."""
    for split, kinds in (("training", ("instance", "semantic", "semantic_rgb")), ("testing", ())):
        for kind in ("image_2", "image_3", *kinds):
            yield from (f"{split}/{kind}/{i:06d}_10.png" for i in range(8))


def cvppp() -> Iterator[str]:
    """Yield CVPPP: plants, leaves and their centers in one folder."""
    for i in range(1, 13):
        yield from (f"A1/plant{i:03d}_{kind}.png" for kind in ("rgb", "label", "centers"))


def levir() -> Iterator[str]:
    """Yield LEVIR-CD: before, after, and what has changed."""
    for split in ("train", "val", "test"):
        for kind in ("A", "B", "label"):
            yield from (f"{split}/{kind}/{split}_{i}.png" for i in range(5))


def rgbd_prefixes() -> Iterator[str]:
    """Yield names that begin with the side."""
    for i in range(10):
        yield from (f"rgb_{i:04d}.png", f"depth_{i:04d}.png")


def rain_folders() -> Iterator[str]:
    """Yield Rain100: two folders whose names begin with what they are."""
    for i in range(10):
        yield from (f"rainy/rain-{i}.png", f"clean/norain-{i}.png")


def rain_splits() -> Iterator[str]:
    """Yield the same in one folder of each split."""
    for split in ("train", "test"):
        for i in range(6):
            yield from (f"{split}/rain-{i}.png", f"{split}/norain-{i}.png")


def numbered_targets() -> Iterator[str]:
    """Yield input_12.jpg and target_12.jpg."""
    for i in range(8, 20):
        yield from (f"data/input_{i}.jpg", f"data/target_{i}.jpg")


def sidd() -> Iterator[str]:
    """Yield SIDD: scenes that hold a noisy image and a clean one."""
    for i in range(8):
        yield from (f"{i:04d}_001_S6_00100/{kind}_SRGB_010.PNG" for kind in ("NOISY", "GT"))


def split_folders() -> Iterator[str]:
    """Yield train_images and train_masks, and tests without masks."""
    for i in range(10):
        yield from (f"train_images/{i}.jpg", f"train_masks/{i}.png")
        yield f"test_images/t{i}.jpg"


def isic() -> Iterator[str]:
    """Yield ISIC 2018: the split within the name of a folder, and an end of one side."""
    for split in ("Training", "Validation"):
        for i in range(6):
            yield f"ISIC2018_Task1-2_{split}_Input/ISIC_{len(split):03d}{i:04d}.jpg"
            yield f"ISIC2018_Task1_{split}_GroundTruth/ISIC_{len(split):03d}{i:04d}_segmentation.png"


def coco() -> Iterator[str]:
    """Yield COCO-Stuff: years behind the splits."""
    for split in ("train2017", "val2017"):
        for i in range(6):
            yield from (f"images/{split}/{i:012d}.jpg", f"annotations/{split}/{i:012d}.png")


def lol() -> Iterator[str]:
    """Yield LOL: a split that is called otherwise than others are."""
    for split, count in (("our485", 8), ("eval15", 4)):
        for i in range(count):
            yield from (f"LOLdataset/{split}/{kind}/{i}.png" for kind in ("low", "high"))


def div2k() -> Iterator[str]:
    """Yield DIV2K: large images alone."""
    for split, first in (("train", 1), ("valid", 801)):
        yield from (f"DIV2K_{split}_HR/{i:04d}.png" for i in range(first, first + 6))


def div2k_bicubic() -> Iterator[str]:
    """Yield DIV2K: small and large images."""
    yield from div2k()
    for split, first in (("train", 1), ("valid", 801)):
        for scale in (2, 4):
            folder = f"DIV2K_{split}_LR_bicubic/X{scale}"
            yield from (f"{folder}/{i:04d}x{scale}.png" for i in range(first, first + 6))


def capitals() -> Iterator[str]:
    """Yield folders and endings in capital letters."""
    for split in ("TRAIN", "VAL"):
        for i in range(6):
            yield from (f"Images/{split}/IMG_{i}.JPG", f"Labels/{split}/img_{i}.PNG")


def camvid() -> Iterator[str]:
    """Yield CamVid as SegNet has it: trainannot beside train."""
    for split in ("train", "val", "test"):
        for i in range(5):
            yield from (f"CamVid/{split}/{split}{i:05d}.png", f"CamVid/{split}annot/{split}{i:05d}.png")


def nnunet() -> Iterator[str]:
    """Yield imagesTr, labelsTr and imagesTs."""
    for i in range(8):
        yield from (f"imagesTr/case_{i:03d}_0000.png", f"labelsTr/case_{i:03d}.png", f"imagesTs/case_9{i:02d}_0000.png")


def busi() -> Iterator[str]:
    """Yield BUSI: only the masks have an end of their own."""
    for kind in ("benign", "malignant"):
        for i in range(1, 7):
            yield from (f"{kind}/{kind} ({i}).png", f"{kind}/{kind} ({i})_mask.png")


def splits_in_names() -> Iterator[str]:
    """Yield the split at the beginning of every name."""
    for split in ("train", "val"):
        for i in range(6):
            yield from (f"images/{split}_{i:03d}.png", f"masks/{split}_{i:03d}.png")


def three_unknown() -> Iterator[str]:
    """Yield three folders of the same names, which nothing tells apart."""
    for kind in ("alpha", "beta", "gamma"):
        yield from (f"{kind}/{i}x.png" for i in range(8))

"""What is known about each data set: classes, sizes, official files, checksums, known archives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_CIFAR100.split())
_WNIDS = """
    n01443537 n01629819 n01641577 n01644900 n01698640 n01742172 n01768244 n01770393 n01774384 n01774750
    n01784675 n01855672 n01882714 n01910747 n01917289 n01944390 n01945685 n01950731 n01983481 n01984695
    n02002724 n02056570 n02058221 n02074367 n02085620 n02094433 n02099601 n02099712 n02106662 n02113799
    n02123045 n02123394 n02124075 n02125311 n02129165 n02132136 n02165456 n02190166 n02206856 n02226429
    n02231487 n02233338 n02236044 n02268443 n02279972 n02281406 n02321529 n02364673 n02395406 n02403003
    n02410509 n02415577 n02423022 n02437312 n02480495 n02481823 n02486410 n02504458 n02509815 n02666196
    n02669723 n02699494 n02730930 n02769748 n02788148 n02791270 n02793495 n02795169 n02802426 n02808440
    n02814533 n02814860 n02815834 n02823428 n02837789 n02841315 n02843684 n02883205 n02892201 n02906734
    n02909870 n02917067 n02927161 n02948072 n02950826 n02963159 n02977058 n02988304 n02999410 n03014705
    n03026506 n03042490 n03085013 n03089624 n03100240 n03126707 n03160309 n03179701 n03201208 n03250847
    n03255030 n03355925 n03388043 n03393912 n03400231 n03404251 n03424325 n03444034 n03447447 n03544143
    n03584254 n03599486 n03617480 n03637318 n03649909 n03662601 n03670208 n03706229 n03733131 n03763968
    n03770439 n03796401 n03804744 n03814639 n03837869 n03838899 n03854065 n03891332 n03902125 n03930313
    n03937543 n03970156 n03976657 n03977966 n03980874 n03983396 n03992509 n04008634 n04023962 n04067472
    n04070727 n04074963 n04099969 n04118538 n04133789 n04146614 n04149813 n04179913 n04251144 n04254777
    n04259630 n04265275 n04275548 n04285008 n04311004 n04328186 n04356056 n04366367 n04371430 n04376876
    n04398044 n04399382 n04417672 n04456115 n04465501 n04486054 n04487081 n04501370 n04507155 n04532106
    n04532670 n04540053 n04560804 n04562935 n04596742 n04597913 n06596364 n07579787 n07583066 n07614500
    n07615774 n07695742 n07711569 n07715103 n07720875 n07734744 n07747607 n07749582 n07753592 n07768694
    n07871810 n07873807 n07875152 n07920052 n09193705 n09246464 n09256479 n09332890 n09428293 n12267677
"""
TINY_IMAGENET_CLASSES = tuple(_WNIDS.split())  # WordNet ids, sorted; words.txt of the archive says what they mean
BRAIN_MRI_CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


@dataclass(frozen=True)
class Pickles:
    """Official CIFAR "python version": one archive of pickle files, with md5 sums (torchvision's constants).

    Args:
        archive: name of the archive.
        archive_md5: md5 of the archive.
        folder: folder inside the archive.
        files: split -> {file name: md5}.
        meta: (file name, md5) of the file with the class names.
        keys: key of the labels in a batch, key of the class names in the meta file.
    """

    archive: str
    archive_md5: str
    folder: str
    files: dict[str, dict[str, str]]
    meta: tuple[str, str]
    keys: tuple[str, str]


@dataclass(frozen=True)
class Idx:
    """Official MNIST files: split -> ((images file, md5), (labels file, md5)), md5 without gzip."""

    files: dict[str, tuple[tuple[str, str], tuple[str, str]]]


@dataclass(frozen=True)
class Tree:
    """Official Tiny ImageNet: one zip archive of JPEG files and lists (`efflib.data.tiny_imagenet`), with its md5.

    Args:
        archive: name of the archive.
        archive_md5: md5 of the archive.
        folder: folder inside the archive, and the one that it unpacks to.
    """

    archive: str
    archive_md5: str
    folder: str


@dataclass(frozen=True)
class ByHand:
    """Published as image folders that only a person can fetch: its site gives them to signed-in visitors only.

    Args:
        page: address of the page with the download.
        archive: name of what is downloaded there; to be unpacked by hand.
    """

    page: str
    archive: str


@dataclass(frozen=True)
class RealSet:
    """A data set that lives in files.

    Args:
        name: as in `load_dataset`.
        title: as people write it.
        classes: names of the classes, sorted: position = official label.
        shape: (H, W, C).
        official: the official files, `Pickles`, `Idx`, `Tree` or `ByHand`.
        downloads: file name -> (address, md5).
        known: sha256 of an image-folder archive -> variant.
        folders: further folders under the root where official files may lie.
        test_folders: names that the "test" split has in image folders, lower case.
        spellings: further names of its image folders and archives.
        resize: whether images of other sizes are resized to `shape` (bilinear with antialiasing, and squashed where
            they are not square) instead of refused.
        full: the set that this one is a smaller version of: the same files, images and order; "" if it is none.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    official: Pickles | Idx | Tree | ByHand
    downloads: dict[str, tuple[str, str]]
    known: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    test_folders: tuple[str, ...] = ("test", "testing")
    spellings: tuple[str, ...] = ()
    resize: bool = False
    full: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names that its image folders and archives may have."""
        return (self.full or self.name, *self.spellings)

    @property
    def split_folders(self) -> dict[str, str]:
        """Name of a folder in an image-folder archive, lower case -> split."""
        return {"train": "train", "training": "train"} | dict.fromkeys(self.test_folders, "test")


CIFAR10 = RealSet(
    name="cifar10",
    title="CIFAR-10",
    classes=CIFAR10_CLASSES,
    shape=(32, 32, 3),
    official=Pickles(
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        files={
            "train": {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
        },
        meta=("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        keys=("labels", "label_names"),
    ),
    downloads={
        "cifar-10-python.tar.gz": (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
        )
    },
    known={
        # Image-folder copies made from PNG files: training images as JPEG, test images as lossless WebP.
        "f5fe57c8e2b346cc3c5e21e111b6e7ce54f066b76bd81d466d4e51a53d6c9636": "jpeg-q7",
        "07292bf56f237e62fb0b8c5cae40ba23f8492619e39a24460063ddb6e077fa06": "lossless-copy",
    },
)

CIFAR100 = RealSet(
    name="cifar100",
    title="CIFAR-100",
    classes=CIFAR100_CLASSES,
    shape=(32, 32, 3),
    official=Pickles(
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        files={
            "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
            "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        },
        meta=("meta", "7973b15100ade9c7d40fb424638fde48"),
        keys=("fine_labels", "fine_label_names"),
    ),
    downloads={
        "cifar-100-python.tar.gz": (
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
        )
    },
    known={
        "b8c63bd6c1a16bab1bc4baf48c2f39b3f6d532f9012c3faa0c662bf9b6cc76ab": "jpeg-q7",
        "0e958ecd0b6298971c53312007eec989c0605860588e269c093da4212e514f21": "lossless-copy",
    },
)

_MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # torchvision's first mirror

MNIST = RealSet(
    name="mnist",
    title="MNIST",
    classes=tuple("0123456789"),
    shape=(28, 28, 1),
    official=Idx(
        files={
            "train": (
                ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
                ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            ),
            "test": (
                ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
                ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
            ),
        }
    ),
    downloads={
        f"{name}.gz": (f"{_MNIST_MIRROR}{name}.gz", md5)
        for name, md5 in {
            "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
        }.items()
    },
    folders=("MNIST/raw", "mnist/raw"),
)

# The sum is the one that other loaders compare with; Stanford publishes none.
_TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

TINY_IMAGENET = RealSet(
    name="tiny_imagenet",
    title="Tiny ImageNet",
    classes=TINY_IMAGENET_CLASSES,
    shape=(64, 64, 3),
    official=Tree("tiny-imagenet-200.zip", _TINY_IMAGENET_MD5, "tiny-imagenet-200"),
    downloads={
        "tiny-imagenet-200.zip": ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", _TINY_IMAGENET_MD5),
    },
    # The labels of the official test images are not public: everyone tests on the official validation images.
    test_folders=("val", "validation", "test", "testing"),
)

BRAIN_MRI = RealSet(
    name="brain_mri",
    title="Brain Tumor MRI Dataset",
    classes=BRAIN_MRI_CLASSES,
    shape=(224, 224, 1),
    official=ByHand("https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset", "archive.zip"),
    downloads={},
    known={
        # A copy of the 7,023 images, resized to 224x224 by others: 5,708 + 1,311 JPEG files, four are absent.
        "c71a4bf01b36235a38cd1d1035ca35f5ab6c029d8c1c1eda16a2edaa72aa8462": "copy-224",
    },
    spellings=("brain-tumor-mri", "brain-tumor-mri-dataset"),
    resize=True,
)


def _smaller(known: RealSet, side: int) -> RealSet:
    return replace(known, name=f"{known.name}_{side}", shape=(side, side, known.shape[2]), full=known.name)


BRAIN_MRI_SIDES = (64, 96, 128)
_SMALLER = [_smaller(BRAIN_MRI, side) for side in BRAIN_MRI_SIDES]

REAL = {known.name: known for known in (CIFAR10, CIFAR100, MNIST, TINY_IMAGENET, BRAIN_MRI, *_SMALLER)}

# Per channel (mean, std) of the training split, pixels divided by 255; CIFAR as the papers' code has it.
# Tiny ImageNet's are quoted from common code (other code has std .2770 .2691 .2821), not recomputed from the images.
# Brain MRI is fed as pixels between 0 and 1 (its training images have mean .1855 and std .2034), the phantom likewise.
_UNIT = ((0.0,), (1.0,))
NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "mnist": ((0.1307,), (0.3081,)),
    "digits": ((0.3053,), (0.3761,)),
    "digits28": ((0.2243,), (0.3144,)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "objects32": ((0.471, 0.462, 0.467), (0.227, 0.223, 0.231)),
    "objects64": ((0.488, 0.478, 0.484), (0.234, 0.229, 0.237)),
    "phantom": _UNIT,
    **dict.fromkeys(("brain_mri", *(known.name for known in _SMALLER)), _UNIT),
}

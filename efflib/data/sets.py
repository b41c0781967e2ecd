"""What is known about each data set: classes, sizes, official files, checksums, known archives."""

from __future__ import annotations

from dataclasses import dataclass, field

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
class RealSet:
    """A data set that lives in files.

    Args:
        name: as in `load_dataset`.
        title: as people write it.
        classes: names of the classes, sorted: position = official label.
        shape: (H, W, C).
        official: the official files, `Pickles` or `Idx`.
        downloads: file name -> (address, md5).
        known: sha256 of an image-folder archive -> variant.
        folders: further folders under the root where official files may lie.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    official: Pickles | Idx
    downloads: dict[str, tuple[str, str]]
    known: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


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

REAL = {known.name: known for known in (CIFAR10, CIFAR100, MNIST)}

# Per channel (mean, std) of the training split, pixels divided by 255; CIFAR as the papers' code has it.
NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "mnist": ((0.1307,), (0.3081,)),
    "digits": ((0.3053,), (0.3761,)),
    "objects32": ((0.471, 0.462, 0.467), (0.227, 0.223, 0.231)),
}

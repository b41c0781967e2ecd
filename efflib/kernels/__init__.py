"""One file per operation: `<op>_ref` is the plain PyTorch definition, `<op>` what the rest of the library calls."""

from efflib.kernels.augment import augment
from efflib.kernels.gradcam_map import gradcam_map
from efflib.kernels.mask_least_salient import mask_least_salient

__all__ = ["augment", "gradcam_map", "mask_least_salient"]

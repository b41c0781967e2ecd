"""One file per operation: `<op>_ref` is the plain PyTorch definition, `<op>` what the rest of the library calls."""

from efflib.kernels.attention_loss import attention_loss
from efflib.kernels.augment import augment
from efflib.kernels.fake_quantize import fake_quantize
from efflib.kernels.gradcam_map import gradcam_map
from efflib.kernels.gram_distance import gram_distance
from efflib.kernels.guided_attention import guided_attention
from efflib.kernels.hcl_loss import hcl_loss
from efflib.kernels.kd_loss import kd_loss
from efflib.kernels.mask_least_salient import mask_least_salient
from efflib.kernels.relevance_map import relevance_map
from efflib.kernels.softmax_stats import softmax_stats

__all__ = [
    "attention_loss",
    "augment",
    "fake_quantize",
    "gradcam_map",
    "gram_distance",
    "guided_attention",
    "hcl_loss",
    "kd_loss",
    "mask_least_salient",
    "relevance_map",
    "softmax_stats",
]

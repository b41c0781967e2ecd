"""Networks with trainable bit depths: layers, sizes, dead channels, restoration, packed file; and their rivals."""

from efflib.quantize.layers import (
    QuantizedConv2d,
    QuantizedLinear,
    Quantizer,
    quantize_model,
    quantized_layers,
    quantized_once,
)
from efflib.quantize.packed import (
    FileSizes,
    Packed,
    PackedFileError,
    PackedLayer,
    load_packed,
    load_packed_into,
    save_packed,
)
from efflib.quantize.presets import GAMMAS, PRESETS, Preset, preset
from efflib.quantize.prune import DeadChannels, Removal, remove_dead
from efflib.quantize.pruning import cut_channels, dense_bytes, mask_smallest, sparse_bytes, unmask
from efflib.quantize.ptq import fixed_width_bytes, post_training, scale_bytes, symmetric_scales
from efflib.quantize.qat import fix_steps, learn_steps, learned_step
from efflib.quantize.restore import Event, Restoration, Restorer, bit_gradients
from efflib.quantize.rounding import floored
from efflib.quantize.sizes import (
    LayerBits,
    Sizes,
    bits_needed,
    chain_bytes,
    layer_bits,
    mean_bits,
    sizes,
    soft_bytes,
    tight_bytes,
    weight_l1,
)
from efflib.quantize.structure import match_structure
from efflib.quantize.tighten import freeze_bits, snap, tighten

__all__ = [
    "GAMMAS",
    "PRESETS",
    "DeadChannels",
    "Event",
    "FileSizes",
    "LayerBits",
    "Packed",
    "PackedFileError",
    "PackedLayer",
    "Preset",
    "QuantizedConv2d",
    "QuantizedLinear",
    "Quantizer",
    "Removal",
    "Restoration",
    "Restorer",
    "Sizes",
    "bit_gradients",
    "bits_needed",
    "chain_bytes",
    "cut_channels",
    "dense_bytes",
    "fix_steps",
    "fixed_width_bytes",
    "floored",
    "freeze_bits",
    "layer_bits",
    "learn_steps",
    "learned_step",
    "load_packed",
    "load_packed_into",
    "mask_smallest",
    "match_structure",
    "mean_bits",
    "post_training",
    "preset",
    "quantize_model",
    "quantized_layers",
    "quantized_once",
    "remove_dead",
    "save_packed",
    "scale_bytes",
    "sizes",
    "snap",
    "soft_bytes",
    "sparse_bytes",
    "symmetric_scales",
    "tight_bytes",
    "tighten",
    "unmask",
    "weight_l1",
]

"""Networks with trainable bit depths: layers, sizes, dead channels, restoration, tightening, and the packed file."""

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
    "floored",
    "freeze_bits",
    "layer_bits",
    "load_packed",
    "load_packed_into",
    "match_structure",
    "mean_bits",
    "preset",
    "quantize_model",
    "quantized_layers",
    "quantized_once",
    "remove_dead",
    "save_packed",
    "sizes",
    "snap",
    "soft_bytes",
    "tight_bytes",
    "tighten",
    "weight_l1",
]

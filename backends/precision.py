"""Precisions: the dtypes in which numbers are held and multiplied.

==============  =======================  ======================  ================================
name            weights, sums, outputs   activations and deltas  factors of products
==============  =======================  ======================  ================================
float32         float32                  float32                 as they are
tf32            float32                  float32                 may be rounded to 10 bits
float64         float64                  float64                 as they are
mixed           float32                  float16                 float16, added up in float32
mixed_bfloat16  float32                  bfloat16                bfloat16, added up in float32
==============  =======================  ======================  ================================

float16 has 10 bits of fraction and ends at 65,504 and 6e-8; bfloat16 has 7, and float32's range.
Every device has float32 and float64; the others are for devices that multiply so in hardware
(`Backend.require`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """dtype: of weights, gradients, sums, outputs. storage: of the activations and deltas between
    layers, and so of the factors of their products. rounded: factors may be rounded to 10 bits, as
    TF32 has. everywhere: whether every device has it.

    >>> [name for name, precision in PRECISIONS.items() if precision.narrow]
    ['mixed', 'mixed_bfloat16']
    """

    dtype: str
    storage: str
    rounded: bool = False
    everywhere: bool = True

    @property
    def narrow(self) -> bool:
        """Whether activations and deltas are stored in less than the gradient has."""
        return self.storage != self.dtype

    @property
    def scaled(self) -> bool:
        """Whether deltas want a scale, as what they are stored in ends long before float32 does."""
        return self.storage == "float16"


PRECISIONS: dict[str, Precision] = {
    "float32": Precision("float32", "float32"),
    "tf32": Precision("float32", "float32", rounded=True, everywhere=False),
    "float64": Precision("float64", "float64"),
    "mixed": Precision("float32", "float16", everywhere=False),
    "mixed_bfloat16": Precision("float32", "bfloat16", everywhere=False),
}

"""Precisions: the dtypes in which numbers are held and multiplied.

=======  ===========================  ==========================  =================================
name     weights, sums, outputs       activations and deltas      factors of products
=======  ===========================  ==========================  =================================
float32  float32                      float32                     as they are
tf32     float32                      float32                     may be rounded to 10 bits
float64  float64                      float64                     as they are
mixed    float32                      float16                     float16, added up in float32
=======  ===========================  ==========================  =================================

Every device has float32 and float64; the other two are for devices that multiply so in hardware
(`Backend.require`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """dtype: of weights, gradients, sums, outputs. storage: of the activations and deltas between
    layers, and so of the factors of their products. rounded: factors may be rounded to 10 bits, as
    TF32 has. everywhere: whether every device has it.

    >>> [name for name, precision in PRECISIONS.items() if precision.narrow]
    ['mixed']
    """

    dtype: str
    storage: str
    rounded: bool = False
    everywhere: bool = True

    @property
    def narrow(self) -> bool:
        """Whether deltas are stored in less than the gradient has, so that they want a scale."""
        return self.storage != self.dtype


PRECISIONS: dict[str, Precision] = {
    "float32": Precision("float32", "float32"),
    "tf32": Precision("float32", "float32", rounded=True, everywhere=False),
    "float64": Precision("float64", "float64"),
    "mixed": Precision("float32", "float16", everywhere=False),
}

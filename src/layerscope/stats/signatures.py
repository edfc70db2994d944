"""What the kernels take, for the side that compiles them and for the side that calls them."""

from __future__ import annotations

__all__ = ["BINS", "BLOCK", "FIRST_BIN", "HALF", "LIMBS", "LIMBS_MEAN", "SIGNATURES"]

#: half of the values that `bin_pairs` takes at a time: few enough that most blocks have none near an edge
HALF = 1024

#: limbs of 32 bits that hold a sum of n*mean, in units of 2**-256, and together with a sum of squares, of 2**-512
LIMBS_MEAN = 14
LIMBS = 42
#: bins of float bits a sign; the first holds what is smaller than 2**-32 and the last all from 1.75 * 2**31 on
BINS = 512
#: sign-less bits of 2**-32 shifted by 20, less one
FIRST_BIN = (127 - 32) * 8 - 1
#: values that `spectrum` looks up at a time
BLOCK = 2048

#: kernel, "_" and the type of its values -> types of its arguments; "*" is a pointer to the first element
SIGNATURES = {
    "rows_f4": "float32* int32* int64 float64* int64* int64",
    "rows_f8": "float64* int64* int64 float64* int64* int64",
    "channels_last_f4": "float32* int32* int64 int64 int64 float64* int32* float64* int64*",
    "bin_values_f4": "float32* int64 float32* int64 int64*",
    "bin_values_f8": "float64* int64 float64* int64 int64*",
    "bin_pairs_f4": "float32* int64 float32* int64 float64 uint32* uint16* int64*",
    "bin_pairs_f8": "float64* int64 float64* int64 float64 uint32* uint16* int64*",
    "count_patterns_u1": "uint8* int64 int64*",
    "count_patterns_u2": "uint16* int64 int64*",
    "spread_u1": "uint8* int64 float32* int64* float32*",
    "spread_u2": "uint16* int64 float32* int64* float32*",
    "codes_f4": "float32* int64 int64 float64* float64* uint8*",
    "carry_i8": "int64* int64 int64 int64 int64",
    "fold_f8": "float64* int64* int64 int64 int64* float64* int64*",
    "enlist_f4": "float32* float64* int64* int64* int64* int64* int64* uint8* int16* float32* uint8* int64*",
    "spectrum_f4": "int32* int64* int64 int64 int64 int64 int64 int64 uint32* uint32* uint16*",
}

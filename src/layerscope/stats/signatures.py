"""What the kernels take, for the side that compiles them and for the side that calls them."""

from __future__ import annotations

__all__ = ["HALF", "SIGNATURES"]

#: half of the values that `bin_pairs` takes at a time: few enough that most blocks have none near an edge
HALF = 1024

#: kernel, "_" and the type of its values -> types of its arguments; "*" is a pointer to the first element
SIGNATURES = {
    "rows_f4": "float32* int32* int64 int64 int64 float64* int64* int64",
    "rows_f8": "float64* int64* int64 int64 int64 float64* int64* int64",
    "channels_last_f4": "float32* int32* int64 int64 int64 int64 int64 float64* int32* float64* int64*",
    "bin_values_f4": "float32* int64 float32* int64 int64*",
    "bin_values_f8": "float64* int64 float64* int64 int64*",
    "bin_pairs_f4": "float32* int64 float32* int64 float64 uint32* uint16* int64*",
    "bin_pairs_f8": "float64* int64 float64* int64 float64 uint32* uint16* int64*",
    "count_patterns_u1": "uint8* int64 int64*",
    "count_patterns_u2": "uint16* int64 int64*",
    "spread_u1": "uint8* int64 float32* int64* float32*",
    "spread_u2": "uint16* int64 float32* int64* float32*",
    "codes_f4": "float32* int64 int64 float64* float64* uint8*",
}

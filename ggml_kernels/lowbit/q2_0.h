#pragma once

// Q2_0 x Q8_0 dot product: 2-bit weights, 8-bit activations. See README.md for the mathematics and the bounds.
//
// struct lp_block_q2_0, 18 bytes, 64 weights, 2.25 bits each
//
//      byte 0   1   2        3                 17
//         +-------+--------+--------+-- ... --+--------+
//         |   d   | qs[0]  | qs[1]  |         | qs[15] |      d: IEEE half
//         +-------+--------+--------+-- ... --+--------+
//     qs[j], bit 7..0:  c[4j+3] c[4j+2] c[4j+1] c[4j]         c: code 0..3, weight = (c - 1)*d
//
// struct lp_block_q8_0, 34 bytes, 32 activations
//
//      byte 0   1   2        3                 33
//         +-------+--------+--------+-- ... --+--------+
//         |   d   | qs[0]  | qs[1]  |         | qs[31] |      activation = qs[j]*d, qs: int8
//         +-------+--------+--------+-- ... --+--------+
//
// Block i of a weight row meets blocks 2i and 2i+1 of the activation row. Neither block size is a multiple of 4, so
// only two bytes of alignment can be relied on.
//
// The file stands alone: the layouts are ggml's block_q2_0 and block_q8_0, which the glue asserts.

#include <stdint.h>

// Never exported: several builds of libggml-cpu for different instruction sets can live in one process, and a program
// may carry a copy of its own; with default visibility the dynamic linker would make them all use one.
#if defined(__GNUC__) && !defined(_WIN32)
#define LP_LOCAL __attribute__((visibility("hidden")))
#else
#define LP_LOCAL
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define LP_QK2_0 64
#define LP_QK8_0 32

#define LP_Q2_0_Q8_0_MIN_N 256

struct lp_block_q2_0 {
    uint16_t d;
    uint8_t  qs[LP_QK2_0 / 4];
};

struct lp_block_q8_0 {
    uint16_t d;
    int8_t   qs[LP_QK8_0];
};

// n: weights in the row, a multiple of 64. All return sum_j w[j]*a[j].

// The definition, and the path for machines without a fast one: one block after the other, sequential sums.
LP_LOCAL float lp_q2_0_q8_0_dot_ref(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y);

// The fastest path this file was compiled for. Integer sums are exact; the float sums are ordered differently from
// the reference (README.md, "Order of the float sums"). A sum that is not finite is taken from the reference, so
// infinite and NaN scales give the reference's infinity or NaN. Rows shorter than LP_Q2_0_Q8_0_MIN_N are the
// reference's: it rounds once per block, which up to three blocks no other order beats.
LP_LOCAL float lp_q2_0_q8_0_dot(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y);

// An upper bound of |lp_q2_0_q8_0_dot - lp_q2_0_q8_0_dot_ref| in round-to-nearest arithmetic (README.md,
// "Verification bound"). Not finite when a scale is not.
LP_LOCAL float lp_q2_0_q8_0_dot_bound(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y);

// What lp_q2_0_q8_0_dot was compiled to: "avx2-vnni", "avx2" or "portable" (the reference).
LP_LOCAL const char * lp_q2_0_q8_0_isa(void);

// 1 when lp_q2_0_q8_0_dot is more than the reference.
LP_LOCAL int lp_q2_0_q8_0_fast(void);

#ifdef __cplusplus
}
#endif

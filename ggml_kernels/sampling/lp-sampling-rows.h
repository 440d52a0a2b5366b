#pragma once

// The passes over a row, the only part that has one implementation per instruction set. All implementations return
// the same bits.

#include <cstdint>

#define LP_SAMPLING_BLOCK 1024

// entries that gather() may write behind its capacity
#define LP_SAMPLING_GATHER_PAD 64

struct lp_sampling_rows {
    // largest logit, NaN left out; -INFINITY when there is none
    float (*max)(const float * l, int32_t n);

    // total mass of the logits at a temperature; temp == 1 does not divide. w (may be null) gets the weight of each
    // logit relative to y_max, blocks (may be null) the mass of each LP_SAMPLING_BLOCK logits.
    uint64_t (*weigh)(const float * l, int32_t n, float temp, float y_max, float * w, uint64_t * blocks);

    // appends the logits >= threshold, and their ids, in id order from *pos on; stops behind the first logits that take
    // the count to capacity or more. Returns the new count, *pos is where to go on.
    int32_t (*gather)(const float * l, int32_t n, int32_t * pos, float threshold,
            float * out_l, int32_t * out_id, int32_t count, int32_t capacity);
};

extern const lp_sampling_rows lp_sampling_rows_portable;

// null when the build or the machine has no AVX2 and FMA
const lp_sampling_rows * lp_sampling_rows_avx2();

// Portable passes over a row: the definition that the other implementations must match to the bit.

#include "lp-sampling-rows.h"

#include "lp-sampling-math.h"

#include <algorithm>

static float row_max(const float * l, int32_t n) {
    float m = -INFINITY;
    for (int32_t i = 0; i < n; ++i) {
        m = l[i] > m ? l[i] : m;
    }
    return m;
}

static uint64_t row_weigh(const float * l, int32_t n, float temp, float y_max, float * w, uint64_t * blocks) {
    uint64_t total = 0;
    for (int32_t i0 = 0; i0 < n; i0 += LP_SAMPLING_BLOCK) {
        const int32_t i1 = std::min<int32_t>(n, i0 + LP_SAMPLING_BLOCK);

        uint64_t sum = 0;
        for (int32_t i = i0; i < i1; ++i) {
            const float y  = temp == 1.0f ? l[i] : l[i]/temp;
            const float wi = lp_sampling_weight(y, y_max);
            if (w) {
                w[i] = wi;
            }
            sum += lp_sampling_mass_of(wi);
        }
        if (blocks) {
            blocks[i0/LP_SAMPLING_BLOCK] = sum;
        }
        total += sum;
    }
    return total;
}

static int32_t row_gather(const float * l, int32_t n, int32_t * pos, float threshold,
        float * out_l, int32_t * out_id, int32_t count, int32_t capacity) {
    int32_t i = *pos;
    while (i < n && count < capacity) {
        // without a branch: the entry is written, and kept or not
        out_l [count] = l[i];
        out_id[count] = i;
        count += l[i] >= threshold;
        ++i;
    }
    *pos = i;
    return count;
}

const lp_sampling_rows lp_sampling_rows_portable = {
    /* .max    = */ row_max,
    /* .weigh  = */ row_weigh,
    /* .gather = */ row_gather,
};

#pragma once

// The arithmetic that every implementation must share to the bit: one exponential and one fixed-point conversion.
//
// Only fused multiply-adds, exact operations and integer operations are used. No product feeds an addition other than
// inside an fma, so a compiler that contracts a*b + c (-ffp-contract=fast, the default of gcc) changes nothing.

#include <cmath>
#include <cstdint>
#include <cstring>

// Mass of a candidate: floor(w * 2^40) for w in [0, 1]. A row of 2^23 tokens cannot overflow 64 bits.
#define LP_SAMPLING_MASS_BITS 40

// below this the weight is zero; its mass is zero from about -27.8 on
#define LP_SAMPLING_EXP_MIN (-87.0f)

#define LP_SAMPLING_LOG2E  0x1.715476p+0f
#define LP_SAMPLING_LN2_HI 0x1.62e430p-1f
#define LP_SAMPLING_LN2_LO (-0x1.05c610p-29f)

// 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum
#define LP_SAMPLING_ROUND 12582912.0f

// exp(r) = 1 + r + r^2 (C2 + C3 r + C4 r^2 + C5 r^3 + C6 r^4), |r| <= ln(2)/2, minimax in relative error: 3.1e-9
#define LP_SAMPLING_C2 0x1.fffffcp-2f
#define LP_SAMPLING_C3 0x1.555492p-3f
#define LP_SAMPLING_C4 0x1.5558f2p-5f
#define LP_SAMPLING_C5 0x1.123a20p-7f
#define LP_SAMPLING_C6 0x1.6a23d0p-10f

// exp(x) for x <= 0, error below 1.1 ulp; 0 for x < LP_SAMPLING_EXP_MIN and for NaN; exactly 1 for x == 0
static inline float lp_sampling_exp(float x) {
    if (!(x >= LP_SAMPLING_EXP_MIN)) {
        return 0.0f;
    }

    const float t = fmaf(x, LP_SAMPLING_LOG2E, LP_SAMPLING_ROUND);
    const float n = t - LP_SAMPLING_ROUND;

    float r = fmaf(n, -LP_SAMPLING_LN2_HI, x);
    r       = fmaf(n, -LP_SAMPLING_LN2_LO, r);

    float p = LP_SAMPLING_C6;
    p = fmaf(p, r, LP_SAMPLING_C5);
    p = fmaf(p, r, LP_SAMPLING_C4);
    p = fmaf(p, r, LP_SAMPLING_C3);
    p = fmaf(p, r, LP_SAMPLING_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);

    // multiply by 2^n: p is in [0.7, 1.42] and n in [-126, 0], the result is a normal number
    uint32_t bits_t;
    uint32_t bits_p;
    memcpy(&bits_t, &t, sizeof(bits_t));
    memcpy(&bits_p, &p, sizeof(bits_p));
    bits_p += bits_t << 23;
    memcpy(&p, &bits_p, sizeof(p));

    return p;
}

// weight of a logit relative to the largest one, both already divided by the temperature
static inline float lp_sampling_weight(float y, float y_max) {
    return y == y_max ? 1.0f : lp_sampling_exp(y - y_max);
}

// scaling by a power of two is exact and the conversion truncates: floor(w * 2^40)
static inline uint64_t lp_sampling_mass_of(float w) {
    return (uint64_t) (int64_t) (w * (float) (INT64_C(1) << LP_SAMPLING_MASS_BITS));
}

// abq-q2-avx2: ggml_vec_dot_q2_0_q8_0 for x86, where upstream has only its generic code.
// Switch LLAMA_LP_ABQ_Q2_AVX2=off|on|verify, off by default.

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include "ggml-cpu.h"
#include "ggml-lp.h"
#include "quants.h"

#include "lp/q2_0.h"

#include <cassert>
#include <cmath>
#include <cstddef>

// Where arch-fallback.h leaves the name to us: the same condition as its x86 section.
#if !defined(GGML_CPU_GENERIC) && (defined(__x86_64__) || defined(__i386__) || defined(_M_IX86) || defined(_M_X64))

static_assert(LP_QK2_0 == QK2_0 && sizeof(lp_block_q2_0) == sizeof(block_q2_0), "lp_block_q2_0 is not block_q2_0");
static_assert(LP_QK8_0 == QK8_0 && sizeof(lp_block_q8_0) == sizeof(block_q8_0), "lp_block_q8_0 is not block_q8_0");
static_assert(offsetof(lp_block_q2_0, d) == offsetof(block_q2_0, d) && offsetof(lp_block_q2_0, qs) == offsetof(block_q2_0, qs), "lp_block_q2_0 is not block_q2_0");
static_assert(offsetof(lp_block_q8_0, d) == offsetof(block_q8_0, d) && offsetof(lp_block_q8_0, qs) == offsetof(block_q8_0, qs), "lp_block_q8_0 is not block_q8_0");

// Read when the library is loaded: a call costs one branch on lp_mode.
static ggml_lp_patch * const lp_patch = ggml_lp_get("abq-q2-avx2");
static const ggml_lp_mode    lp_mode  = ggml_lp_mode_of(lp_patch);

static void lp_vec_dot_q2_0_q8_0(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc) {
    const lp_block_q2_0 * x = (const lp_block_q2_0 *) vx;
    const lp_block_q8_0 * y = (const lp_block_q8_0 *) vy;

    if (!lp_q2_0_q8_0_fast() || n < LP_Q2_0_Q8_0_MIN_N) {
        ggml_lp_fallback(lp_patch, lp_q2_0_q8_0_fast() ? "short-row" : "no-avx2", 1);
        ggml_vec_dot_q2_0_q8_0_generic(n, s, bs, vx, bx, vy, by, nrc);
        return;
    }

    const float sum = lp_q2_0_q8_0_dot(n, x, y);
    ggml_lp_handled(lp_patch, 1);

    if (lp_mode == GGML_LP_VERIFY) {
        float expected;
        ggml_vec_dot_q2_0_q8_0_generic(n, &expected, 0, vx, 0, vy, 0, 1);
        const float bound = lp_q2_0_q8_0_dot_bound(n, x, y);
        const bool  same  = std::isfinite(expected) ? std::fabs(sum - expected) <= bound
                          : std::isnan(expected)    ? std::isnan(sum)
                                                    : sum == expected;
        if (!same) {
            ggml_lp_differs(lp_patch, 1);
        }
    }

    *s = sum;
}

void ggml_vec_dot_q2_0_q8_0(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT vx, size_t bx, const void * GGML_RESTRICT vy, size_t by, int nrc) {
    assert(n % QK2_0 == 0);
    assert(nrc == 1);

    if (lp_mode == GGML_LP_OFF) {
        ggml_vec_dot_q2_0_q8_0_generic(n, s, bs, vx, bx, vy, by, nrc);
        return;
    }
    lp_vec_dot_q2_0_q8_0(n, s, bs, vx, bx, vy, by, nrc);
}

#endif

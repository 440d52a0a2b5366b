// AVX2 + FMA passes over a row. Compiled for the baseline of the build and chosen at run time, because libllama is a
// portable library (the kernels that are compiled per machine live in the ggml backends, which may be loaded later).

#include "lp-sampling-rows.h"

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)

#include "lp-sampling-math.h"

#include <immintrin.h>

#include <algorithm>

#define LP_TARGET __attribute__((target("avx2,fma")))

static LP_TARGET float row_max(const float * l, int32_t n) {
    __m256 m0 = _mm256_set1_ps(-INFINITY);
    __m256 m1 = m0;
    __m256 m2 = m0;
    __m256 m3 = m0;

    // maxps returns its second operand when either is NaN
    int32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        m0 = _mm256_max_ps(_mm256_loadu_ps(l + i     ), m0);
        m1 = _mm256_max_ps(_mm256_loadu_ps(l + i +  8), m1);
        m2 = _mm256_max_ps(_mm256_loadu_ps(l + i + 16), m2);
        m3 = _mm256_max_ps(_mm256_loadu_ps(l + i + 24), m3);
    }

    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_max_ps(_mm256_max_ps(m0, m1), _mm256_max_ps(m2, m3)));

    float m = -INFINITY;
    for (int j = 0; j < 8; ++j) {
        m = lanes[j] > m ? lanes[j] : m;
    }
    for (; i < n; ++i) {
        m = l[i] > m ? l[i] : m;
    }
    return m;
}

// lp_sampling_weight() of eight
static inline LP_TARGET __m256 weight8(__m256 y, __m256 y_max) {
    const __m256 round = _mm256_set1_ps(LP_SAMPLING_ROUND);

    const __m256 equal = _mm256_cmp_ps(y, y_max, _CMP_EQ_OQ);
    const __m256 x     = _mm256_andnot_ps(equal, _mm256_sub_ps(y, y_max));
    const __m256 keep  = _mm256_cmp_ps(x, _mm256_set1_ps(LP_SAMPLING_EXP_MIN), _CMP_GE_OQ);

    const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(LP_SAMPLING_LOG2E), round);
    const __m256 n = _mm256_sub_ps(t, round);

    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LP_SAMPLING_LN2_HI), x);
    r        = _mm256_fmadd_ps(n, _mm256_set1_ps(-LP_SAMPLING_LN2_LO), r);

    const __m256 one = _mm256_set1_ps(1.0f);

    __m256 p = _mm256_set1_ps(LP_SAMPLING_C6);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(LP_SAMPLING_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(LP_SAMPLING_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(LP_SAMPLING_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(LP_SAMPLING_C2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);

    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));

    return _mm256_and_ps(keep, _mm256_castsi256_ps(scaled));
}

// floor(w * 2^40) = hi * 2^24 + lo with hi = floor(w * 2^16) and lo = floor(rest * 2^24), both exact. Eight lanes of
// each are summed as 32-bit integers, which hold 255 values of lo, and widened once per block.
template <bool DIVIDE, bool STORE>
static inline LP_TARGET uint64_t weigh_impl(
        const float * l, int32_t n, float temp, float y_max, float * w, uint64_t * blocks) {
    static_assert(LP_SAMPLING_BLOCK/8 <= 255, "the low halves of a block must fit 32 bits");

    const __m256  vt    = _mm256_set1_ps(temp);
    const __m256  vm    = _mm256_set1_ps(y_max);
    const __m256  s16   = _mm256_set1_ps(65536.0f);
    const __m256  s24   = _mm256_set1_ps(16777216.0f);
    const __m256i low32 = _mm256_set1_epi64x(0xffffffff);

    uint64_t total = 0;

    for (int32_t i0 = 0; i0 < n; i0 += LP_SAMPLING_BLOCK) {
        const int32_t i1 = std::min<int32_t>(n, i0 + LP_SAMPLING_BLOCK);

        __m256i sum_hi = _mm256_setzero_si256();
        __m256i sum_lo = _mm256_setzero_si256();

        int32_t i = i0;
        for (; i + 8 <= i1; i += 8) {
            __m256 y = _mm256_loadu_ps(l + i);
            if (DIVIDE) {
                y = _mm256_div_ps(y, vt);
            }
            const __m256  v  = weight8(y, vm);
            const __m256i hi = _mm256_cvttps_epi32(_mm256_mul_ps(v, s16));
            const __m256  re = _mm256_fmsub_ps(v, s16, _mm256_cvtepi32_ps(hi));
            const __m256i lo = _mm256_cvttps_epi32(_mm256_mul_ps(re, s24));

            sum_hi = _mm256_add_epi32(sum_hi, hi);
            sum_lo = _mm256_add_epi32(sum_lo, lo);
            if (STORE) {
                _mm256_storeu_ps(w + i, v);
            }
        }

        const __m256i hi64 = _mm256_add_epi64(_mm256_and_si256(sum_hi, low32), _mm256_srli_epi64(sum_hi, 32));
        const __m256i lo64 = _mm256_add_epi64(_mm256_and_si256(sum_lo, low32), _mm256_srli_epi64(sum_lo, 32));

        uint64_t lanes[4];
        _mm256_storeu_si256((__m256i *) lanes, _mm256_add_epi64(_mm256_slli_epi64(hi64, 24), lo64));

        uint64_t sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
        for (; i < i1; ++i) {
            const float v = lp_sampling_weight(DIVIDE ? l[i]/temp : l[i], y_max);
            if (STORE) {
                w[i] = v;
            }
            sum += lp_sampling_mass_of(v);
        }
        if (blocks) {
            blocks[i0/LP_SAMPLING_BLOCK] = sum;
        }
        total += sum;
    }

    return total;
}

static LP_TARGET uint64_t row_weigh(
        const float * l, int32_t n, float temp, float y_max, float * w, uint64_t * blocks) {
    if (temp == 1.0f) {
        return w ? weigh_impl<false, true>(l, n, temp, y_max, w, blocks) : weigh_impl<false, false>(l, n, temp, y_max, w, blocks);
    }
    return w ? weigh_impl<true, true>(l, n, temp, y_max, w, blocks) : weigh_impl<true, false>(l, n, temp, y_max, w, blocks);
}

// for each mask of eight lanes, the lanes that are set, first ones first
struct pack_table {
    uint64_t lanes[256];

    constexpr pack_table() : lanes() {
        for (int mask = 0; mask < 256; ++mask) {
            uint64_t packed = 0;
            int      n      = 0;
            for (int j = 0; j < 8; ++j) {
                if (mask & (1 << j)) {
                    packed |= (uint64_t) j << (8*n++);
                }
            }
            lanes[mask] = packed;
        }
    }
};

static constexpr pack_table k_pack;

static LP_TARGET int32_t row_gather(const float * l, int32_t n, int32_t * pos, float threshold,
        float * out_l, int32_t * out_id, int32_t count, int32_t capacity) {
    const __m256 vt = _mm256_set1_ps(threshold);

    int32_t i = *pos;
    while (i + 32 <= n && count < capacity) {
        const __m256 v[4] = {
            _mm256_loadu_ps(l + i     ),
            _mm256_loadu_ps(l + i +  8),
            _mm256_loadu_ps(l + i + 16),
            _mm256_loadu_ps(l + i + 24),
        };
        const __m256 c[4] = {
            _mm256_cmp_ps(v[0], vt, _CMP_GE_OQ),
            _mm256_cmp_ps(v[1], vt, _CMP_GE_OQ),
            _mm256_cmp_ps(v[2], vt, _CMP_GE_OQ),
            _mm256_cmp_ps(v[3], vt, _CMP_GE_OQ),
        };
        const __m256 any = _mm256_or_ps(_mm256_or_ps(c[0], c[1]), _mm256_or_ps(c[2], c[3]));
        if (!_mm256_testz_ps(any, any)) {
            for (int j = 0; j < 4; ++j) {
                const int mask = _mm256_movemask_ps(c[j]);
                if (mask == 0) {
                    continue;
                }
                const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long) k_pack.lanes[mask]));
                const __m256i ids   = _mm256_add_epi32(_mm256_set1_epi32(i + 8*j), lanes);

                _mm256_storeu_ps(out_l + count, _mm256_permutevar8x32_ps(v[j], lanes));
                _mm256_storeu_si256((__m256i *) (out_id + count), ids);
                count += __builtin_popcount((unsigned) mask);
            }
        }
        i += 32;
    }
    if (i + 32 > n) {
        for (; i < n && count < capacity; ++i) {
            if (l[i] >= threshold) {
                out_l [count] = l[i];
                out_id[count] = i;
                ++count;
            }
        }
    }
    *pos = i;
    return count;
}

static const lp_sampling_rows k_rows_avx2 = {
    /* .max    = */ row_max,
    /* .weigh  = */ row_weigh,
    /* .gather = */ row_gather,
};

const lp_sampling_rows * lp_sampling_rows_avx2() {
    static const bool ok = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return ok ? &k_rows_avx2 : nullptr;
}

#else

const lp_sampling_rows * lp_sampling_rows_avx2() {
    return nullptr;
}

#endif

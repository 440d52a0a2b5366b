// Q2_0 x Q8_0 dot product.
//
//     cmake -S ggml_kernels -B build-kernels -G Ninja && ninja -C build-kernels
//     ctest --test-dir build-kernels -R lowbit && build-kernels/bin/bench-lowbit-q2_0 --human
//
// Read downwards: the scalar definition; the bound for the verify mode; the AVX2 path in its three steps (scales of
// four activation blocks, integer sums of a weight block, the loop).

#include "q2_0.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

// MSVC has no macros for FMA and F16C: with /arch:AVX2 both are there.
#if defined(__AVX2__) && ((defined(__FMA__) && defined(__F16C__)) || (defined(_MSC_VER) && !defined(__clang__)))
#define LP_Q2_0_AVX2
#include <immintrin.h>
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define LP_DPBUSD _mm256_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define LP_DPBUSD _mm256_dpbusd_avx_epi32
#endif
#endif

static float lp_half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t mant = h & 0x03ff;
    const uint32_t expo = (h >> 10) & 0x1f;
    uint32_t bits;
    float    f;

    if (expo == 0) {
        // zero and denormals: mant*2^-24 is exact
        f = (float) mant * 0x1p-24f;
        return sign ? -f : f;
    }
    if (expo == 31) {
        bits = sign | 0x7f800000 | (mant << 13);
    } else {
        bits = sign | ((expo + 112) << 23) | (mant << 13);
    }
    memcpy(&f, &bits, sizeof(f));
    return f;
}

// Exact: |sum| <= 32*2*128.
static int lp_block_sum(const uint8_t * qs, const int8_t * a) {
    int sum = 0;
    for (int j = 0; j < LP_QK8_0; ++j) {
        sum += (((qs[j / 4] >> 2*(j % 4)) & 3) - 1)*a[j];
    }
    return sum;
}

float lp_q2_0_q8_0_dot_ref(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    float sum = 0.0f;
    for (int64_t i = 0; i < n/LP_QK2_0; ++i) {
        float of_block = 0.0f;
        for (int k = 0; k < 2; ++k) {
            const struct lp_block_q8_0 * b = &y[2*i + k];
            of_block += lp_half_to_float(b->d)*(float) lp_block_sum(x[i].qs + 8*k, b->qs);
        }
        sum += lp_half_to_float(x[i].d)*of_block;
    }
    return sum;
}

float lp_q2_0_q8_0_dot_bound(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    const int64_t nb = n/LP_QK2_0;

    double magnitude = 0.0;
    for (int64_t i = 0; i < nb; ++i) {
        for (int k = 0; k < 2; ++k) {
            const struct lp_block_q8_0 * b = &y[2*i + k];
            int sum = 0;
            for (int j = 0; j < LP_QK8_0; ++j) {
                const int w = ((x[i].qs[8*k + j/4] >> 2*(j % 4)) & 3) - 1;
                sum += (w < 0 ? -w : w)*(b->qs[j] < 0 ? -b->qs[j] : b->qs[j]);
            }
            magnitude += fabs((double) lp_half_to_float(x[i].d)*(double) lp_half_to_float(b->d))*sum;
        }
    }
    // Roundings on the longest path of one product: nb + 4 in the reference when nothing is fused, nb/4 + 4 in the fast
    // path. The error of each is at most m*u/(1 - m*u) of the magnitude, u = 2^-24; one more covers the denominator.
    const double roundings = ((double) nb + 5.0) + ((double) nb/4 + 5.0);
    return (float) (roundings*0x1p-24*magnitude);
}

#ifdef LP_Q2_0_AVX2

// Products of the half scales: lane k of the result is x[k/2].d*y[k].d. Exact: 11-bit significands, and the
// exponents (-48..31) are normal in float, so that no denormal setting of the caller matters.
static inline __m128 lp_scales(const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    // gathered with scalar loads: the vector ports, mostly the shuffle port, are what the loop is short of
    const uint64_t dy =  (uint64_t) y[0].d        | (uint64_t) y[1].d << 16 | (uint64_t) y[2].d << 32 | (uint64_t) y[3].d << 48;
    const uint64_t dx = ((uint64_t) x[0].d | (uint64_t) x[1].d << 32)*0x10001;
    return _mm_mul_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *) &dx)),
                      _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *) &dy)));
}

// Integer sums of one weight block, spread over lanes: int16 lanes 0..3 and 8..11 of the result belong to y[0], the others
// to y[1] (with VNNI: int32 lanes 0, 1, 4, 5 to y[0]).
//
// Activations are regrouped within 16 bytes so that a dword holds four of the same bit position r = j % 4; the codes of
// those 16 activations are one dword d of qs, and d >> 2r & 0x03030303 faces group r.
//
// Bounds, c in 0..3 and a in -128..127: a lane of maddubs holds at most 2*3*128 = 768 in magnitude, so its saturation
// at 32767 is out of reach; c0*u + c1*v at most 1536, u + v at most 512, their difference at most 2048 on the way and,
// being the sum of (c - 1)*a over four products, 4*2*128 = 1024 in the end. All fit int16.
static inline __m256i lp_block_sums(const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    const __m256i by_r   = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
                                            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m256i spread = _mm256_setr_epi32(0, 0, 2, 2, 1, 1, 3, 3);
    const __m256i shift  = _mm256_setr_epi32(0, 2, 0, 2, 0, 2, 0, 2);
    const __m256i mask   = _mm256_set1_epi8(3);
    const __m256i one    = _mm256_set1_epi8(1);

    const __m256i q  = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) x->qs));
    const __m256i w  = _mm256_srlv_epi32(_mm256_permutevar8x32_epi32(q, spread), shift);
    const __m256i c0 = _mm256_and_si256(w, mask);                       // r = 0, 1
    const __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(w, 4), mask); // r = 2, 3

    const __m256i a0 = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *) y[0].qs), by_r);
    const __m256i a1 = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *) y[1].qs), by_r);
    const __m256i u  = _mm256_unpacklo_epi64(a0, a1); // r = 0, 1 of y[0], then of y[1]
    const __m256i v  = _mm256_unpackhi_epi64(a0, a1); // r = 2, 3

#ifdef LP_DPBUSD
    const __m256i zero = _mm256_setzero_si256();
    return _mm256_sub_epi32(LP_DPBUSD(LP_DPBUSD(zero, c0,  u), c1,  v),
                            LP_DPBUSD(LP_DPBUSD(zero, one, u), one, v));
#else
    return _mm256_sub_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(c0,  u), _mm256_maddubs_epi16(c1,  v)),
                            _mm256_add_epi16(_mm256_maddubs_epi16(one, u), _mm256_maddubs_epi16(one, v)));
#endif
}

// Joins the sums of two weight blocks: int32 lane k of either half of the result belongs to y[k]. Adding two int16 lanes
// first gives at most 2*1024.
static inline __m256 lp_join_sums(__m256i first, __m256i second) {
#ifdef LP_DPBUSD
    return _mm256_cvtepi32_ps(_mm256_hadd_epi32(first, second));
#else
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_hadd_epi16(first, second), _mm256_set1_epi16(1)));
#endif
}

static inline __m256 lp_twice(__m128 v) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(v), v, 1);
}

// acc + two weight blocks against four activation blocks
static inline __m256 lp_add_pair(__m256 acc, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    const __m256 sums = lp_join_sums(lp_block_sums(&x[0], &y[0]), lp_block_sums(&x[1], &y[2]));
    return _mm256_fmadd_ps(sums, lp_twice(lp_scales(x, y)), acc);
}

static inline int lp_is_finite(float f) {
    // on the bits: -ffast-math must not remove it
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return (bits & 0x7f800000) != 0x7f800000;
}

float lp_q2_0_q8_0_dot(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    const int64_t nb = n/LP_QK2_0;

    if (n < LP_Q2_0_Q8_0_MIN_N) {
        return lp_q2_0_q8_0_dot_ref(n, x, y);
    }

    __m256 acc0 = _mm256_setzero_ps();
    __m256 acc1 = _mm256_setzero_ps();

    int64_t i = 0;
    for (; i + 4 <= nb; i += 4) {
        acc0 = lp_add_pair(acc0, &x[i],     &y[2*i]);
        acc1 = lp_add_pair(acc1, &x[i + 2], &y[2*i + 4]);
    }
    if (i + 2 <= nb) {
        acc0 = lp_add_pair(acc0, &x[i], &y[2*i]);
        i += 2;
    }
    if (i < nb) {
        const __m128 dx = _mm_cvtph_ps(_mm_set1_epi16((short) x[i].d));
        const __m128 dy = _mm_cvtph_ps(_mm_setr_epi16((short) y[2*i].d, (short) y[2*i + 1].d, 0, 0, 0, 0, 0, 0));
        const __m256 sums = lp_join_sums(lp_block_sums(&x[i], &y[2*i]), _mm256_setzero_si256());
        acc1 = _mm256_fmadd_ps(sums, lp_twice(_mm_mul_ps(dx, dy)), acc1);
    }

    // in double: at n = 256 the roundings of a float tree over 16 lanes would outweigh those of the whole loop
    __m256d r = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(acc0)), _mm256_cvtps_pd(_mm256_castps256_ps128(acc1)));
    r = _mm256_add_pd(r, _mm256_add_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(acc0, 1)), _mm256_cvtps_pd(_mm256_extractf128_ps(acc1, 1))));
    __m128d h = _mm_add_pd(_mm256_castpd256_pd128(r), _mm256_extractf128_pd(r, 1));
    h = _mm_add_sd(h, _mm_unpackhi_pd(h, h));

    // An infinite scale makes lanes of both signs, which cancel to NaN here but not in the reference.
    const float sum = (float) _mm_cvtsd_f64(h);
    return lp_is_finite(sum) ? sum : lp_q2_0_q8_0_dot_ref(n, x, y);
}

const char * lp_q2_0_q8_0_isa(void) {
#ifdef LP_DPBUSD
    return "avx2-vnni";
#else
    return "avx2";
#endif
}

int lp_q2_0_q8_0_fast(void) {
    return 1;
}

#else

float lp_q2_0_q8_0_dot(int64_t n, const struct lp_block_q2_0 * x, const struct lp_block_q8_0 * y) {
    return lp_q2_0_q8_0_dot_ref(n, x, y);
}

const char * lp_q2_0_q8_0_isa(void) {
    return "portable";
}

int lp_q2_0_q8_0_fast(void) {
    return 0;
}

#endif

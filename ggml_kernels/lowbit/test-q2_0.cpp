// The Q2_0 x Q8_0 kernel against exact integers, the scalar reference and f64. Exit 0 passed, 1 failed, 77 skipped.

#include "q2_0.h"
#include "q2_0-rows.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define LP_HAVE_GUARD_PAGE
#endif

static int failures = 0;
static int checks   = 0;

static void expect(bool ok, const char * what, int64_t n, double got, double want) {
    checks++;
    if (!ok && ++failures <= 20) {
        std::printf("FAIL %s n=%" PRId64 ": got %.9g, want %.9g\n", what, n, got, want);
    }
}

static bool same_bits(float a, float b) {
    return std::memcmp(&a, &b, sizeof(a)) == 0;
}

// 0: agree in kind, and in sign when infinite
static bool same_kind(float a, float b) {
    if (std::isnan(a) || std::isnan(b)) {
        return std::isnan(a) && std::isnan(b);
    }
    if (std::isinf(a) || std::isinf(b)) {
        return a == b;
    }
    return true;
}

static const uint16_t HALF_ONE = 0x3c00;

struct row {
    std::vector<lp_block_q2_0> x;
    std::vector<lp_block_q8_0> y;

    explicit row(int64_t n) : x((size_t) (n/LP_QK2_0)), y((size_t) (n/LP_QK8_0)) {}

    void set_scales(uint16_t dx, uint16_t dy) {
        for (lp_block_q2_0 & b : x) { b.d = dx; }
        for (lp_block_q8_0 & b : y) { b.d = dy; }
    }
};

// With all scales one every partial sum is an integer below 2^24 (n*2*128), so any order of float sums is exact.
static void test_exact_integers() {
    lp_random rnd(1);
    const int extremes[] = { -128, -127, -1, 0, 1, 127 };

    for (int64_t nb = 1; nb <= 129; ++nb) {
        const int64_t n = nb*LP_QK2_0;
        row r(n);
        // codes: random, all 0, all 1, all 2, all 3; activations: random, all of one extreme, extremes at random
        for (int codes = 0; codes < 5; ++codes) {
            for (int acts = 0; acts < 8; ++acts) {
                lp_fill_random(rnd, n, r.x.data(), r.y.data());
                r.set_scales(HALF_ONE, HALF_ONE);
                for (lp_block_q2_0 & b : r.x) {
                    if (codes > 0) {
                        std::memset(b.qs, 0x55*(codes - 1), sizeof(b.qs));
                    }
                }
                for (lp_block_q8_0 & b : r.y) {
                    for (int8_t & q : b.qs) {
                        q = (int8_t) (acts == 0 ? q : acts <= 6 ? extremes[acts - 1] : extremes[rnd.below(6)]);
                    }
                }
                int64_t sum = 0;
                for (int64_t j = 0; j < n; ++j) {
                    sum += lp_weight_of(r.x.data(), j)*r.y[(size_t) (j/LP_QK8_0)].qs[j % LP_QK8_0];
                }
                const float got = lp_q2_0_q8_0_dot    (n, r.x.data(), r.y.data());
                const float ref = lp_q2_0_q8_0_dot_ref(n, r.x.data(), r.y.data());
                expect((double) got == (double) sum, "exact integers", n, got, (double) sum);
                expect((double) ref == (double) sum, "exact integers, reference", n, ref, (double) sum);
            }
        }
    }
}

// One weight at a time against activations that are all different modulo 251: a swapped lane cannot hide. Scales are
// different powers of two in every block, so products stay exact and a swapped scale cannot hide either.
static void test_each_position() {
    for (int64_t nb = 1; nb <= 7; ++nb) {
        const int64_t n = nb*LP_QK2_0;
        row r(n);
        for (int64_t i = 0; i < nb; ++i) {
            r.x[(size_t) i].d = (uint16_t) ((15 + i) << 10);
            std::memset(r.x[(size_t) i].qs, 0x55, sizeof(r.x[(size_t) i].qs)); // code 1: weight 0
        }
        for (int64_t k = 0; k < 2*nb; ++k) {
            r.y[(size_t) k].d = (uint16_t) ((15 - k) << 10);
            for (int j = 0; j < LP_QK8_0; ++j) {
                r.y[(size_t) k].qs[j] = (int8_t) ((k*LP_QK8_0 + j)*37 % 251 - 125);
            }
        }
        for (int64_t j = 0; j < n; ++j) {
            for (int code = 0; code < 4; ++code) {
                lp_set_code(r.x.data(), j, code);
                const double want = (code - 1)*std::ldexp((double) r.y[(size_t) (j/LP_QK8_0)].qs[j % LP_QK8_0], (int) (j/LP_QK2_0 - j/LP_QK8_0));
                const float  got  = lp_q2_0_q8_0_dot(n, r.x.data(), r.y.data());
                expect((double) got == want, "each position", j, got, want);
            }
            lp_set_code(r.x.data(), j, 1);
        }
    }
}

// All 65536 halves as weight scale and as activation scale, through a row whose integer sum is 1.
static void test_all_halves() {
    for (int64_t nb = 1; nb <= 7; ++nb) {
        const int64_t n = nb*LP_QK2_0;
        row r(n);
        for (lp_block_q2_0 & b : r.x) { std::memset(b.qs, 0x55, sizeof(b.qs)); }
        lp_set_code(r.x.data(), n - 1, 2);
        r.y.back().qs[LP_QK8_0 - 1] = 1;
        for (int side = 0; side < 2; ++side) {
            for (int h = 0; h < 65536; ++h) {
                r.set_scales(HALF_ONE, HALF_ONE);
                (side == 0 ? r.x.back().d : r.y.back().d) = (uint16_t) h;
                const float want = (float) lp_half_value((uint16_t) h);
                const float ref  = lp_q2_0_q8_0_dot_ref(n, r.x.data(), r.y.data());
                const float got  = lp_q2_0_q8_0_dot    (n, r.x.data(), r.y.data());
                expect(same_kind(got, ref), "all halves, kind", h, got, ref);
                if (std::isfinite(want)) {
                    expect(ref == want, "all halves, reference", h, ref, want);
                    expect(got == want, "all halves", h, got, want);
                }
            }
        }
    }
}

// Infinite and NaN scales at every place give what the reference gives.
static void test_not_finite() {
    lp_random rnd(2);
    const uint16_t special[] = { 0x7c00, 0xfc00, 0x7e00, 0xfe01, 0x7c01 };
    for (int64_t nb = 1; nb <= 9; ++nb) {
        const int64_t n = nb*LP_QK2_0;
        row r(n);
        for (int round = 0; round < 400; ++round) {
            lp_fill_random(rnd, n, r.x.data(), r.y.data());
            if (rnd.below(4) == 0) {
                r.y[(size_t) rnd.below((int) nb*2)].d = 0;
            }
            if (rnd.below(4) == 0) {
                std::memset(r.y[(size_t) rnd.below((int) nb*2)].qs, 0, LP_QK8_0);
            }
            for (int how_many = 1 + rnd.below(2); how_many > 0; --how_many) {
                const uint16_t h = special[rnd.below(5)];
                if (rnd.below(2)) {
                    r.x[(size_t) rnd.below((int) nb)].d = h;
                } else {
                    r.y[(size_t) rnd.below((int) nb*2)].d = h;
                }
            }
            const float got = lp_q2_0_q8_0_dot    (n, r.x.data(), r.y.data());
            const float ref = lp_q2_0_q8_0_dot_ref(n, r.x.data(), r.y.data());
            expect(!std::isfinite(ref), "not finite, reference", n, ref, NAN);
            expect(same_kind(got, ref), "not finite", n, got, ref);
        }
    }
}

// Zero and denormal scales, the largest ones, and both signs: within the bound of f64; zero scales give exactly zero.
static void test_extreme_scales() {
    lp_random rnd(3);
    const uint16_t scales[] = { 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff };
    for (int64_t nb = 1; nb <= 17; ++nb) {
        const int64_t n = nb*LP_QK2_0;
        row r(n);
        for (int round = 0; round < 100; ++round) {
            lp_fill_random(rnd, n, r.x.data(), r.y.data());
            for (lp_block_q2_0 & b : r.x) { b.d = scales[rnd.below(6)]; }
            for (lp_block_q8_0 & b : r.y) { b.d = scales[rnd.below(6)]; }
            const float  got   = lp_q2_0_q8_0_dot(n, r.x.data(), r.y.data());
            const double want  = lp_dot_f64(n, r.x.data(), r.y.data());
            const double bound = lp_q2_0_q8_0_dot_bound(n, r.x.data(), r.y.data());
            expect(std::fabs(got - want) <= bound, "extreme scales", n, got, want);
        }
        r.set_scales(0, 0x7bff);
        expect(lp_q2_0_q8_0_dot(n, r.x.data(), r.y.data()) == 0.0f, "zero weight scales", n, 1, 0);
        r.set_scales(0x7bff, 0x8000);
        expect(lp_q2_0_q8_0_dot(n, r.x.data(), r.y.data()) == 0.0f, "zero activation scales", n, 1, 0);
    }
}

// The result is a function of the bytes: not of their address, and nothing outside the rows is read.
static void test_addresses() {
    lp_random rnd(4);
    for (int64_t nb : { 1, 2, 3, 4, 5, 6, 7, 12, 13 }) {
        const int64_t n = nb*LP_QK2_0;
        row r(n);
        lp_fill_random(rnd, n, r.x.data(), r.y.data());
        const float  want = lp_q2_0_q8_0_dot(n, r.x.data(), r.y.data());
        const size_t xs   = r.x.size()*sizeof(lp_block_q2_0);
        const size_t ys   = r.y.size()*sizeof(lp_block_q8_0);

        alignas(64) static uint8_t xb[16384];
        alignas(64) static uint8_t yb[16384];
        for (size_t off = 0; off < 64; off += 2) {
            for (size_t other : { (size_t) 0, (size_t) 2, 62 - off }) {
                std::memcpy(xb + off,   r.x.data(), xs);
                std::memcpy(yb + other, r.y.data(), ys);
                const float got = lp_q2_0_q8_0_dot(n, (const lp_block_q2_0 *) (const void *) (xb + off), (const lp_block_q8_0 *) (const void *) (yb + other));
                expect(same_bits(got, want), "unaligned", n, got, want);
            }
        }

#ifdef LP_HAVE_GUARD_PAGE
        // both rows end, then begin, at a page that may not be touched
        const size_t page = (size_t) sysconf(_SC_PAGESIZE);
        const size_t body = (ys + page - 1)/page*page;
        uint8_t * xm = (uint8_t *) mmap(nullptr, body + 2*page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uint8_t * ym = (uint8_t *) mmap(nullptr, body + 2*page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (xm == MAP_FAILED || ym == MAP_FAILED) {
            std::printf("FAIL mmap\n");
            failures++;
            return;
        }
        for (uint8_t * m : { xm, ym }) {
            mprotect(m, page, PROT_NONE);
            mprotect(m + page + body, page, PROT_NONE);
        }
        for (bool at_end : { true, false }) {
            uint8_t * xp = at_end ? xm + page + body - xs : xm + page;
            uint8_t * yp = at_end ? ym + page + body - ys : ym + page;
            std::memcpy(xp, r.x.data(), xs);
            std::memcpy(yp, r.y.data(), ys);
            const float got = lp_q2_0_q8_0_dot(n, (const lp_block_q2_0 *) (const void *) xp, (const lp_block_q8_0 *) (const void *) yp);
            expect(same_bits(got, want), "guard page", n, got, want);
        }
        munmap(xm, body + 2*page);
        munmap(ym, body + 2*page);
#endif
    }
}

// Class `equivalent`: over many random rows the error against f64 is no larger than the reference's own, and no single
// difference from the reference exceeds the verification bound.
static void test_error(bool verbose) {
    lp_random rnd(5);
    for (int64_t n : { 64, 128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048, 4096, 8192 }) {
        const int rows = (int) (n <= 1024 ? 8000 : 4000);
        row r(n);
        lp_rms own;
        lp_rms ref;
        for (int i = 0; i < rows; ++i) {
            lp_fill_random(rnd, n, r.x.data(), r.y.data());
            const double want = lp_dot_f64(n, r.x.data(), r.y.data());
            const float  a = lp_q2_0_q8_0_dot      (n, r.x.data(), r.y.data());
            const float  b = lp_q2_0_q8_0_dot_ref  (n, r.x.data(), r.y.data());
            const float  c = lp_q2_0_q8_0_dot_bound(n, r.x.data(), r.y.data());
            const double m = lp_magnitude_f64(n, r.x.data(), r.y.data());
            own.add((a - want)/m);
            ref.add((b - want)/m);
            expect(std::fabs(a - b) <= c, "verification bound", n, a, b);
        }
        if (verbose) {
            std::printf("n=%5" PRId64 "  rms error / sum|products|: %.3e, reference %.3e, ratio %.3f\n", n, own.value(), ref.value(), own.value()/ref.value());
        }
        expect(own.value() <= ref.value(), "rms error against f64", n, own.value(), ref.value());
    }
}

// The bound must notice what it is for: one code wrong by one, against the largest activation of its block.
static void test_bound_bites() {
    lp_random rnd(6);
    for (int64_t n : { 256, 1024, 4096 }) {
        row r(n);
        int seen = 0;
        for (int i = 0; i < 200; ++i) {
            lp_fill_random(rnd, n, r.x.data(), r.y.data());
            const float   want  = lp_q2_0_q8_0_dot_ref  (n, r.x.data(), r.y.data());
            const float   bound = lp_q2_0_q8_0_dot_bound(n, r.x.data(), r.y.data());
            const int64_t j     = rnd.below((int) n);
            r.y[(size_t) (j/LP_QK8_0)].qs[j % LP_QK8_0] ^= 0x40;
            lp_set_code(r.x.data(), j, lp_weight_of(r.x.data(), j) >= 1 ? 0 : 3);
            seen += std::fabs(lp_q2_0_q8_0_dot(n, r.x.data(), r.y.data()) - want) > bound;
        }
        expect(seen >= 150, "wrong weights noticed by the bound", n, seen, 150);
    }
}

int main(int argc, char ** argv) {
    const bool verbose = argc > 1 && std::strcmp(argv[1], "-v") == 0;
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_cpu_init();
    bool can_run = true;
#ifdef __AVX2__
    can_run = can_run && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef __AVX512VNNI__
    can_run = can_run && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl");
#endif
#ifdef __AVXVNNI__
    // no name for it in older compilers: CPUID leaf 7, subleaf 1, EAX bit 4
    unsigned eax = 7, ebx = 0, ecx = 1, edx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    can_run = can_run && (eax >> 4 & 1);
#endif
    if (!can_run) {
        std::printf("SKIP: this machine cannot run %s\n", lp_q2_0_q8_0_isa());
        return 77;
    }
#endif
    test_exact_integers();
    test_each_position();
    test_all_halves();
    test_not_finite();
    test_extreme_scales();
    test_addresses();
    test_error(verbose);
    test_bound_bites();
    std::printf("%s: %d checks, %d failed\n", lp_q2_0_q8_0_isa(), checks, failures);
    return failures ? 1 : 0;
}

// Tests of the sampling core.
//
//     test-sampling-core [--rows N] [--seed S] [--write-digest FILE | --check-digest FILE]
//
// Three judges:
//   1. the model: a full sort and integer masses in straight-line scalar code. Kept set and token must be EQUAL, for the
//      portable and for the AVX2 passes.
//   2. the oracle: the same chain with a long double exponential and long double sums. The length of the prefix and the
//      token must lie between the answers for p -+ 1e-6 and u -+ 1e-6; in all but a handful of rows these are one answer.
//   3. a digest over every token and probability, equal for builds with and without floating-point contraction.

#include "lp-sampling.h"
#include "lp-sampling-math.h"

#include <algorithm>
#include <cfloat>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

//
// allocation counter: the core may not allocate once its scratch has grown
//

static size_t g_n_alloc = 0;

#if defined(__GNUC__)
#    define LP_NOINLINE __attribute__((noinline)) // inlined, gcc takes malloc and delete for a mismatch
#else
#    define LP_NOINLINE
#endif

#if !defined(__SANITIZE_ADDRESS__) // which has its own

LP_NOINLINE void * operator new(size_t size) {
    ++g_n_alloc;
    void * ptr = malloc(size ? size : 1);
    if (!ptr) {
        throw std::bad_alloc();
    }
    return ptr;
}

LP_NOINLINE void operator delete(void * ptr) noexcept {
    free(ptr);
}

LP_NOINLINE void operator delete(void * ptr, size_t) noexcept {
    free(ptr);
}

#endif

static int g_n_fail = 0;

#define CHECK(cond, ...)                                                    \
    do {                                                                    \
        if (!(cond)) {                                                      \
            if (g_n_fail++ < 20) {                                          \
                fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);  \
                fprintf(stderr, __VA_ARGS__);                               \
                fprintf(stderr, "\n");                                      \
            }                                                               \
        }                                                                   \
    } while (0)

//
// random numbers that are the same with every standard library (splitmix64)
//

struct random_source {
    uint64_t state;

    uint64_t next() {
        uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30))*UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27))*UINT64_C(0x94d049bb133111eb);
        return z ^ (z >> 31);
    }

    int32_t below(int32_t n) {
        return (int32_t) (next() % (uint64_t) n);
    }

    double uniform() {
        return (double) (next() >> 11)*0x1p-53;
    }

    float normal() {
        double sum = -6.0;
        for (int i = 0; i < 12; ++i) {
            sum += uniform();
        }
        return (float) sum;
    }

    template <typename T, size_t N>
    T pick(const T (&values)[N]) {
        return values[below((int32_t) N)];
    }
};

//
// rows
//

enum row_kind {
    ROW_PEAKED, ROW_HEAD, ROW_FLAT, ROW_SHARP, ROW_EQUAL, ROW_TWO_VALUED, ROW_STEPS, ROW_ULPS, ROW_SUBNORMAL, ROW_ZEROS,
    ROW_MASKED, ROW_MOSTLY_MASKED, ROW_SINGLE, ROW_NAN, ROW_NAN_AND_MASK, ROW_LARGE, ROW_HUGE, ROW_EXTREME,
    ROW_ALL_MASKED, ROW_ALL_NAN, ROW_PLUS_INF,
    ROW_COUNT,
};

static std::vector<float> make_row(random_source & rng, int32_t n, int kind) {
    std::vector<float> l(n);
    for (auto & v : l) {
        v = rng.normal();
    }
    const auto any = [&] { return rng.below(n); };

    switch (kind) {
        case ROW_PEAKED:
            for (auto & v : l) { v *= 2.0f; }
            for (int32_t i = 0; i < std::min(n, 400); ++i) { l[any()] = 18.0f - 2.0f*std::log(1.0f + (float) i) + 0.3f*rng.normal(); }
            break;
        case ROW_HEAD:
            for (auto & v : l) { v *= 2.2f; }
            for (int32_t i = 0; i < std::min(n, 2000); ++i) { l[any()] = 14.0f - std::log(1.0f + (float) i) + 0.3f*rng.normal(); }
            break;
        case ROW_SHARP:      for (auto & v : l) { v *= 30.0f; }                                     break;
        case ROW_EQUAL:      std::fill(l.begin(), l.end(), rng.normal());                           break;
        case ROW_TWO_VALUED: for (auto & v : l) { v = v > 0.7f ? 2.0f : 1.0f; }                     break;
        case ROW_STEPS:      for (auto & v : l) { v = 0.5f*std::floor(4.0f*v); }                    break;
        case ROW_ULPS:       for (auto & v : l) { v = 3.0f + (float) rng.below(5)*FLT_EPSILON*2; }  break;
        case ROW_SUBNORMAL:  for (auto & v : l) { v = (float) (rng.below(9) - 4)*1e-42f; }          break;
        case ROW_ZEROS:      for (auto & v : l) { v = v > 0.0f ? 0.0f : -0.0f; }                    break;
        case ROW_MASKED:     for (auto & v : l) { v = rng.below(2) ? -INFINITY : v; }               break;
        case ROW_MOSTLY_MASKED:
            for (auto & v : l) { v = rng.below(n) < 4 ? v : -INFINITY; }
            l[any()] = 1.0f;
            break;
        case ROW_SINGLE:
            std::fill(l.begin(), l.end(), -INFINITY);
            l[any()] = -3.0f;
            break;
        case ROW_NAN:
            for (auto & v : l) { v = rng.below(7) ? v : NAN; }
            l[any()] = 2.0f;
            break;
        case ROW_NAN_AND_MASK:
            for (auto & v : l) { v = rng.below(3) ? (rng.below(2) ? NAN : -INFINITY) : v; }
            l[any()] = 0.5f;
            break;
        case ROW_LARGE:      for (auto & v : l) { v = 1000.0f + 20.0f*v; }                          break;
        case ROW_HUGE:       for (auto & v : l) { v *= 1e30f; }                                     break;
        case ROW_EXTREME:    for (auto & v : l) { v = v > 0.0f ? FLT_MAX : -FLT_MAX; }              break;
        case ROW_ALL_MASKED: std::fill(l.begin(), l.end(), -INFINITY);                              break;
        case ROW_ALL_NAN:    std::fill(l.begin(), l.end(), NAN);                                    break;
        case ROW_PLUS_INF:   l[any()] = INFINITY; l[any()] = INFINITY;                              break;
        default:             break;
    }
    return l;
}

//
// plans
//

static lp_sampling_stage stage_k(int32_t k) {
    lp_sampling_stage s = {};
    s.type    = LP_SAMPLING_TOP_K;
    s.value.k = k;
    return s;
}

static lp_sampling_stage stage_f(lp_sampling_stage_type type, float v, int32_t min_keep = 0) {
    lp_sampling_stage s = {};
    s.type     = type;
    s.min_keep = min_keep;
    if (type == LP_SAMPLING_TEMP) {
        s.value.temp = v;
    } else {
        s.value.p = v;
    }
    return s;
}

static lp_sampling_plan make_plan(const std::vector<lp_sampling_stage> & stages, lp_sampling_final final_stage = LP_SAMPLING_DIST) {
    lp_sampling_plan plan = {};
    for (const auto & s : stages) {
        plan.stages[plan.n_stages++] = s;
    }
    plan.final_stage = final_stage;
    return plan;
}

static lp_sampling_plan random_plan(random_source & rng, int32_t n) {
    const int32_t ks[]    = { -3, 0, 1, 2, 5, 40, 200, n/2, n - 1, n, n + 5 };
    const float   ps[]    = { -1.0f, 0.0f, 1e-9f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 1.0f - 0x1p-20f, 1.0f - 0x1p-24f, 1.0f, 1.5f };
    const float   ms[]    = { -1.0f, 0.0f, 1e-38f, 1e-6f, 0.01f, 0.05f, 0.5f, 0.9999999f, 1.0f, 1.5f };
    const float   ts[]    = { 0.8f, 0.8f, 0.8f, 0.1f, 1.0f, 1.3f, 10.0f, 1e-3f, 1e-6f, 1e6f, 0.0f, -1.0f, 1e-40f };
    const int32_t keeps[] = { 0, 0, 1, 3, 50, n, n + 1 };

    std::vector<lp_sampling_stage> stages;
    if (rng.below(2)) { stages.push_back(stage_k(rng.pick(ks))); }
    if (rng.below(2)) { stages.push_back(stage_f(LP_SAMPLING_TOP_P, rng.pick(ps), rng.pick(keeps))); }
    if (rng.below(2)) { stages.push_back(stage_f(LP_SAMPLING_MIN_P, rng.pick(ms), rng.pick(keeps))); }
    if (rng.below(4)) { stages.push_back(stage_f(LP_SAMPLING_TEMP,  rng.pick(ts))); }

    return make_plan(stages, rng.below(12) ? LP_SAMPLING_DIST : LP_SAMPLING_GREEDY);
}

static std::string describe(const lp_sampling_plan & plan) {
    std::string out;
    char        buf[64];
    for (int32_t i = 0; i < plan.n_stages; ++i) {
        const auto & s = plan.stages[i];
        switch (s.type) {
            case LP_SAMPLING_TOP_K: snprintf(buf, sizeof(buf), "k=%d ", s.value.k);                     break;
            case LP_SAMPLING_TOP_P: snprintf(buf, sizeof(buf), "p=%.9g/%d ", s.value.p, s.min_keep);    break;
            case LP_SAMPLING_MIN_P: snprintf(buf, sizeof(buf), "m=%.9g/%d ", s.value.p, s.min_keep);    break;
            case LP_SAMPLING_TEMP:  snprintf(buf, sizeof(buf), "t=%.9g ", s.value.temp);                break;
        }
        out += buf;
    }
    return out + (plan.final_stage == LP_SAMPLING_DIST ? "dist" : "greedy");
}

//
// the model and the oracle, for a finite largest logit
//

struct judged {
    std::vector<int32_t> order;  // ids, total order
    bool                 walk;   // walk goes down the order
    bool                 argmax;
    int32_t              n;      // model: kept
    int32_t              n_lo;   // oracle: kept, between these
    int32_t              n_hi;
    bool                 finite; // the temperature leaves a finite maximum
    float                temp;
    float                y_max;
};

static float clean(float l) {
    return std::isnan(l) ? -INFINITY : l;
}

static long double exact_weight(float y, float y_max) {
    return y == y_max ? 1.0L : expl((long double) (y - y_max));
}

static judged judge(const std::vector<float> & l, const lp_sampling_plan & plan) {
    const int32_t n_vocab = (int32_t) l.size();

    judged j;
    j.order.resize(n_vocab);
    for (int32_t i = 0; i < n_vocab; ++i) {
        j.order[i] = i;
    }
    std::stable_sort(j.order.begin(), j.order.end(), [&](int32_t a, int32_t b) { return clean(l[a]) > clean(l[b]); });

    j.walk = false;
    j.temp = 1.0f;
    j.n    = n_vocab;
    j.n_lo = n_vocab;
    j.n_hi = n_vocab;

    const float max = clean(l[j.order[0]]);

    for (int32_t s = 0; s < plan.n_stages; ++s) {
        const auto & stage = plan.stages[s];
        if (stage.type == LP_SAMPLING_TOP_K && stage.value.k > 0) {
            j.n    = std::min(j.n, stage.value.k);
            j.n_lo = j.n;
            j.n_hi = j.n;
            j.walk = true;
        } else if (stage.type == LP_SAMPLING_TOP_P && stage.value.p < 1.0f) {
            const int32_t keep = std::max(1, stage.min_keep);

            uint64_t    mass  = 0;
            long double exact = 0.0L;
            for (int32_t i = 0; i < j.n; ++i) {
                const float v = clean(l[j.order[i]]);
                mass  += lp_sampling_mass_of(lp_sampling_weight(v, max));
                exact += exact_weight(v, max);
            }
            const double      target = std::ceil((double) stage.value.p*(double) mass);
            const long double lo     = ((long double) stage.value.p - 1e-6L)*exact;
            const long double hi     = ((long double) stage.value.p + 1e-6L)*exact;

            uint64_t    run       = 0;
            long double run_exact = 0.0L;
            int32_t     n = -1, n_lo = -1, n_hi = -1;
            for (int32_t i = 0; i < j.n; ++i) {
                const float v = clean(l[j.order[i]]);
                run       += lp_sampling_mass_of(lp_sampling_weight(v, max));
                run_exact += exact_weight(v, max);
                if (n    < 0 && (double) run >= target) { n    = i + 1; }
                if (n_lo < 0 && run_exact >= lo)        { n_lo = i + 1; }
                if (n_hi < 0 && run_exact >= hi)        { n_hi = i + 1; }
            }
            const int32_t n_all = j.n;
            const auto clamp = [&](int32_t v) { return std::min(n_all, std::max(keep, v < 0 ? n_all : v)); };
            j.n    = clamp(n);
            j.n_lo = clamp(n_lo);
            j.n_hi = clamp(n_hi);
            j.walk = true;
        } else if (stage.type == LP_SAMPLING_MIN_P && stage.value.p > 0.0f) {
            const float   threshold = max + logf(stage.value.p);
            const int32_t keep      = std::max(1, stage.min_keep);

            int32_t count = 0;
            while (count < n_vocab && clean(l[j.order[count]]) >= threshold) {
                ++count;
            }
            if (std::min(count, j.n) < keep) {
                j.walk = true;
            }
            j.n    = std::min(j.n,    std::max(keep, count));
            j.n_lo = std::min(j.n_lo, std::max(keep, count));
            j.n_hi = std::min(j.n_hi, std::max(keep, count));
        } else if (stage.type == LP_SAMPLING_TEMP) {
            j.temp = stage.value.temp;
        }
    }

    j.argmax = plan.final_stage == LP_SAMPLING_GREEDY || j.temp <= 0.0f;
    j.y_max  = j.argmax || j.temp == 1.0f ? max : max/j.temp;
    j.finite = std::isfinite(max) && std::isfinite(j.y_max);
    return j;
}

//
// one row under one plan
//

struct totals {
    uint64_t digest      = UINT64_C(1469598103934665603);
    int64_t  n_rows      = 0;
    int64_t  n_tokens    = 0;
    int64_t  n_band      = 0; // rows where the oracle left more than one length open
    int64_t  n_degenerate = 0;
};

static void mix(totals & t, uint64_t v) {
    t.digest = (t.digest ^ v)*UINT64_C(1099511628211);
}

static const double U_EDGES[] = { 0.0, 0x1p-53, 0.5, 1.0 - 0x1p-53 };

static void check_row(lp_sampling * smpl, const std::vector<float> & l, const lp_sampling_plan & plan, random_source rng,
        const char * what, totals & t) {
    const int32_t n_vocab = (int32_t) l.size();
    const judged  j       = judge(l, plan);
    const auto    text    = describe(plan);

    const auto status = lp_sampling_prepare(smpl, l.data(), n_vocab, &plan, true);
    CHECK((status == LP_SAMPLING_OK) == j.finite, "%s V=%d %s: status %d", what, n_vocab, text.c_str(), status);
    ++t.n_rows;
    if (status != LP_SAMPLING_OK) {
        ++t.n_degenerate;
        return;
    }

    // the prefix
    const int32_t n = lp_sampling_n_kept(smpl);
    CHECK(n == j.n, "%s V=%d %s: kept %d, model %d", what, n_vocab, text.c_str(), n, j.n);
    CHECK(n >= j.n_lo && n <= j.n_hi, "%s V=%d %s: kept %d, oracle %d..%d", what, n_vocab, text.c_str(), n, j.n_lo, j.n_hi);
    CHECK(lp_sampling_descending(smpl) == j.walk, "%s V=%d %s: walk", what, n_vocab, text.c_str());
    if (n != j.n) {
        return;
    }
    t.n_band += j.n_lo != j.n_hi;
    mix(t, n);

    std::vector<int32_t> kept(j.order.begin(), j.order.begin() + n);
    if (!j.walk) {
        std::sort(kept.begin(), kept.end());
    }

    // the probabilities
    std::vector<lp_sampling_candidate> cand(n);
    const int32_t first = lp_sampling_draw(smpl, 0.25);
    const int32_t sel   = lp_sampling_candidates(smpl, cand.data());
    CHECK(sel >= 0 && sel < n && cand[sel].id == first, "%s V=%d %s: selected", what, n_vocab, text.c_str());

    std::vector<float>       weights(n);
    std::vector<long double> exact(n);
    uint64_t    mass = 0;
    long double sum  = 0.0L;
    for (int32_t i = 0; i < n; ++i) {
        const float v = clean(l[kept[i]]);
        const float y = j.temp == 1.0f || j.argmax ? v : v/j.temp;
        weights[i] = lp_sampling_weight(y, j.y_max);
        exact  [i] = exact_weight(y, j.y_max);
        mass += lp_sampling_mass_of(weights[i]);
        sum  += exact[i];
    }
    for (int32_t i = 0; i < n; ++i) {
        CHECK(cand[i].id == kept[i], "%s V=%d %s: candidate %d is %d, expected %d", what, n_vocab, text.c_str(), i, cand[i].id, kept[i]);
        if (!j.argmax) {
            CHECK(std::fabs((long double) cand[i].p - exact[i]/sum) < 1e-6L, "%s V=%d %s: p[%d]", what, n_vocab, text.c_str(), i);
            uint32_t bits;
            memcpy(&bits, &cand[i].p, sizeof(bits));
            mix(t, bits);
        }
    }
    if (j.argmax) {
        CHECK(first == j.order[0], "%s V=%d %s: argmax %d", what, n_vocab, text.c_str(), first);
        CHECK(cand[sel].p == 1.0f, "%s V=%d %s: argmax p", what, n_vocab, text.c_str());
        mix(t, first);
        // and without candidates, where the prefix is never found
        CHECK(lp_sampling_prepare(smpl, l.data(), n_vocab, &plan, false) == LP_SAMPLING_OK, "argmax");
        CHECK(lp_sampling_draw(smpl, 0.5) == first, "%s V=%d %s: argmax alone", what, n_vocab, text.c_str());
        return;
    }
    CHECK(mass == lp_sampling_mass(smpl), "%s V=%d %s: mass", what, n_vocab, text.c_str());

    // the draws, with and without candidates
    const int n_u = n_vocab > 5000 ? 6 : 10;
    for (int want = 1; want >= 0; --want) {
        CHECK(lp_sampling_prepare(smpl, l.data(), n_vocab, &plan, want != 0) == LP_SAMPLING_OK, "prepare");
        random_source us = rng;
        for (int i = 0; i < n_u; ++i) {
            const double  u     = i < 4 ? U_EDGES[i] : us.uniform();
            const int32_t token = lp_sampling_draw(smpl, u);
            ++t.n_tokens;
            mix(t, token);

            // the place is the first with running mass > u*mass
            __extension__ typedef unsigned __int128 u128;
            const u128     prod = (u128) (uint64_t) (u*0x1p64)*mass;
            const uint64_t cut  = (uint64_t) (prod >> 64);

            uint64_t    run       = 0;
            long double run_exact = 0.0L;
            int32_t     at = -1, at_lo = -1, at_hi = -1;
            for (int32_t c = 0; c < n; ++c) {
                run       += lp_sampling_mass_of(weights[c]);
                run_exact += exact[c];
                if (at    < 0 && run > cut)                            { at    = c; }
                if (at_lo < 0 && run_exact >= ((long double) u - 1e-6L)*sum) { at_lo = c; }
                if (at_hi < 0 && run_exact >= ((long double) u + 1e-6L)*sum) { at_hi = c; }
                if (at >= 0 && at_hi >= 0) {
                    break;
                }
            }
            at_hi = at_hi < 0 ? n - 1 : at_hi;

            CHECK(at >= 0 && token == kept[at], "%s V=%d %s: u=%.17g token %d, model %d", what, n_vocab, text.c_str(), u, token, at < 0 ? -1 : kept[at]);
            CHECK(at >= at_lo && at <= at_hi, "%s V=%d %s: u=%.17g place %d, oracle %d..%d", what, n_vocab, text.c_str(), u, at, at_lo, at_hi);
            CHECK(at < 0 || lp_sampling_mass_of(weights[at]) > 0, "%s V=%d %s: a token of no mass", what, n_vocab, text.c_str());
        }
    }
}

//
// tests
//

static void test_exp() {
    double worst = 0.0;
    for (uint32_t i = 0; i <= 87u << 16; i += 3) {
        const float  x     = -(float) i/65536.0f;
        const double got   = lp_sampling_exp(x);
        const double exact = exp((double) x);
        const double ulp   = std::ldexp(1.0, std::ilogb(exact) - 23);
        worst = std::max(worst, std::fabs(got - exact)/ulp);
        CHECK(got <= 1.0, "exp(%g) = %g", (double) x, got);
    }
    CHECK(worst < 1.1, "exp: %g ulp", worst);
    CHECK(lp_sampling_exp(0.0f) == 1.0f && lp_sampling_exp(-0.0f) == 1.0f, "exp(0)");
    CHECK(lp_sampling_exp(-INFINITY) == 0.0f && lp_sampling_exp(NAN) == 0.0f && lp_sampling_exp(-1e30f) == 0.0f, "exp edges");
    CHECK(lp_sampling_mass_of(1.0f) == UINT64_C(1) << 40, "mass(1)");
    CHECK(lp_sampling_mass_of(0x1p-40f) == 1 && lp_sampling_mass_of(0x1.fffffep-41f) == 0, "mass floor");
    printf("exp: worst error %.3f ulp\n", worst);
}

// what each parameter means at its edges, on a row that can be read
static void test_semantics(lp_sampling * s) {
    const std::vector<float> row = { 1.0f, 3.0f, 2.0f, 3.0f, 0.0f, 2.0f }; // order: 1 3 2 5 0 4

    struct semantic {
        const char *                   name;
        std::vector<lp_sampling_stage> stages;
        std::vector<int32_t>           ids; // in walk order
    };
    const auto P = LP_SAMPLING_TOP_P;
    const auto M = LP_SAMPLING_MIN_P;
    const auto T = LP_SAMPLING_TEMP;

    const semantic cases[] = {
        { "nothing: id order",          {},                                         { 0, 1, 2, 3, 4, 5 } },
        { "k = 0 keeps all",            { stage_k(0) },                             { 0, 1, 2, 3, 4, 5 } },
        { "k < 0 keeps all",            { stage_k(-1) },                            { 0, 1, 2, 3, 4, 5 } },
        { "k = 1: lowest id of a tie",  { stage_k(1) },                             { 1 } },
        { "k cuts a tie",               { stage_k(3) },                             { 1, 3, 2 } },
        { "k = V sorts",                { stage_k(6) },                             { 1, 3, 2, 5, 0, 4 } },
        { "k > V sorts",                { stage_k(9) },                             { 1, 3, 2, 5, 0, 4 } },
        { "p = 0 keeps one",            { stage_f(P, 0.0f) },                       { 1 } },
        { "p < 0 keeps one",            { stage_f(P, -1.0f) },                      { 1 } },
        { "p = 0, min_keep 3",          { stage_f(P, 0.0f, 3) },                    { 1, 3, 2 } },
        { "p = 1 keeps all",            { stage_f(P, 1.0f) },                       { 0, 1, 2, 3, 4, 5 } },
        { "p > 1 keeps all",            { stage_f(P, 1.5f) },                       { 0, 1, 2, 3, 4, 5 } },
        { "p = 0.7: the tie",           { stage_f(P, 0.7f) },                       { 1, 3, 2 } },
        { "p after k",                  { stage_k(2), stage_f(P, 0.5f) },           { 1 } },
        { "min_p = 0 keeps all",        { stage_f(M, 0.0f) },                       { 0, 1, 2, 3, 4, 5 } },
        { "min_p = 0.3: id order",      { stage_f(M, 0.3f) },                       { 1, 2, 3, 5 } },
        { "min_p = 1 keeps the tie",    { stage_f(M, 1.0f) },                       { 1, 3 } },
        { "min_p > 1 keeps one",        { stage_f(M, 2.0f) },                       { 1 } },
        { "min_p, min_keep 5: sorted",  { stage_f(M, 1.0f, 5) },                    { 1, 3, 2, 5, 0 } },
        { "min_p after k: sorted",      { stage_k(6), stage_f(M, 0.3f) },           { 1, 3, 2, 5 } },
        { "min_p before the temp",      { stage_f(M, 0.3f), stage_f(T, 0.1f) },     { 1, 2, 3, 5 } },
        { "min_keep > V",               { stage_f(P, 0.1f, 99) },                   { 1, 3, 2, 5, 0, 4 } },
    };
    for (const auto & c : cases) {
        const auto plan = make_plan(c.stages);
        CHECK(lp_sampling_prepare(s, row.data(), (int32_t) row.size(), &plan, true) == LP_SAMPLING_OK, "%s", c.name);
        std::vector<lp_sampling_candidate> cand(row.size());
        lp_sampling_draw(s, 0.0);
        lp_sampling_candidates(s, cand.data());
        std::vector<int32_t> ids;
        for (int32_t i = 0; i < lp_sampling_n_kept(s); ++i) {
            ids.push_back(cand[i].id);
        }
        CHECK(ids == c.ids, "%s", c.name);
        CHECK(lp_sampling_draw(s, 1.0 - 0x1p-53) == c.ids.back(), "%s: last token", c.name);
    }

    for (const float temp : { 0.0f, -1.0f }) {
        const auto plan = make_plan({ stage_f(T, temp) });
        CHECK(lp_sampling_prepare(s, row.data(), 6, &plan, true) == LP_SAMPLING_OK, "temp %g", (double) temp);
        CHECK(lp_sampling_draw(s, 0.99) == 1, "temp %g: the first maximum", (double) temp);
        lp_sampling_candidate cand[6];
        CHECK(lp_sampling_candidates(s, cand) == 1 && lp_sampling_n_kept(s) == 6, "temp %g: all stay", (double) temp);
        CHECK(cand[3].logit == -INFINITY && cand[3].p == 0.0f && cand[1].logit == 3.0f, "temp %g: the others are hidden", (double) temp);
    }

    const lp_sampling_plan swapped = make_plan({ stage_f(T, 0.5f), stage_k(2) });
    CHECK(lp_sampling_plan_reject(&swapped) != nullptr, "temperature before top-k is another chain");
    CHECK(lp_sampling_prepare(s, row.data(), 6, &swapped, false) == LP_SAMPLING_UNSUPPORTED, "swapped");
    const lp_sampling_plan twice = make_plan({ stage_k(3), stage_k(2) });
    CHECK(lp_sampling_plan_reject(&twice) != nullptr, "a stage twice");
    for (const float bad : { NAN, INFINITY }) {
        const lp_sampling_plan nan_p = make_plan({ stage_f(P, bad) });
        CHECK(lp_sampling_plan_reject(&nan_p) != nullptr, "p is not finite");
    }
    const lp_sampling_plan plain = make_plan({});
    CHECK(lp_sampling_prepare(s, row.data(), 0, &plain, false) == LP_SAMPLING_UNSUPPORTED, "an empty row");
}

// Every token gets its share of an even sweep of u, to within one step: a deterministic test of the whole law, stronger
// than a chi-square over random draws.
static void test_cdf(lp_sampling * s, random_source rng, int32_t n_steps) {
    const int32_t sizes[] = { 1, 2, 33, 1000, 5000 };
    const int     kinds[] = { ROW_PEAKED, ROW_HEAD, ROW_FLAT, ROW_TWO_VALUED, ROW_MASKED, ROW_NAN };

    for (const int32_t n_vocab : sizes) {
        for (const int kind : kinds) {
            auto row = make_row(rng, n_vocab, kind);
            row[0] = std::max(clean(row[0]), 1.0f);
            const lp_sampling_plan plans[] = {
                make_plan({}),
                make_plan({ stage_k(40), stage_f(LP_SAMPLING_TOP_P, 0.95f), stage_f(LP_SAMPLING_MIN_P, 0.05f), stage_f(LP_SAMPLING_TEMP, 0.8f) }),
                make_plan({ stage_f(LP_SAMPLING_TOP_P, 0.95f) }),
                make_plan({ stage_f(LP_SAMPLING_MIN_P, 0.01f), stage_f(LP_SAMPLING_TEMP, 1.5f) }),
                make_plan({ stage_k(n_vocab), stage_f(LP_SAMPLING_TEMP, 0.7f) }),
            };
            for (const auto & plan : plans) {
                if (lp_sampling_prepare(s, row.data(), n_vocab, &plan, true) != LP_SAMPLING_OK) {
                    CHECK(false, "cdf: prepare");
                    continue;
                }
                std::vector<int32_t> count(n_vocab);
                std::vector<lp_sampling_candidate> cand(lp_sampling_n_kept(s));
                lp_sampling_draw(s, 0.0);
                lp_sampling_candidates(s, cand.data());

                // the sweep itself runs on the path without candidates
                CHECK(lp_sampling_prepare(s, row.data(), n_vocab, &plan, false) == LP_SAMPLING_OK, "cdf: prepare");
                for (int32_t i = 0; i < n_steps; ++i) {
                    count[lp_sampling_draw(s, (double) i/n_steps)]++;
                }
                int32_t seen = 0;
                for (const auto & c : cand) {
                    CHECK(std::fabs(count[c.id] - (double) n_steps*c.p) <= 1.01, "cdf: V=%d kind %d %s: token %d drawn %d times, expected %.2f",
                            n_vocab, kind, describe(plan).c_str(), c.id, count[c.id], (double) n_steps*c.p);
                    seen += count[c.id];
                }
                CHECK(seen == n_steps, "cdf: a token outside of the kept set");
            }
        }
    }
}

static void test_no_allocation(lp_sampling * s, random_source rng) {
    const int32_t n_vocab = 32000;
    std::vector<std::vector<float>> rows;
    for (const int kind : { ROW_PEAKED, ROW_HEAD, ROW_FLAT, ROW_EQUAL, ROW_MASKED }) {
        rows.push_back(make_row(rng, n_vocab, kind));
    }
    const lp_sampling_plan plans[] = {
        make_plan({ stage_k(40), stage_f(LP_SAMPLING_TOP_P, 0.95f), stage_f(LP_SAMPLING_MIN_P, 0.05f), stage_f(LP_SAMPLING_TEMP, 0.8f) }),
        make_plan({ stage_f(LP_SAMPLING_TOP_P, 0.95f) }),
        make_plan({ stage_f(LP_SAMPLING_MIN_P, 0.05f) }),
        make_plan({}),
        make_plan({ stage_k(n_vocab) }),
    };
    for (int pass = 0; pass < 2; ++pass) {
        const size_t before = g_n_alloc;
        for (const auto & row : rows) {
            for (const auto & plan : plans) {
                for (int i = 0; i < 2; ++i) {
                    lp_sampling_prepare(s, row.data(), n_vocab, &plan, i == 1);
                    lp_sampling_draw(s, 0.7);
                }
            }
        }
        CHECK(pass == 0 || g_n_alloc == before, "%zu allocations after warm-up", g_n_alloc - before);
    }
}

static void test_rows(lp_sampling * s, int64_t n_rows, uint64_t seed, const char * what, totals & t) {
    const int32_t small[] = { 1, 2, 3, 7, 8, 31, 32, 33, 63, 127, 128, 129, 300, 511, 1000, 1023, 1024, 1025, 2049, 4097 };
    const int32_t large[] = { 32000, 128256, 151936, 262144 };

    random_source rng = { seed };
    for (int64_t i = 0; i < n_rows; ++i) {
        const int     kind    = (int) (i % ROW_COUNT);
        const int32_t n_vocab = i % 400 == 399 ? rng.pick(large) : i % 8 == 0 ? 1 + rng.below(4500) : rng.pick(small);
        const auto    row     = make_row(rng, n_vocab, kind);
        const auto    plan    = random_plan(rng, n_vocab);
        check_row(s, row, plan, rng, what, t);
        rng.next();
    }
}

int main(int argc, char ** argv) {
    int64_t      n_rows = 3000;
    uint64_t     seed   = 1;
    const char * write  = nullptr;
    const char * check  = nullptr;

    for (int i = 1; i < argc; ++i) {
        const bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--rows") && more) {
            n_rows = atoll(argv[++i]);
        } else if (!strcmp(argv[i], "--seed") && more) {
            seed = strtoull(argv[++i], nullptr, 10);
        } else if (!strcmp(argv[i], "--write-digest") && more) {
            write = argv[++i];
        } else if (!strcmp(argv[i], "--check-digest") && more) {
            check = argv[++i];
        } else {
            fprintf(stderr, "usage: %s [--rows N] [--seed S] [--write-digest FILE | --check-digest FILE]\n", argv[0]);
            return 2;
        }
    }

    test_exp();

    struct {
        lp_sampling_isa isa;
        const char *    name;
    } const isas[] = {
        { LP_SAMPLING_ISA_PORTABLE, "portable" },
        { LP_SAMPLING_ISA_AVX2,     "avx2"     },
    };

    uint64_t digest = 0;
    for (const auto & isa : isas) {
        lp_sampling * s = lp_sampling_new();
        if (!lp_sampling_set_isa(s, isa.isa)) {
            printf("%s: not on this machine\n", isa.name);
            lp_sampling_free(s);
            continue;
        }
        test_semantics(s);
        // a library call for each multiply-add makes the portable passes slow; they draw the same tokens
        test_cdf(s, { seed }, isa.isa == LP_SAMPLING_ISA_PORTABLE ? 1 << 11 : 1 << 14);
        test_no_allocation(s, { seed });

        totals t;
        test_rows(s, n_rows, seed, isa.name, t);
        lp_sampling_free(s);

        printf("%s: %" PRId64 " rows, %" PRId64 " without a distribution, %" PRId64 " tokens, %" PRId64
                " rows with the nucleus inside of the oracle's band, digest %016" PRIx64 "\n",
                isa.name, t.n_rows, t.n_degenerate, t.n_tokens, t.n_band, t.digest);

        CHECK(digest == 0 || digest == t.digest, "the implementations differ");
        digest = t.digest;
    }

    if (write) {
        FILE * f = fopen(write, "w");
        CHECK(f && fprintf(f, "%016" PRIx64 "\n", digest) > 0 && fclose(f) == 0, "cannot write %s", write);
    }
    if (check) {
        uint64_t expected = 0;
        FILE *   f        = fopen(check, "r");
        CHECK(f && fscanf(f, "%" SCNx64, &expected) == 1, "cannot read %s", check);
        if (f) {
            fclose(f);
        }
        CHECK(expected == digest, "digest %016" PRIx64 ", the other build has %016" PRIx64, digest, expected);
    }

    if (g_n_fail) {
        fprintf(stderr, "%d checks failed\n", g_n_fail);
        return 1;
    }
    printf("ok\n");
    return 0;
}

#pragma once

// Exact sampling from a row of logits without sorting it and without building a candidate array.
//
// Every truncation that llama.cpp offers by default keeps a prefix of one total order: logit descending, then token id
// ascending. A chain of samplers is therefore one number, the length of that prefix, and a token is the place where the
// running mass of the prefix crosses u times its total. Both are found by selection, never by a sort of the row.
//
// The mass of a candidate is an integer, floor(exp(x) * 2^40), so sums do not depend on the order of the additions and
// are equal on every machine, bit for bit. See README.md for the mathematics.
//
//     struct lp_sampling * smpl = lp_sampling_new();
//     if (lp_sampling_prepare(smpl, logits, n_vocab, &plan, false) == LP_SAMPLING_OK) {
//         token = lp_sampling_draw(smpl, u);    // u in [0, 1)
//     }
//
// An object is scratch memory that is reused from token to token; one thread at a time may use it.

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LP_SAMPLING_MAX_STAGES 8

enum lp_sampling_stage_type {
    LP_SAMPLING_TOP_K, // value.k;    k <= 0 keeps everything
    LP_SAMPLING_TOP_P, // value.p;    p >= 1 keeps everything, the most probable candidate always stays
    LP_SAMPLING_MIN_P, // value.p;    p <= 0 keeps everything, the most probable candidate always stays
    LP_SAMPLING_TEMP,  // value.temp; temp <= 0 leaves the most probable candidate only
};

struct lp_sampling_stage {
    enum lp_sampling_stage_type type;

    union {
        int32_t k;
        float   p;
        float   temp;
    } value;

    int32_t min_keep; // TOP_P, MIN_P: keep at least this many
};

enum lp_sampling_final {
    LP_SAMPLING_GREEDY, // the first of the most probable candidates
    LP_SAMPLING_DIST,   // inverse transform of one uniform
};

// What a sampler chain does, in the order in which it does it.
struct lp_sampling_plan {
    struct lp_sampling_stage stages[LP_SAMPLING_MAX_STAGES];

    int32_t n_stages;

    enum lp_sampling_final final_stage;
};

enum lp_sampling_status {
    LP_SAMPLING_OK = 0,
    LP_SAMPLING_UNSUPPORTED, // lp_sampling_plan_reject() says why
    LP_SAMPLING_DEGENERATE,  // the largest logit, or the largest logit / temperature, is not finite: no distribution
};

enum lp_sampling_isa {
    LP_SAMPLING_ISA_BEST,     // what this machine has
    LP_SAMPLING_ISA_PORTABLE,
    LP_SAMPLING_ISA_AVX2,
};

struct lp_sampling;

// Same memory layout as llama_token_data.
struct lp_sampling_candidate {
    int32_t id;
    float   logit; // divided by the temperature
    float   p;     // normalised over the kept candidates
};

struct lp_sampling * lp_sampling_new (void);
void                 lp_sampling_free(struct lp_sampling * smpl);

// Returns false, and changes nothing, when this build or this machine cannot run it. For tests; the results are equal.
bool lp_sampling_set_isa(struct lp_sampling * smpl, enum lp_sampling_isa isa);

// True when the fused multiply-add of the best implementation is an instruction. Where it is a library call (x86 without
// AVX2), the results are the same but a sort is faster.
bool lp_sampling_is_fast(void);

// NULL when the plan can be run, else the reason as a string literal. Accepted are TOP_K, TOP_P, MIN_P, TEMP in this
// order, each at most once, any of them absent.
const char * lp_sampling_plan_reject(const struct lp_sampling_plan * plan);

// Finds the kept prefix of a row. The row must stay unchanged until the draw and the candidates are done with.
// A NaN is a logit of minus infinity. want_candidates: lp_sampling_candidates() will be called.
enum lp_sampling_status lp_sampling_prepare(
        struct lp_sampling            * smpl,
        const float                   * logits,
        int32_t                         n_vocab,
        const struct lp_sampling_plan * plan,
        bool                            want_candidates);

// Token for a uniform u in [0, 1). Does not change the prefix: may be called again with another u.
// With LP_SAMPLING_GREEDY or a temperature <= 0, u is not looked at.
int32_t lp_sampling_draw(struct lp_sampling * smpl, double u);

// After lp_sampling_prepare(). With want_candidates: how many candidates are kept.
int32_t  lp_sampling_n_kept    (const struct lp_sampling * smpl);
// The walk goes from the largest logit down (as in llama.cpp once a stage has sorted), else by id.
bool     lp_sampling_descending(const struct lp_sampling * smpl);
// Mass of the kept candidates in units of 2^-40; 0 when only an argmax was asked for.
uint64_t lp_sampling_mass      (const struct lp_sampling * smpl);

// With want_candidates, after lp_sampling_draw(): the kept candidates in walk order, dst holds lp_sampling_n_kept()
// entries. Returns the index of the token that was drawn last.
int32_t lp_sampling_candidates(struct lp_sampling * smpl, struct lp_sampling_candidate * dst);

#ifdef __cplusplus
}
#endif

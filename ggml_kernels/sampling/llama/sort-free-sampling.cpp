#include "sort-free-sampling.h"

#include "llama-impl.h"

#include "ggml-lp.h"

#include <algorithm>
#include <climits>
#include <cstddef>
#include <memory>

static_assert(sizeof(lp_sampling_candidate) == sizeof(llama_token_data) &&
              offsetof(lp_sampling_candidate, id)    == offsetof(llama_token_data, id) &&
              offsetof(lp_sampling_candidate, logit) == offsetof(llama_token_data, logit) &&
              offsetof(lp_sampling_candidate, p)     == offsetof(llama_token_data, p),
        "the core writes candidates in place");

static ggml_lp_patch * lp_patch() {
    static ggml_lp_patch * const patch = ggml_lp_get("sort-free-sampling");
    return patch;
}

struct lp_sampling_deleter {
    void operator()(lp_sampling * smpl) { lp_sampling_free(smpl); }
};

// scratch of this thread, kept from token to token
static lp_sampling * lp_scratch() {
    static thread_local std::unique_ptr<lp_sampling, lp_sampling_deleter> scratch(lp_sampling_new());
    return scratch.get();
}

bool llama_lp_chain_plan::add(lp_sampling_stage_type type, float value, size_t min_keep) {
    if (stages.n_stages == LP_SAMPLING_MAX_STAGES) {
        return false;
    }
    auto & stage = stages.stages[stages.n_stages++];
    stage.type     = type;
    stage.min_keep = (int32_t) std::min<size_t>(min_keep, INT32_MAX);
    if (type == LP_SAMPLING_TEMP) {
        stage.value.temp = value;
    } else {
        stage.value.p = value;
    }
    return true;
}

bool llama_lp_chain_plan::add_top_k(int32_t k) {
    if (stages.n_stages == LP_SAMPLING_MAX_STAGES) {
        return false;
    }
    auto & stage = stages.stages[stages.n_stages++];
    stage.type     = LP_SAMPLING_TOP_K;
    stage.min_keep = 0;
    stage.value.k  = k;
    return true;
}

// exactly the draw of llama_sampler_dist
static double lp_uniform(std::mt19937 & rng) {
    std::uniform_real_distribution<double> dist(0.0f, 1.0f);
    return dist(rng);
}

// both paths on copies: nothing that the real path will use is touched
static void lp_verify(llama_sampler * smpl, const float * logits, int32_t n_vocab, lp_sampling * scratch, const llama_lp_chain_plan & plan) {
    double      u     = 0.0;
    llama_token token = LLAMA_TOKEN_NULL;
    if (plan.rng) {
        std::mt19937 rng = *plan.rng;
        u = lp_uniform(rng);
    }
    token = lp_sampling_draw(scratch, u);

    std::vector<llama_token_data> cur(n_vocab);
    for (llama_token id = 0; id < n_vocab; ++id) {
        cur[id] = llama_token_data{ id, logits[id], 0.0f };
    }
    llama_token_data_array cur_p = { cur.data(), cur.size(), -1, false };

    llama_sampler * clone = llama_sampler_clone(smpl);
    llama_sampler_apply(clone, &cur_p);
    llama_sampler_free(clone);

    const llama_token expected = cur_p.selected >= 0 ? cur_p.data[cur_p.selected].id : LLAMA_TOKEN_NULL;
    if (token == expected) {
        return;
    }
    ggml_lp_differs(lp_patch(), 1);

    // the two explained causes: equal logits, whose order upstream leaves to its sort, and a nucleus that upstream's
    // 32-bit running sum cuts elsewhere
    const bool tie = expected != LLAMA_TOKEN_NULL && logits[token] == logits[expected];
    LLAMA_LOG_WARN("%s: sort-free sampling draws %d (logit %.9g), the chain draws %d (logit %.9g): u = %.17g, kept %d and %zu, mass %.9g%s\n",
            __func__, token, (double) logits[token], expected, expected != LLAMA_TOKEN_NULL ? (double) logits[expected] : 0.0, u,
            lp_sampling_n_kept(scratch), cur_p.size, (double) lp_sampling_mass(scratch)*0x1p-40, tie ? ", equal logits" : "");
}

// cur == nullptr: only the token is wanted
static llama_token lp_sample_impl(
        llama_sampler                 * smpl,
        const float                   * logits,
        int32_t                         n_vocab,
        std::vector<llama_token_data> * cur,
        llama_token_data_array        * cur_p) {
    ggml_lp_patch * patch = lp_patch();

    static const bool is_fast = lp_sampling_is_fast();
    if (!is_fast) {
        ggml_lp_fallback(patch, "no fused multiply-add", 1);
        return LLAMA_TOKEN_NULL;
    }

    llama_lp_chain_plan plan;

    const char * reason = llama_lp_chain_plan_get(smpl, plan);
    if (reason == nullptr) {
        reason = lp_sampling_plan_reject(&plan.stages);
    }
    if (reason != nullptr) {
        ggml_lp_fallback(patch, reason, 1);
        return LLAMA_TOKEN_NULL;
    }

    const bool verify = ggml_lp_mode_of(patch) == GGML_LP_VERIFY;

    int64_t   t_unused = 0;
    time_meas tm(plan.t_sample_us ? *plan.t_sample_us : t_unused, plan.no_perf || verify);

    lp_sampling * scratch = lp_scratch();

    if (lp_sampling_prepare(scratch, logits, n_vocab, &plan.stages, cur != nullptr) != LP_SAMPLING_OK) {
        // no finite maximum: whatever upstream makes of such a row
        ggml_lp_fallback(patch, "no finite maximum", 1);
        return LLAMA_TOKEN_NULL;
    }
    ggml_lp_handled(patch, 1);

    if (verify) {
        lp_verify(smpl, logits, n_vocab, scratch, plan);
        return LLAMA_TOKEN_NULL;
    }

    const double      u     = plan.rng ? lp_uniform(*plan.rng) : 0.0;
    const llama_token token = lp_sampling_draw(scratch, u);

    if (cur != nullptr) {
        cur->resize(lp_sampling_n_kept(scratch));

        cur_p->data     = cur->data();
        cur_p->size     = cur->size();
        cur_p->selected = lp_sampling_candidates(scratch, (lp_sampling_candidate *) cur->data());
        cur_p->sorted   = lp_sampling_descending(scratch);
    }

    return token;
}

llama_token llama_lp_sample(llama_sampler * smpl, const float * logits, int32_t n_vocab) {
    if (ggml_lp_mode_of(lp_patch()) == GGML_LP_OFF) {
        return LLAMA_TOKEN_NULL;
    }
    return lp_sample_impl(smpl, logits, n_vocab, nullptr, nullptr);
}

llama_token llama_lp_sample_candidates(
        llama_sampler                 * smpl,
        llama_context                 * ctx,
        int32_t                         idx,
        const char                    * blocked,
        std::vector<llama_token_data> & cur,
        llama_token_data_array        & cur_p) {
    if (ggml_lp_mode_of(lp_patch()) == GGML_LP_OFF) {
        return LLAMA_TOKEN_NULL;
    }
    if (blocked) {
        ggml_lp_fallback(lp_patch(), blocked, 1);
        return LLAMA_TOKEN_NULL;
    }
    if (llama_get_sampled_token_ith(ctx, idx) != LLAMA_TOKEN_NULL || llama_get_sampled_probs_ith(ctx, idx) || llama_get_sampled_logits_ith(ctx, idx)) {
        ggml_lp_fallback(lp_patch(), "backend sampler", 1);
        return LLAMA_TOKEN_NULL;
    }

    const float * logits = llama_get_logits_ith(ctx, idx);
    if (logits == nullptr) {
        return LLAMA_TOKEN_NULL;
    }

    return lp_sample_impl(smpl, logits, llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx))), &cur, &cur_p);
}

#pragma once

// Sort-free sampling behind llama_sampler_sample() and common_sampler_sample().
//
// Both call in here before they build the candidate array. The answer is a token, or LLAMA_TOKEN_NULL: then the caller
// goes on as it always did. Nothing has changed in that case, the random generator included.
//
// Switch: LLAMA_LP_SORT_FREE_SAMPLING=off|on|verify

#include "llama.h"

#include "lp-sampling.h"

#include <cstdint>
#include <random>
#include <vector>

// What is needed to know of a chain, whose samplers are private to llama-sampler.cpp.
struct llama_lp_chain_plan {
    lp_sampling_plan stages = {};

    std::mt19937 * rng = nullptr; // of the dist sampler; null when the chain ends in greedy

    int64_t * t_sample_us = nullptr; // the chain's own timing
    bool      no_perf     = true;

    bool is_final = false;

    // false when there is no room
    bool add(lp_sampling_stage_type type, float value, size_t min_keep);
    bool add_top_k(int32_t k);
};

// Implemented in llama-sampler.cpp. Returns NULL when the plan says all that the chain does, else why not.
const char * llama_lp_chain_plan_get(llama_sampler * smpl, llama_lp_chain_plan & plan);

// The token for the raw logits of an output, already drawn but not accepted.
llama_token llama_lp_sample(llama_sampler * smpl, const float * logits, int32_t n_vocab);

// The same for common_sampler_sample(): cur and cur_p become what the chain would have left in them. `blocked` is a
// reason of the caller not to try (a string literal), or NULL.
LLAMA_API llama_token llama_lp_sample_candidates(
        llama_sampler                 * smpl,
        llama_context                 * ctx,
        int32_t                         idx,
        const char                    * blocked,
        std::vector<llama_token_data> & cur,
        llama_token_data_array        & cur_p);

// Time of one llama_sampler_sample() through llama.cpp's public API, from a row of raw logits to the token.
//
//     bench-sampling --model MODEL.gguf [--reps N] [--seed S] [--case TEXT] [--list]
//     bench-sampling --model MODEL.gguf --check N
//
// The model only lends its vocabulary size and a context: one token is decoded, then its row of logits is overwritten by
// rows of known shape. Run it once for each build and switch to compare, for example
//
//     LD_LIBRARY_PATH=base/bin                                        bench-sampling --model vocab-128k.gguf
//     LD_LIBRARY_PATH=patched/bin LLAMA_LP_SORT_FREE_SAMPLING=on      bench-sampling --model vocab-128k.gguf
//
// Standard output has one JSON object per case: {"case", "ns": [time of each call], "work": 1, "unit": "token"}.
//
// --check draws N tokens per case twice, from two chains with one seed: with llama_sampler_sample(), where a patch may step
// in, and by hand with a candidate array and llama_sampler_apply(), where none can. It prints how many differ and exits
// with 1 when a case that must agree does not.

#include "llama.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

enum row_kind {
    ROW_PEAKED, // a confident step: a steep head above a wide body
    ROW_WIDE,   // an undecided step: thousands of candidates share the mass
    ROW_FLAT,   // white noise
};

struct bench_case {
    const char * name;
    row_kind     kind;

    int32_t k;     // 0: no top-k
    float   p;     // 1: no top-p
    float   min_p; // 0: no min-p
    float   temp;  // 1: no temperature
    bool    greedy;

    // tokens must be those of upstream's samplers: few candidates, so that no rounding of a sum can matter
    bool must_agree;
};

static const bench_case k_cases[] = {
    { "default-peaked",  ROW_PEAKED, 40, 0.95f, 0.05f, 0.8f, false, true  },
    { "default-wide",    ROW_WIDE,   40, 0.95f, 0.05f, 0.8f, false, true  },
    { "default-flat",    ROW_FLAT,   40, 0.95f, 0.05f, 0.8f, false, true  },
    { "top-k-1000-wide", ROW_WIDE, 1000, 1.0f,  0.0f,  0.8f, false, false },
    { "top-p-peaked",    ROW_PEAKED,  0, 0.95f, 0.0f,  1.0f, false, false },
    { "top-p-wide",      ROW_WIDE,    0, 0.95f, 0.0f,  1.0f, false, false },
    { "top-p-flat",      ROW_FLAT,    0, 0.95f, 0.0f,  1.0f, false, false },
    { "min-p-peaked",    ROW_PEAKED,  0, 1.0f,  0.05f, 1.0f, false, true  },
    { "min-p-wide",      ROW_WIDE,    0, 1.0f,  0.05f, 1.0f, false, true  },
    { "dist-peaked",     ROW_PEAKED,  0, 1.0f,  0.0f,  1.0f, false, false },
    { "dist-flat",       ROW_FLAT,    0, 1.0f,  0.0f,  1.0f, false, false },
    { "greedy-peaked",   ROW_PEAKED,  0, 1.0f,  0.0f,  1.0f, true,  true  },
};

static std::vector<float> make_row(row_kind kind, int32_t n_vocab, std::mt19937 & rng) {
    std::normal_distribution<float> normal(0.0f, 1.0f);

    std::vector<float> row(n_vocab);

    const float body = kind == ROW_PEAKED ? 2.0f : kind == ROW_WIDE ? 2.2f : 1.0f;
    for (auto & l : row) {
        l = body*normal(rng);
    }
    const int   n_head = kind == ROW_PEAKED ? 400   : kind == ROW_WIDE ? 2000  : 0;
    const float top    = kind == ROW_PEAKED ? 18.0f : 14.0f;
    const float slope  = kind == ROW_PEAKED ?  2.0f :  1.0f;
    for (int i = 0; i < n_head; ++i) {
        row[rng() % n_vocab] = top - slope*std::log(1.0f + (float) i) + 0.3f*normal(rng);
    }
    return row;
}

static llama_sampler * make_chain(const bench_case & c, uint32_t seed) {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;

    llama_sampler * chain = llama_sampler_chain_init(params);
    if (c.k > 0) {
        llama_sampler_chain_add(chain, llama_sampler_init_top_k(c.k));
    }
    if (c.p < 1.0f) {
        llama_sampler_chain_add(chain, llama_sampler_init_top_p(c.p, 0));
    }
    if (c.min_p > 0.0f) {
        llama_sampler_chain_add(chain, llama_sampler_init_min_p(c.min_p, 0));
    }
    if (c.temp != 1.0f) {
        llama_sampler_chain_add(chain, llama_sampler_init_temp_ext(c.temp, 0.0f, 1.0f));
    }
    llama_sampler_chain_add(chain, c.greedy ? llama_sampler_init_greedy() : llama_sampler_init_dist(seed));
    return chain;
}

static void run_case(const bench_case & c, llama_context * ctx, const std::vector<std::vector<float>> & rows, int reps, uint32_t seed) {
    float * const   logits = llama_get_logits_ith(ctx, -1);
    llama_sampler * chain  = make_chain(c, seed);

    const int n_warmup = (int) rows.size();

    printf("{\"case\": \"%s\", \"ns\": [", c.name);
    for (int i = -n_warmup; i < reps; ++i) {
        const auto & row = rows[(size_t) (i + n_warmup) % rows.size()];
        memcpy(logits, row.data(), row.size()*sizeof(float));

        const auto t0 = std::chrono::steady_clock::now();
        llama_sampler_sample(chain, ctx, -1);
        const auto t1 = std::chrono::steady_clock::now();

        if (i >= 0) {
            const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(t1 - t0).count();
            printf("%s%" PRId64, i > 0 ? ", " : "", (int64_t) ns);
        }
    }
    printf("], \"work\": 1, \"unit\": \"token\"}\n");
    fflush(stdout);

    llama_sampler_free(chain);
}

static bool check_case(const bench_case & c, llama_context * ctx, const std::vector<std::vector<float>> & rows, int64_t n_draws, uint32_t seed) {
    float * const   logits = llama_get_logits_ith(ctx, -1);
    llama_sampler * chain  = make_chain(c, seed);
    llama_sampler * plain  = make_chain(c, seed);

    std::vector<llama_token_data> cur;

    int64_t n_differ = 0;
    int64_t n_tied   = 0;
    for (int64_t i = 0; i < n_draws; ++i) {
        const auto & row = rows[(size_t) i % rows.size()];
        memcpy(logits, row.data(), row.size()*sizeof(float));

        const llama_token token = llama_sampler_sample(chain, ctx, -1);

        cur.resize(row.size());
        for (llama_token id = 0; id < (llama_token) row.size(); ++id) {
            cur[id] = llama_token_data{ id, row[id], 0.0f };
        }
        llama_token_data_array cur_p = { cur.data(), cur.size(), -1, false };
        llama_sampler_apply(plain, &cur_p);
        const llama_token expected = cur_p.data[cur_p.selected].id;
        llama_sampler_accept(plain, expected);

        if (token != expected) {
            // the order of equal logits is up to upstream's sort
            if (row[token] == row[expected]) {
                ++n_tied;
            } else {
                ++n_differ;
            }
        }
    }
    printf("{\"case\": \"%s\", \"draws\": %" PRId64 ", \"differ\": %" PRId64 ", \"differ_in_ties\": %" PRId64 ", \"must_agree\": %s}\n",
            c.name, n_draws, n_differ, n_tied, c.must_agree ? "true" : "false");
    fflush(stdout);

    llama_sampler_free(chain);
    llama_sampler_free(plain);

    return !c.must_agree || n_differ == 0;
}

static void log_errors(ggml_log_level level, const char * text, void * /*user_data*/) {
    if (level == GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_WARN) {
        fputs(text, stderr);
    }
}

static int usage(const char * argv0, const char * problem) {
    fprintf(stderr, "%s: %s\n", argv0, problem);
    fprintf(stderr, "usage: %s --model MODEL.gguf [--reps N] [--seed S] [--case TEXT] [--check N] [--list]\n", argv0);
    return 2;
}

int main(int argc, char ** argv) {
    std::string model_path;
    std::string filter;
    int         reps    = 64;
    int64_t     n_check = 0;
    uint32_t    seed    = 1;

    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        if (arg == "--list") {
            for (const auto & c : k_cases) {
                printf("%s\n", c.name);
            }
            return 0;
        }
        if (i + 1 >= argc) {
            return usage(argv[0], ("unknown argument or no value: " + arg).c_str());
        }
        const char * value = argv[++i];
        if (arg == "--model") {
            model_path = value;
        } else if (arg == "--case") {
            filter = value;
        } else if (arg == "--reps") {
            reps = atoi(value);
        } else if (arg == "--check") {
            n_check = atoll(value);
        } else if (arg == "--seed") {
            seed = (uint32_t) strtoul(value, nullptr, 10);
        } else {
            return usage(argv[0], ("unknown argument: " + arg).c_str());
        }
    }
    if (model_path.empty()) {
        return usage(argv[0], "--model is needed: any small GGUF, its vocabulary gives the length of the rows");
    }
    if (FILE * f = fopen(model_path.c_str(), "rb")) {
        fclose(f);
    } else {
        return usage(argv[0], ("cannot open the model " + model_path).c_str());
    }
    if (reps < 1) {
        return usage(argv[0], "--reps must be at least 1");
    }

    llama_log_set(log_errors, nullptr);
    llama_backend_init();

    llama_model_params mparams = llama_model_default_params();
    mparams.n_gpu_layers = 0;

    llama_model * model = llama_model_load_from_file(model_path.c_str(), mparams);
    if (!model) {
        fprintf(stderr, "%s: cannot load the model %s\n", argv[0], model_path.c_str());
        return 1;
    }

    llama_context_params cparams = llama_context_default_params();
    cparams.n_ctx           = 64;
    cparams.n_batch         = 64;
    cparams.n_threads       = 1;
    cparams.n_threads_batch = 1;
    cparams.no_perf         = true;

    llama_context * ctx = llama_init_from_model(model, cparams);

    llama_token token = 0;
    if (!ctx || llama_decode(ctx, llama_batch_get_one(&token, 1)) != 0) {
        fprintf(stderr, "%s: cannot decode a token with %s\n", argv[0], model_path.c_str());
        return 1;
    }
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));

    bool ok    = true;
    int  n_run = 0;
    for (const auto & c : k_cases) {
        if (!filter.empty() && std::string(c.name).find(filter) == std::string::npos) {
            continue;
        }
        ++n_run;

        std::mt19937 rng(seed + 1000u*(uint32_t) c.kind);
        std::vector<std::vector<float>> rows;
        for (int i = 0; i < (n_check ? 64 : 8); ++i) {
            rows.push_back(make_row(c.kind, n_vocab, rng));
        }
        if (n_check) {
            // the cases that upstream is slow at get fewer draws
            ok = check_case(c, ctx, rows, c.must_agree ? n_check : std::max<int64_t>(1, n_check/50), seed) && ok;
        } else {
            run_case(c, ctx, rows, reps, seed);
        }
    }

    llama_free(ctx);
    llama_model_free(model);
    llama_backend_free();

    if (n_run == 0) {
        return usage(argv[0], "no case has this text in its name (--list shows them)");
    }
    if (!ok) {
        fprintf(stderr, "%s: tokens differ from upstream's samplers in a case that must agree\n", argv[0]);
        return 1;
    }
    return 0;
}

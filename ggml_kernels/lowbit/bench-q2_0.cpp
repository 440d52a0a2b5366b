// Speed of the Q2_0 x Q8_0 dot product.
//
//     bench-lowbit-q2_0            llama.cpp's own vec_dot of the libggml-cpu that is loaded, as JSON lines
//     bench-lowbit-q2_0 --human    a table with the kernel, its reference, and this machine's ceilings
//
// A call is one weight matrix times one activation row, as in token generation: many weight rows, one activation row.
// Which library is measured is up to LD_LIBRARY_PATH, and which of its paths to LLAMA_LP_ABQ_Q2_AVX2. JSON needs a
// build with LP_LLAMA_SOURCE and LP_LLAMA_BIN.

#include "q2_0.h"
#include "q2_0-rows.h"

#ifdef LP_WITH_LLAMA
#include "ggml-cpu.h"
#include "ggml.h"
#endif

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

typedef void (*dot_t)(int64_t n, float * s, const lp_block_q2_0 * x, const lp_block_q8_0 * y);

static void dot_fast(int64_t n, float * s, const lp_block_q2_0 * x, const lp_block_q8_0 * y) { *s = lp_q2_0_q8_0_dot    (n, x, y); }
static void dot_ref (int64_t n, float * s, const lp_block_q2_0 * x, const lp_block_q8_0 * y) { *s = lp_q2_0_q8_0_dot_ref(n, x, y); }

#ifdef LP_WITH_LLAMA
static ggml_vec_dot_t llama_vec_dot;

static void dot_llama(int64_t n, float * s, const lp_block_q2_0 * x, const lp_block_q8_0 * y) {
    llama_vec_dot((int) n, s, 0, x, 0, y, 0, 1);
}
#endif

static volatile float sink;

static double now_ns() {
    return (double) std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct work {
    std::string name;
    int64_t     n;
    int64_t     rows;

    std::vector<lp_block_q2_0> x;
    std::vector<lp_block_q8_0> y;

    work(const std::string & name_of_case, int64_t row_size, int64_t size) : name(name_of_case), n(row_size) {
        const int64_t row = n/LP_QK2_0*(int64_t) sizeof(lp_block_q2_0);
        rows = std::max<int64_t>(1, size/row);
        x.resize((size_t) (rows*(n/LP_QK2_0)));
        y.resize((size_t) (n/LP_QK8_0));
        lp_random rnd(7);
        lp_fill_random(rnd, rows*n, x.data(), nullptr);
        lp_fill_random(rnd, n, nullptr, y.data());
    }

    int64_t bytes() const { return (int64_t) (x.size()*sizeof(lp_block_q2_0)); }
};

static double time_call(const work & w, dot_t dot) {
    std::vector<float> out((size_t) w.rows);
    const double start = now_ns();
    for (int64_t r = 0; r < w.rows; ++r) {
        dot(w.n, &out[(size_t) r], &w.x[(size_t) (r*(w.n/LP_QK2_0))], w.y.data());
    }
    const double ns = now_ns() - start;
    sink = out[(size_t) (w.rows - 1)];
    return ns;
}

// `reps` samples in ns per call; a sample repeats the call until it lasts long enough for the clock
static std::vector<double> measure(const work & w, dot_t dot, int reps) {
    const double once  = std::max(1.0, std::min(time_call(w, dot), time_call(w, dot)));
    const int    inner = (int) std::max(1.0, std::min(10000.0, 1e6/once));
    std::vector<double> ns;
    for (int i = 0; i < reps; ++i) {
        double sum = 0.0;
        for (int k = 0; k < inner; ++k) {
            sum += time_call(w, dot);
        }
        ns.push_back(sum/inner);
    }
    return ns;
}

static double fastest(const std::vector<double> & ns) {
    return *std::min_element(ns.begin(), ns.end());
}

// Multiply-accumulate instructions alone, on registers: GMAC/s nothing built on them can pass. 0 when unknown.
static double peak_gmacs() {
#if defined(__AVX2__) && defined(__GNUC__)
    enum { CHAINS = 8, ROUNDS = 20000 };
    __m256i c = _mm256_set1_epi8(1);
    __m256i a = _mm256_set1_epi8(1);
    __m256i acc[CHAINS];
    double best = 1e30;
    for (int rep = 0; rep < 30; ++rep) {
        for (__m256i & v : acc) {
            v = _mm256_setzero_si256();
        }
        const double start = now_ns();
        for (int i = 0; i < ROUNDS; ++i) {
            // the operands look changed to the compiler, so that nothing is hoisted
            __asm__ volatile("" : "+x"(c), "+x"(a));
            for (__m256i & v : acc) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
                v = _mm256_dpbusd_epi32(v, c, a);
#elif defined(__AVXVNNI__)
                v = _mm256_dpbusd_avx_epi32(v, c, a);
#else
                v = _mm256_add_epi16(v, _mm256_maddubs_epi16(c, a));
                __asm__ volatile("" : "+x"(c), "+x"(a));
#endif
            }
        }
        best = std::min(best, now_ns() - start);
        for (int k = 1; k < CHAINS; ++k) {
            acc[0] = _mm256_add_epi32(acc[0], acc[k]);
        }
        sink = (float) _mm256_extract_epi32(acc[0], 0);
    }
    return 32.0*CHAINS*ROUNDS/best;
#else
    return 0.0;
#endif
}

// Reading `bytes` once in order, GB/s.
static double read_gbs(const void * data, int64_t bytes) {
    double best = 1e30;
    const int inner = (int) std::max<int64_t>(1, (4 << 20)/bytes);
    for (int rep = 0; rep < 20; ++rep) {
        uint64_t s[8] = { 0 };
        const double start = now_ns();
        for (int k = 0; k < inner; ++k) {
            const char * p = (const char *) data;
            for (int64_t i = 0; i + 64 <= bytes; i += 64) {
                uint64_t v[8];
                std::memcpy(v, p + i, sizeof(v));
                for (int j = 0; j < 8; ++j) {
                    s[j] += v[j];
                }
            }
#ifdef __GNUC__
            __asm__ volatile("" : : : "memory");
#endif
        }
        best = std::min(best, (now_ns() - start)/inner);
        sink = (float) (s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7]);
    }
    return (double) bytes/best;
}

static std::vector<work> cases(int64_t cache_kib, int64_t dram_mib) {
    std::vector<work> all;
    for (int n : { 256, 768, 2048, 4096, 8192 }) {
        all.emplace_back("q2_0-n" + std::to_string(n), n, cache_kib << 10);
    }
    if (dram_mib > 0) {
        all.emplace_back("q2_0-n4096-dram", 4096, dram_mib << 20);
    }
    return all;
}

static int usage(const char * program) {
    std::fprintf(stderr, "usage: %s [--human] [--reps N] [--cache-kib N] [--dram-mib N]\n"
                         "  --human       a table instead of JSON lines\n"
                         "  --reps N      samples per case (default 15)\n"
                         "  --cache-kib N weights of the cached cases (default 128)\n"
                         "  --dram-mib N  weights of the memory case (default 256; 0: leave it out)\n", program);
    return 2;
}

int main(int argc, char ** argv) {
    bool human     = false;
    int  reps      = 15;
    int  cache_kib = 128;
    int  dram_mib  = 256;
    for (int i = 1; i < argc; ++i) {
        int * value = !std::strcmp(argv[i], "--reps")      ? &reps
                    : !std::strcmp(argv[i], "--cache-kib") ? &cache_kib
                    : !std::strcmp(argv[i], "--dram-mib")  ? &dram_mib
                                                           : nullptr;
        if (!std::strcmp(argv[i], "--human")) {
            human = true;
        } else if (value != nullptr && i + 1 < argc) {
            char * end = nullptr;
            *value = (int) std::strtol(argv[++i], &end, 10);
            if (*end != '\0' || *value < (value == &dram_mib ? 0 : 1)) {
                return usage(argv[0]);
            }
        } else {
            return usage(argv[0]);
        }
    }

#ifdef LP_WITH_LLAMA
    ggml_cpu_init();
    llama_vec_dot = ggml_get_type_traits_cpu(GGML_TYPE_Q2_0)->vec_dot;
    if (ggml_type_size(GGML_TYPE_Q2_0) != sizeof(lp_block_q2_0) || ggml_get_type_traits_cpu(GGML_TYPE_Q2_0)->vec_dot_type != GGML_TYPE_Q8_0) {
        std::fprintf(stderr, "the loaded libggml has another Q2_0 layout\n");
        return 1;
    }
#else
    if (!human) {
        std::fprintf(stderr, "built without llama.cpp: only --human (configure with LP_LLAMA_SOURCE and LP_LLAMA_BIN)\n");
        return 2;
    }
#endif

    if (human) {
        std::printf("kernel compiled for %s; multiply-accumulate ceiling %.1f GMAC/s\n", lp_q2_0_q8_0_isa(), peak_gmacs());
        std::printf("%-16s %-10s %10s %9s %9s %12s\n", "case", "path", "ns/dot", "GMAC/s", "GB/s", "read GB/s");
    }
    for (const work & w : cases(cache_kib, dram_mib)) {
        std::vector<std::pair<const char *, dot_t>> paths;
        if (human) {
            paths = { { "reference", dot_ref }, { "kernel", dot_fast } };
        }
#ifdef LP_WITH_LLAMA
        paths.emplace_back("llama.cpp", dot_llama);
#endif
        const double ceiling = human ? read_gbs(w.x.data(), w.bytes()) : 0.0;
        for (const auto & path : paths) {
            const std::vector<double> ns = measure(w, path.second, reps);
            if (human) {
                const double best = fastest(ns);
                std::printf("%-16s %-10s %10.1f %9.2f %9.2f %12.2f\n", w.name.c_str(), path.first, best/(double) w.rows,
                            (double) (w.n*w.rows)/best, (double) w.bytes()/best, ceiling);
            } else {
                std::printf("{\"case\": \"%s\", \"ns\": [", w.name.c_str());
                for (size_t i = 0; i < ns.size(); ++i) {
                    std::printf("%s%.1f", i ? ", " : "", ns[i]);
                }
                std::printf("], \"work\": %" PRId64 ", \"unit\": \"MAC\"}\n", w.n*w.rows);
            }
            std::fflush(stdout);
        }
    }
    return 0;
}

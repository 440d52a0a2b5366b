// The patch as llama.cpp's users meet it: Q2_0's public vec_dot of the loaded libggml-cpu, switch off, on and verify.
// The switch is read when the library is loaded, so each mode is a child process that writes its results to a file.
// Exit 0 passed, 1 failed, 77 skipped (the library is not patched).

#include "q2_0.h"
#include "q2_0-rows.h"

#include "ggml-cpu.h"
#include "ggml.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

static const int SIZES[] = { 64, 128, 192, 256, 320, 768, 2048, 4096 };
static const int ROWS    = 3000;

static int failures = 0;

static void expect(bool ok, const std::string & what) {
    if (!ok) {
        std::printf("FAIL %s\n", what.c_str());
        failures++;
    }
}

// The same rows in every process. Every 100th row has an infinite or NaN scale.
template <typename F> static void for_each_row(F f) {
    lp_random rnd(11);
    size_t index = 0;
    for (int n : SIZES) {
        std::vector<lp_block_q2_0> x((size_t) n/LP_QK2_0);
        std::vector<lp_block_q8_0> y((size_t) n/LP_QK8_0);
        for (int i = 0; i < ROWS; ++i) {
            lp_fill_random(rnd, n, x.data(), y.data());
            if (i % 100 == 0) {
                const uint16_t special[] = { 0x7c00, 0xfc00, 0x7e00 };
                y[(size_t) rnd.below(n/LP_QK8_0)].d = special[rnd.below(3)];
            }
            f(index++, n, x.data(), y.data());
        }
    }
}

static int child(const char * path) {
    ggml_cpu_init();
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(GGML_TYPE_Q2_0);
    if (traits->vec_dot_type != GGML_TYPE_Q8_0 || traits->nrows != 1 || ggml_type_size(GGML_TYPE_Q2_0) != sizeof(lp_block_q2_0)) {
        return 3;
    }
    std::ofstream out(path, std::ios::binary);
    for_each_row([&](size_t, int n, const lp_block_q2_0 * x, const lp_block_q8_0 * y) {
        float s = 0.0f;
        traits->vec_dot(n, &s, 0, x, 0, y, 0, 1);
        out.write((const char *) &s, sizeof(s));
    });
    return out.good() ? 0 : 4;
}

static std::string read_file(const std::string & path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

static std::vector<float> run(const char * program, const std::string & mode, std::string & stats) {
    const std::string results = "test-lowbit-q2_0-llama." + mode + ".bin";
    const std::string counts  = "test-lowbit-q2_0-llama." + mode + ".json";
    std::remove(results.c_str());
    std::remove(counts.c_str());
    setenv("LLAMA_LP_ABQ_Q2_AVX2", mode.c_str(), 1);
    setenv("LLAMA_LP_STATS", counts.c_str(), 1);
    const int status = std::system(("\"" + std::string(program) + "\" --child " + results).c_str());
    expect(status == 0, "child process, mode " + mode);
    const std::string bytes = read_file(results);
    std::vector<float> values(bytes.size()/sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size()*sizeof(float));
    stats = read_file(counts);
    std::remove(results.c_str());
    std::remove(counts.c_str());
    return values;
}

// the number after "key": in the (flat enough) statistics
static int64_t count_of(const std::string & stats, const std::string & key) {
    const size_t at = stats.find("\"" + key + "\":");
    return at == std::string::npos ? -1 : std::strtoll(stats.c_str() + at + key.size() + 3, nullptr, 10);
}

int main(int argc, char ** argv) {
    if (argc > 2 && !std::strcmp(argv[1], "--child")) {
        return child(argv[2]);
    }

    std::string stats_off;
    std::string stats_on;
    std::string stats_verify;
    const std::vector<float> off = run(argv[0], "off", stats_off);
    if (failures == 0 && stats_off.find("abq-q2-avx2") == std::string::npos) {
        std::printf("SKIP: the loaded libggml-cpu does not carry abq-q2-avx2\n");
        return 77;
    }
    const std::vector<float> on     = run(argv[0], "on",     stats_on);
    const std::vector<float> verify = run(argv[0], "verify", stats_verify);

    const size_t total = sizeof(SIZES)/sizeof(SIZES[0])*ROWS;
    expect(off.size() == total && on.size() == total && verify.size() == total, "results of all rows");
    if (failures) {
        return 1;
    }

    size_t changed = 0;
    lp_rms err_off[sizeof(SIZES)/sizeof(SIZES[0])];
    lp_rms err_on [sizeof(SIZES)/sizeof(SIZES[0])];
    for_each_row([&](size_t i, int n, const lp_block_q2_0 * x, const lp_block_q8_0 * y) {
        const double want = lp_dot_f64(n, x, y);
        if (!std::isfinite(off[i])) {
            expect(std::isnan(off[i]) ? std::isnan(on[i]) : on[i] == off[i], "not finite alike, row " + std::to_string(i));
            return;
        }
        const double m = lp_magnitude_f64(n, x, y);
        err_off[i/ROWS].add((off[i] - want)/m);
        err_on [i/ROWS].add((on [i] - want)/m);
        expect(std::fabs(on[i] - off[i]) <= lp_q2_0_q8_0_dot_bound(n, x, y), "bound, row " + std::to_string(i));
        changed += off[i] != on[i];
    });
    for (size_t k = 0; k < sizeof(SIZES)/sizeof(SIZES[0]); ++k) {
        std::printf("n=%5d  rms error against f64: off %.3e, on %.3e\n", SIZES[k], err_off[k].value(), err_on[k].value());
        expect(err_on[k].value() <= err_off[k].value(), "error on <= off, n=" + std::to_string(SIZES[k]));
    }
    expect(std::memcmp(on.data(), verify.data(), total*sizeof(float)) == 0, "verify returns what on returns");

    expect(count_of(stats_off, "handled") == 0, "off handles nothing: " + stats_off);
    const int64_t short_rows = 3*ROWS; // n < LP_Q2_0_Q8_0_MIN_N
    const bool    fast       = count_of(stats_on, "handled") > 0;
    if (fast) {
        expect(count_of(stats_on, "handled") == (int64_t) total - short_rows, "on counts every call: " + stats_on);
        expect(count_of(stats_on, "short-row") == short_rows, "on counts short rows: " + stats_on);
        expect(changed > 0, "on is another path than off");
    } else {
        expect(count_of(stats_on, "no-avx2") == (int64_t) total, "a library without AVX2 counts fallbacks: " + stats_on);
        expect(changed == 0, "fallback is upstream's path");
    }
    expect(count_of(stats_verify, "differs") == 0, "verify sees no difference: " + stats_verify);

    std::printf("%zu rows, %zu with another rounding, %d failed; %s", total, changed, failures, stats_on.c_str());
    return failures ? 1 : 0;
}

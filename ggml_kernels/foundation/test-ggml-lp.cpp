// Switches, counters under threads, and the statistics file of an ended process.

#include "ggml-lp.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

static int failures = 0;

static void expect(bool ok, const char * what) {
    if (!ok) {
        std::printf("FAIL %s\n", what);
        failures++;
    }
}

static std::string read_file(const std::string & path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

// The child half: count from threads that end before the process does, then exit normally.
static int child() {
    ggml_lp_patch * const a = ggml_lp_get("alpha-one");
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([a] {
            for (int i = 0; i < 100000; ++i) {
                ggml_lp_handled(a, 1);
            }
            ggml_lp_fallback(a, "odd-shape", 2);
        });
    }
    for (std::thread & t : threads) {
        t.join();
    }
    ggml_lp_differs(a, 3);
    return 0;
}

int main(int argc, char ** argv) {
    if (argc > 1 && std::strcmp(argv[1], "--child") == 0) {
        return child();
    }
    setenv("LLAMA_LP_ALPHA_ONE", "on", 1);
    setenv("LLAMA_LP_BETA", "verify", 1);
    setenv("LLAMA_LP_GAMMA", "yes", 1);
    expect(ggml_lp_mode_of(ggml_lp_get("alpha-one")) == GGML_LP_ON, "on, dash becomes underscore");
    expect(ggml_lp_mode_of(ggml_lp_get("beta")) == GGML_LP_VERIFY, "verify");
    expect(ggml_lp_mode_of(ggml_lp_get("gamma")) == GGML_LP_OFF, "an unknown value is off");
    expect(ggml_lp_mode_of(ggml_lp_get("delta")) == GGML_LP_OFF, "unset is off");
    expect(ggml_lp_get("beta") == ggml_lp_get("beta"), "one handle per id");

    ggml_lp_patch * const many = ggml_lp_get("many-reasons");
    static std::string reasons[GGML_LP_MAX_REASONS + 4];
    for (int i = 0; i < GGML_LP_MAX_REASONS + 4; ++i) {
        reasons[i] = "r" + std::to_string(i);
        ggml_lp_fallback(many, reasons[i].c_str(), 1);
    }
    const std::string own = std::string(argv[0]) + ".own.json";
    expect(ggml_lp_write_stats(own.c_str()) == 0, "statistics are written");
    const std::string own_json = read_file(own);
    expect(own_json.find("\"r15\":1,\"other\":4}") != std::string::npos, "reasons past the table are counted as other");
    expect(own_json.find("\"delta\":{\"mode\":\"off\",\"handled\":0,\"differs\":0,\"fallback\":{}}") != std::string::npos,
           "an idle patch is listed with zeros");
    expect(ggml_lp_write_stats("/nonexistent-folder/x") == -1, "an unwritable path is reported");
    std::remove(own.c_str());

    const std::string path = std::string(argv[0]) + ".child.json";
    setenv("LLAMA_LP_STATS", path.c_str(), 1);
    const std::string command = "\"" + std::string(argv[0]) + "\" --child";
    expect(std::system(command.c_str()) == 0, "the child ran");
    expect(read_file(path) ==
               "{\"schema\":1,\"patches\":{\"alpha-one\":{\"mode\":\"on\",\"handled\":800000,\"differs\":3,"
               "\"fallback\":{\"odd-shape\":16}}}}\n",
           "the ended process left exact sums of all threads");
    std::remove(path.c_str());

    std::printf(failures ? "%d failures\n" : "ok\n", failures);
    return failures != 0;
}

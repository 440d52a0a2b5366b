#include "ggml-lp.h"

#include <atomic>
#include <cctype>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

struct ggml_lp_patch {
    std::string       id;
    enum ggml_lp_mode mode;
    int               slot;

    // Append-only: entries below n_reasons never change, so readers need no lock.
    const char *     reasons[GGML_LP_MAX_REASONS + 1];
    std::atomic<int> n_reasons;
};

namespace {

struct counters {
    std::atomic<uint64_t> handled{0};
    std::atomic<uint64_t> differs{0};
    std::atomic<uint64_t> fallback[GGML_LP_MAX_REASONS + 1] = {};
};

// One block per live thread. The owner is its only writer; the reader at exit sums all blocks.
struct block {
    counters of[GGML_LP_MAX_PATCHES];
};

struct registry {
    std::mutex                   mutex;
    std::vector<ggml_lp_patch *> patches;
    std::vector<block *>         blocks;
    std::vector<block *>         idle;  // of threads that ended: reused with their counts kept
};

// Never destroyed: threads and exit handlers may count after static destructors ran.
registry & reg() {
    static registry * r = new registry;
    return *r;
}

struct block_owner {
    block * mine;

    block_owner() {
        registry & r = reg();
        std::lock_guard<std::mutex> lock(r.mutex);
        if (r.idle.empty()) {
            mine = new block;
            r.blocks.push_back(mine);
        } else {
            mine = r.idle.back();
            r.idle.pop_back();
        }
    }

    ~block_owner() {
        registry & r = reg();
        std::lock_guard<std::mutex> lock(r.mutex);
        r.idle.push_back(mine);
    }
};

counters & mine(const ggml_lp_patch * patch) {
    static thread_local block_owner owner;
    return owner.mine->of[patch->slot];
}

// The owner is the only writer, so a plain load and store suffice: no locked instruction.
void add(std::atomic<uint64_t> & counter, uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

enum ggml_lp_mode read_switch(const char * id) {
    std::string name = "LLAMA_LP_";
    for (const char * c = id; *c; ++c) {
        name += *c == '-' ? '_' : (char) std::toupper((unsigned char) *c);
    }
    const char * value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0' || std::strcmp(value, "off") == 0) {
        return GGML_LP_OFF;
    }
    if (std::strcmp(value, "on") == 0) {
        return GGML_LP_ON;
    }
    if (std::strcmp(value, "verify") == 0) {
        return GGML_LP_VERIFY;
    }
    std::fprintf(stderr, "%s=%s is none of off, on, verify: taken as off\n", name.c_str(), value);
    return GGML_LP_OFF;
}

const char * mode_name(enum ggml_lp_mode mode) {
    return mode == GGML_LP_ON ? "on" : mode == GGML_LP_VERIFY ? "verify" : "off";
}

// Index of `reason`, adding it when it is new.
int reason_index(ggml_lp_patch * patch, const char * reason) {
    const int known = patch->n_reasons.load(std::memory_order_acquire);
    for (int i = 0; i < known; ++i) {
        if (patch->reasons[i] == reason || std::strcmp(patch->reasons[i], reason) == 0) {
            return i;
        }
    }
    std::lock_guard<std::mutex> lock(reg().mutex);
    const int n = patch->n_reasons.load(std::memory_order_relaxed);
    for (int i = known; i < n; ++i) {
        if (std::strcmp(patch->reasons[i], reason) == 0) {
            return i;
        }
    }
    if (n >= GGML_LP_MAX_REASONS) {
        return GGML_LP_MAX_REASONS;
    }
    patch->reasons[n] = reason;
    patch->n_reasons.store(n + 1, std::memory_order_release);
    return n;
}

std::string stats_json() {
    registry & r = reg();
    std::lock_guard<std::mutex> lock(r.mutex);
    std::string json = "{\"schema\":1,\"patches\":{";
    for (size_t p = 0; p < r.patches.size(); ++p) {
        const ggml_lp_patch & patch = *r.patches[p];
        uint64_t handled = 0;
        uint64_t differs = 0;
        uint64_t fallback[GGML_LP_MAX_REASONS + 1] = {};
        for (const block * b : r.blocks) {
            const counters & c = b->of[p];
            handled += c.handled.load(std::memory_order_relaxed);
            differs += c.differs.load(std::memory_order_relaxed);
            for (int i = 0; i <= GGML_LP_MAX_REASONS; ++i) {
                fallback[i] += c.fallback[i].load(std::memory_order_relaxed);
            }
        }
        char numbers[128];
        std::snprintf(numbers, sizeof(numbers), "\"handled\":%" PRIu64 ",\"differs\":%" PRIu64, handled, differs);
        json += (p ? "," : "") + ("\"" + patch.id) + "\":{\"mode\":\"" + mode_name(patch.mode) + "\"," + numbers;
        json += ",\"fallback\":{";
        bool first = true;
        for (int i = 0; i <= GGML_LP_MAX_REASONS; ++i) {
            if (fallback[i] == 0) {
                continue;
            }
            const char * reason = i == GGML_LP_MAX_REASONS ? "other" : patch.reasons[i];
            json += (first ? "\"" : ",\"") + std::string(reason) + "\":" + std::to_string(fallback[i]);
            first = false;
        }
        json += "}}";
    }
    return json + "}}\n";
}

void write_stats_at_exit() {
    const char * path = std::getenv("LLAMA_LP_STATS");
    if (path != nullptr && *path != '\0' && ggml_lp_write_stats(path) != 0) {
        std::fprintf(stderr, "LLAMA_LP_STATS: cannot write %s\n", path);
    }
}

// Armed when the library is loaded, so that a run that reached no patch says so instead of leaving no file.
const bool armed = [] {
    const char * path = std::getenv("LLAMA_LP_STATS");
    return path != nullptr && *path != '\0' && std::atexit(write_stats_at_exit) == 0;
}();

} // namespace

struct ggml_lp_patch * ggml_lp_get(const char * id) {
    registry & r = reg();
    std::lock_guard<std::mutex> lock(r.mutex);
    for (ggml_lp_patch * patch : r.patches) {
        if (patch->id == id) {
            return patch;
        }
    }
    if (r.patches.size() >= GGML_LP_MAX_PATCHES) {
        std::fprintf(stderr, "ggml_lp_get: more than %d patches\n", GGML_LP_MAX_PATCHES);
        std::abort();
    }
    ggml_lp_patch * patch = new ggml_lp_patch{ id, read_switch(id), (int) r.patches.size(), {}, { 0 } };
    r.patches.push_back(patch);
    return patch;
}

enum ggml_lp_mode ggml_lp_mode_of(const struct ggml_lp_patch * patch) {
    return patch->mode;
}

void ggml_lp_handled(struct ggml_lp_patch * patch, uint64_t n) {
    add(mine(patch).handled, n);
}

void ggml_lp_differs(struct ggml_lp_patch * patch, uint64_t n) {
    add(mine(patch).differs, n);
}

void ggml_lp_fallback(struct ggml_lp_patch * patch, const char * reason, uint64_t n) {
    add(mine(patch).fallback[reason_index(patch, reason)], n);
}

int ggml_lp_write_stats(const char * path) {
    const std::string json = stats_json();
    if (std::strcmp(path, "-") == 0) {
        return std::fputs(json.c_str(), stderr) < 0 ? -1 : 0;
    }
    FILE * file = std::fopen(path, "w");
    if (file == nullptr) {
        return -1;
    }
    const bool written = std::fputs(json.c_str(), file) >= 0;
    return std::fclose(file) == 0 && written ? 0 : -1;
}

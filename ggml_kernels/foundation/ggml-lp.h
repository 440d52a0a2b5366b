#pragma once

// Run-time switches and counters of the llamapatch series.
//
// A patch asks for its handle once and keeps it in a static:
//
//     static struct ggml_lp_patch * const lp = ggml_lp_get("abq-q2-avx2");
//     if (ggml_lp_mode_of(lp) == GGML_LP_OFF) { ... upstream's path ... }
//
// The switch is the environment variable LLAMA_LP_<ID> (the id in upper case, dashes as underscores), read once:
// off (default), on, or verify (compute both ways and count where they differ).
//
// LLAMA_LP_STATS=FILE writes all counters as JSON when the process exits normally ("-": to standard error).

#include <stdint.h>

#if defined(GGML_SHARED) && defined(_WIN32) && !defined(__MINGW32__)
#    ifdef GGML_BUILD
#        define GGML_LP_API __declspec(dllexport)
#    else
#        define GGML_LP_API __declspec(dllimport)
#    endif
#elif defined(GGML_SHARED)
#    define GGML_LP_API __attribute__((visibility("default")))
#else
#    define GGML_LP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum ggml_lp_mode {
    GGML_LP_OFF    = 0,
    GGML_LP_ON     = 1,
    GGML_LP_VERIFY = 2,
};

struct ggml_lp_patch;

// The handle of a patch: registered and its switch read on the first call, never NULL, valid until the process ends.
// Takes a lock: call it once, not per operation. At most GGML_LP_MAX_PATCHES ids; one more aborts.
GGML_LP_API struct ggml_lp_patch * ggml_lp_get(const char * id);

GGML_LP_API enum ggml_lp_mode ggml_lp_mode_of(const struct ggml_lp_patch * patch);

// Counters. Each thread writes its own block without a locked instruction, so these may stand in hot paths.
// handled: calls the patch served; differs: calls whose result differed in verify mode;
// fallback: calls left to upstream's path. `reason` must be a string literal; past GGML_LP_MAX_REASONS distinct
// reasons of one patch, the rest are counted as "other".
GGML_LP_API void ggml_lp_handled (struct ggml_lp_patch * patch, uint64_t n);
GGML_LP_API void ggml_lp_differs (struct ggml_lp_patch * patch, uint64_t n);
GGML_LP_API void ggml_lp_fallback(struct ggml_lp_patch * patch, const char * reason, uint64_t n);

// Write the counters so far to `path` as JSON; returns 0, or -1 when the file could not be written.
GGML_LP_API int ggml_lp_write_stats(const char * path);

#define GGML_LP_MAX_PATCHES 64
#define GGML_LP_MAX_REASONS 16

#ifdef __cplusplus
}
#endif

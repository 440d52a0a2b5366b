// Prefix selection and inverse transform. See lp-sampling.h for the contract and README.md for the mathematics.
//
// Shape of the code: a candidate list (logit, id) that starts as a few logits gathered from the row, stages that cut the
// list to a prefix of the total order, and one draw. All loops over the whole row are in lp_sampling_rows.

#include "lp-sampling.h"

#include "lp-sampling-math.h"
#include "lp-sampling-rows.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

// bins of the histogram that finds a place in the order of an unsorted list
static constexpr int32_t N_BINS = 2048;

// lists up to this length are sorted rather than searched by histogram
static constexpr int32_t N_SORT = 128;

// the total order as one integer: smaller is earlier. The logit is mapped to an integer that falls as it grows, the id
// breaks ties. -0 is 0 and NaN is -inf.
static inline uint64_t key_of(float logit, int32_t id) {
    const float l = std::isnan(logit) ? -INFINITY : logit + 0.0f;

    uint32_t bits;
    memcpy(&bits, &l, sizeof(bits));

    const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;

    return ((uint64_t) ~ascending << 32) | (uint32_t) id;
}

static inline float logit_of(uint64_t key) {
    const uint32_t ascending = ~(uint32_t) (key >> 32);
    const uint32_t bits      = ascending & 0x80000000u ? ascending & 0x7fffffffu : ~ascending;

    float l;
    memcpy(&l, &bits, sizeof(l));

    return l;
}

static inline int32_t id_of(uint64_t key) {
    return (int32_t) (uint32_t) key;
}

// high 64 bits of a 128-bit product
static inline uint64_t mul_high(uint64_t a, uint64_t b) {
    const uint64_t a_lo = (uint32_t) a;
    const uint64_t a_hi = a >> 32;
    const uint64_t b_lo = (uint32_t) b;
    const uint64_t b_hi = b >> 32;

    const uint64_t mid0 = a_hi*b_lo + ((a_lo*b_lo) >> 32);
    const uint64_t mid1 = a_lo*b_hi + (uint32_t) mid0;

    return a_hi*b_hi + (mid0 >> 32) + (mid1 >> 32);
}

struct lp_sampling {
    const lp_sampling_rows * rows;

    // the row and what the stages made of it
    const float * logits;
    int32_t       n_vocab;

    bool  is_list; // the kept candidates are the list, else the whole row
    bool  sorted;  // the list is in the total order, else in id order
    bool  walk;    // the walk goes down the total order
    bool  argmax;  // one candidate takes it all

    float    max;   // largest logit
    float    temp;
    float    y_max; // largest logit / temperature
    uint64_t total; // mass of the kept candidates at the temperature
    int32_t  n;     // list entries
    int32_t  i_sel; // index of the last drawn token in walk order
    int32_t  t_sel; // the last drawn token

    std::vector<float>    l;
    std::vector<int32_t>  id;
    std::vector<float>    w;
    std::vector<uint64_t> keys;
    std::vector<uint64_t> keys_tmp;
    std::vector<uint64_t> blocks;

    // of an in-order piece of the list
    std::vector<float> piece_l;
    std::vector<float> piece_w;

    uint64_t bin_mass[N_BINS];
    int32_t  bin_n   [N_BINS];
};

template <typename T>
static void grow(std::vector<T> & v, size_t n) {
    if (v.size() < n) {
        v.resize(n);
    }
}

// least-significant-digit radix sort, 11 bits per pass; a digit that all keys share costs only its histogram
static void sort_keys_radix(std::vector<uint64_t> & keys, std::vector<uint64_t> & tmp, int32_t n) {
    grow(tmp, n);

    for (int shift = 0; shift < 64; shift += 11) {
        uint32_t start[N_BINS] = {0};
        for (int32_t i = 0; i < n; ++i) {
            start[(keys[i] >> shift) & (N_BINS - 1)]++;
        }
        if (start[(keys[0] >> shift) & (N_BINS - 1)] == (uint32_t) n) {
            continue;
        }
        uint32_t sum = 0;
        for (int32_t b = 0; b < N_BINS; ++b) {
            const uint32_t cur = start[b];
            start[b] = sum;
            sum += cur;
        }
        for (int32_t i = 0; i < n; ++i) {
            tmp[start[(keys[i] >> shift) & (N_BINS - 1)]++] = keys[i];
        }
        keys.swap(tmp);
    }
}

static void sort_keys(std::vector<uint64_t> & keys, std::vector<uint64_t> & tmp, int32_t n) {
    if (n > 2048 && !std::is_sorted(keys.begin(), keys.begin() + n)) {
        sort_keys_radix(keys, tmp, n);
    } else {
        std::sort(keys.begin(), keys.begin() + n);
    }
}

//
// the list
//

static void list_reserve(lp_sampling * s, int32_t n) {
    grow(s->l,  (size_t) n + LP_SAMPLING_GATHER_PAD);
    grow(s->id, (size_t) n + LP_SAMPLING_GATHER_PAD);
}

static void list_pack(lp_sampling * s) {
    grow(s->keys, s->n);
    for (int32_t i = 0; i < s->n; ++i) {
        s->keys[i] = key_of(s->l[i], s->id[i]);
    }
}

static void list_unpack(lp_sampling * s) {
    for (int32_t i = 0; i < s->n; ++i) {
        s->l [i] = logit_of(s->keys[i]);
        s->id[i] = id_of   (s->keys[i]);
    }
}

static void list_sort(lp_sampling * s) {
    if (!s->sorted) {
        list_pack(s);
        sort_keys(s->keys, s->keys_tmp, s->n);
        list_unpack(s);
        s->sorted = true;
    }
}

static uint64_t list_weigh(lp_sampling * s, float temp, float y_max) {
    grow(s->w, s->n);
    return s->rows->weigh(s->l.data(), s->n, temp, y_max, s->w.data(), nullptr);
}

static void list_from_row(lp_sampling * s) {
    list_reserve(s, s->n_vocab);
    for (int32_t i = 0; i < s->n_vocab; ++i) {
        s->l [i] = std::isnan(s->logits[i]) ? -INFINITY : s->logits[i];
        s->id[i] = i;
    }
    s->n       = s->n_vocab;
    s->is_list = true;
    s->sorted  = false;
}

// lowest id of the largest logit
static int32_t row_argmax(lp_sampling * s, float max) {
    list_reserve(s, 0);

    int32_t pos = 0;
    s->rows->gather(s->logits, s->n_vocab, &pos, max, s->l.data(), s->id.data(), 0, 1);

    return s->id[0];
}

// all logits >= threshold, in id order
static void list_gather(lp_sampling * s, float threshold) {
    list_reserve(s, s->n_vocab);

    int32_t pos = 0;
    s->n       = s->rows->gather(s->logits, s->n_vocab, &pos, threshold, s->l.data(), s->id.data(), 0, INT32_MAX);
    s->is_list = true;
    s->sorted  = false;
}

// keeps the n_keep (> 0) first keys of the list, in no order
static void list_shrink(lp_sampling * s, int32_t n_keep) {
    list_pack(s);
    std::nth_element(s->keys.begin(), s->keys.begin() + (n_keep - 1), s->keys.begin() + s->n);
    s->n = n_keep;
    list_unpack(s);
}

// the k first candidates of the row, sorted, 0 < k < n_vocab. One read of the row: a running threshold passes whatever
// may still be among the first k, and rises each time the buffer is full.
static void list_top_k(lp_sampling * s, int32_t k) {
    const int32_t capacity = (int32_t) std::min<int64_t>(std::max<int64_t>(4*(int64_t) k, 512), s->n_vocab);
    list_reserve(s, capacity);

    float   threshold = -FLT_MAX;
    int32_t pos       = 0;

    s->n       = 0;
    s->is_list = true;
    s->sorted  = false;
    while (true) {
        s->n = s->rows->gather(s->logits, s->n_vocab, &pos, threshold, s->l.data(), s->id.data(), s->n, capacity);
        if (s->n > k) {
            list_shrink(s, k);
            // ids grow, so an equal logit that comes later is later in the order
            threshold = std::nextafter(s->l[k - 1], INFINITY);
        }
        if (pos >= s->n_vocab) {
            break;
        }
    }

    // not enough candidates above -inf: the others follow by id
    for (int32_t i = 0; i < s->n_vocab && s->n < k; ++i) {
        if (!(s->logits[i] >= -FLT_MAX)) {
            s->l [s->n] = -INFINITY;
            s->id[s->n] = i;
            s->n++;
        }
    }

    list_sort(s);
}

// how many candidates, in the order of the weights, it takes to reach mass target (> 0)
static int32_t reach(const float * w, int32_t n, uint64_t target) {
    uint64_t sum = 0;
    for (int32_t i = 0; i < n; ++i) {
        sum += lp_sampling_mass_of(w[i]);
        if (sum >= target) {
            return i + 1;
        }
    }
    return n;
}

// keeps the entries up to and including a key
static void list_cut(lp_sampling * s, uint64_t key) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->n; ++i) {
        const float   l  = s->l[i];
        const int32_t id = s->id[i];
        s->l [n] = l;
        s->id[n] = id;
        n += key_of(l, id) <= key;
    }
    s->n = n;
}

struct place {
    uint64_t key;  // of the candidate
    int32_t  rank; // its index in the total order
};

// The first candidate, in the total order, whose running mass reaches target (> 0). w == nullptr counts candidates
// instead. The list is not sorted: a histogram over the distance to the largest logit, which the order cannot cross,
// finds the bin, and only the candidates of that bin are put in order.
static place list_find(lp_sampling * s, float temp, float y_max, const float * w, uint64_t target) {
    const float max = s->max;

    float min = max;
    for (int32_t i = 0; i < s->n; ++i) {
        const float l = s->l[i];
        min = l < min && l >= -FLT_MAX ? l : min;
    }

    // a weight is zero beyond 87 temperatures
    const float range = std::min(max - min, 90.0f*std::max(temp, 1e-30f));
    const float scale = std::min((N_BINS - 1)/std::max(range, 1e-30f), FLT_MAX);

    const auto bin_of = [&](float l) {
        const float b = (max - l)*scale;
        return b < (float) (N_BINS - 1) ? (int32_t) b : N_BINS - 1;
    };

    std::fill(s->bin_mass, s->bin_mass + N_BINS, 0);
    std::fill(s->bin_n,    s->bin_n    + N_BINS, 0);
    if (w) {
        for (int32_t i = 0; i < s->n; ++i) {
            const int32_t b = bin_of(s->l[i]);
            s->bin_mass[b] += lp_sampling_mass_of(w[i]);
            s->bin_n   [b] ++;
        }
    } else {
        for (int32_t i = 0; i < s->n; ++i) {
            s->bin_n[bin_of(s->l[i])]++;
        }
        std::copy(s->bin_n, s->bin_n + N_BINS, s->bin_mass);
    }

    int32_t  bin  = 0;
    int32_t  rank = 0;
    uint64_t sum  = 0;
    while (bin < N_BINS - 1 && sum + s->bin_mass[bin] < target) {
        sum  += s->bin_mass[bin];
        rank += s->bin_n   [bin];
        ++bin;
    }

    const int32_t n = s->bin_n[bin];
    grow(s->keys, n);
    for (int32_t i = 0, j = 0; j < n; ++i) {
        if (bin_of(s->l[i]) == bin) {
            s->keys[j++] = key_of(s->l[i], s->id[i]);
        }
    }
    sort_keys(s->keys, s->keys_tmp, n);

    int32_t j = 0;
    if (w) {
        grow(s->piece_l, n);
        grow(s->piece_w, n);
        for (int32_t i = 0; i < n; ++i) {
            s->piece_l[i] = logit_of(s->keys[i]);
        }
        s->rows->weigh(s->piece_l.data(), n, temp, y_max, s->piece_w.data(), nullptr);
        j = reach(s->piece_w.data(), n, target - sum) - 1;
    } else {
        j = (int32_t) std::min<uint64_t>(target - sum - 1, (uint64_t) n - 1);
    }

    return { s->keys[j], rank + j };
}

//
// the stages
//

static uint64_t nucleus_target(float p, uint64_t mass) {
    const double target = std::ceil((double) p * (double) mass);
    return target >= 1.0 ? (uint64_t) target : 1;
}

static void stage_top_p(lp_sampling * s, float p, int32_t min_keep) {
    const float max = s->max;

    min_keep = std::max(min_keep, 1);

    if (s->is_list) { // top-k has run
        const uint64_t target = nucleus_target(p, list_weigh(s, 1.0f, max));
        s->n = std::min(s->n, std::max(min_keep, reach(s->w.data(), s->n, target)));
        return;
    }

    const uint64_t mass   = s->rows->weigh(s->logits, s->n_vocab, 1.0f, max, nullptr, nullptr);
    const uint64_t target = nucleus_target(p, mass);

    // What lies further than c below the largest logit weighs at most n_vocab*exp(-c). The nucleus is allowed to miss
    // (1 - p) of the mass, so it lies within c = ln(n_vocab / ((1 - p) mass)).
    const double one  = (double) (UINT64_C(1) << LP_SAMPLING_MASS_BITS);
    const double miss = (1.0 - (double) p)*((double) mass/one);
    const float  c    = 0.01f + (float) std::log((double) s->n_vocab/miss);

    // That is a bound for any row. Most rows hold their nucleus in far fewer candidates, so look at a shorter distance
    // first. Rounding, and a p so near to 1 that the bound says nothing, are caught by weighing what was gathered.
    const float c_try = 5.0f - (float) std::log(std::max(1.0 - (double) p, 1e-30));

    bool enough = false;
    for (const float dist : { std::min(c, c_try), c }) {
        if (!enough && dist < -LP_SAMPLING_EXP_MIN) {
            list_gather(s, max - std::max(dist, 0.5f));
            enough = list_weigh(s, 1.0f, max) >= target && s->n >= min_keep;
        }
    }
    if (!enough) {
        list_from_row(s);
        list_weigh(s, 1.0f, max);
    }
    s->walk = true;

    min_keep = std::min(min_keep, s->n);

    if (s->n <= N_SORT) {
        list_sort(s);
        list_weigh(s, 1.0f, max);
        s->n = std::min(s->n, std::max(min_keep, reach(s->w.data(), s->n, target)));
        return;
    }

    place last = list_find(s, 1.0f, max, s->w.data(), target);
    if (last.rank + 1 < min_keep) {
        last = list_find(s, 1.0f, max, nullptr, min_keep);
    }
    list_cut(s, last.key);
}

static void stage_min_p(lp_sampling * s, float p, int32_t min_keep) {
    // the same threshold as upstream's, to the bit
    const float   threshold = s->max + logf(p);
    const int32_t need      = std::max(min_keep, 1);

    if (!s->is_list) {
        list_gather(s, threshold);
        if (s->n >= need) {
            return; // in id order, unless top-k has sorted
        }
        // fewer than asked for (none, when p > 1): the first ones of the order, as after a sort
        if (need < s->n_vocab) {
            list_top_k(s, need);
        } else {
            list_from_row(s);
        }
        s->walk = true;
        return;
    }

    const int32_t n_min = std::min(need, s->n);

    if (s->sorted) {
        int32_t n = n_min;
        while (n < s->n && s->l[n] >= threshold) {
            ++n;
        }
        s->n = n;
        return;
    }

    int32_t n = 0;
    for (int32_t i = 0; i < s->n; ++i) {
        n += s->l[i] >= threshold;
    }
    if (n >= n_min) {
        n = 0;
        for (int32_t i = 0; i < s->n; ++i) {
            const float l = s->l[i];
            s->l [n] = l;
            s->id[n] = s->id[i];
            n += l >= threshold;
        }
        s->n = n;
    } else {
        list_cut(s, list_find(s, 1.0f, s->max, nullptr, n_min).key);
    }
}

//
// public
//

struct lp_sampling * lp_sampling_new(void) {
    auto * s = new lp_sampling();
    lp_sampling_set_isa(s, LP_SAMPLING_ISA_BEST);
    return s;
}

void lp_sampling_free(struct lp_sampling * smpl) {
    delete smpl;
}

bool lp_sampling_set_isa(struct lp_sampling * smpl, enum lp_sampling_isa isa) {
    const lp_sampling_rows * avx2 = lp_sampling_rows_avx2();

    switch (isa) {
        case LP_SAMPLING_ISA_BEST:
            smpl->rows = avx2 ? avx2 : &lp_sampling_rows_portable;
            return true;
        case LP_SAMPLING_ISA_PORTABLE:
            smpl->rows = &lp_sampling_rows_portable;
            return true;
        case LP_SAMPLING_ISA_AVX2:
            if (avx2) {
                smpl->rows = avx2;
            }
            return avx2 != nullptr;
    }
    return false;
}

bool lp_sampling_is_fast(void) {
#if defined(__FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__) || defined(_M_ARM64)
    return true;
#else
    return lp_sampling_rows_avx2() != nullptr;
#endif
}

const char * lp_sampling_plan_reject(const struct lp_sampling_plan * plan) {
    if (plan->n_stages < 0 || plan->n_stages > LP_SAMPLING_MAX_STAGES) {
        return "too many stages";
    }
    for (int32_t i = 0; i < plan->n_stages; ++i) {
        const lp_sampling_stage & stage = plan->stages[i];
        if (i > 0 && stage.type <= plan->stages[i - 1].type) {
            return "order of the samplers";
        }
        switch (stage.type) {
            case LP_SAMPLING_TOP_K:
                break;
            case LP_SAMPLING_TOP_P:
            case LP_SAMPLING_MIN_P:
                if (std::isnan(stage.value.p) || stage.value.p > FLT_MAX) {
                    return "parameter is not finite";
                }
                break;
            case LP_SAMPLING_TEMP:
                if (std::isnan(stage.value.temp) || stage.value.temp > FLT_MAX) {
                    return "parameter is not finite";
                }
                break;
            default:
                return "unknown stage";
        }
    }
    if (plan->final_stage != LP_SAMPLING_GREEDY && plan->final_stage != LP_SAMPLING_DIST) {
        return "unknown final stage";
    }
    return nullptr;
}

enum lp_sampling_status lp_sampling_prepare(
        struct lp_sampling            * s,
        const float                   * logits,
        int32_t                         n_vocab,
        const struct lp_sampling_plan * plan,
        bool                            want_candidates) {
    if (n_vocab <= 0 || lp_sampling_plan_reject(plan) != nullptr) {
        return LP_SAMPLING_UNSUPPORTED;
    }

    s->logits  = logits;
    s->n_vocab = n_vocab;
    s->is_list = false;
    s->sorted  = false;
    s->walk    = false;
    s->argmax  = plan->final_stage == LP_SAMPLING_GREEDY;
    s->temp    = 1.0f;
    s->total   = 0;
    s->n       = n_vocab;
    s->i_sel   = -1;
    s->t_sel   = -1;

    int32_t k = 0;
    for (int32_t i = 0; i < plan->n_stages; ++i) {
        const lp_sampling_stage & stage = plan->stages[i];
        if (stage.type == LP_SAMPLING_TOP_K && stage.value.k > 0) {
            k = stage.value.k;
        }
        if (stage.type == LP_SAMPLING_TEMP) {
            s->temp = stage.value.temp;
        }
    }
    s->argmax = s->argmax || s->temp <= 0.0f;

    // an argmax is the same for every prefix
    const bool cut = want_candidates || !s->argmax;

    float max;
    if (cut && k > 0 && k < n_vocab) {
        // reads the row once and finds the maximum on the way
        list_top_k(s, k);
        max = s->l[0];
    } else {
        max = s->rows->max(logits, n_vocab);
    }
    if (!(max >= -FLT_MAX && max <= FLT_MAX)) {
        return LP_SAMPLING_DEGENERATE;
    }

    s->max   = max;
    s->y_max = max;
    if (!s->argmax && s->temp != 1.0f) {
        s->y_max = max/s->temp;
        if (!(s->y_max >= -FLT_MAX && s->y_max <= FLT_MAX)) {
            return LP_SAMPLING_DEGENERATE;
        }
    }

    if (!cut) {
        s->t_sel = row_argmax(s, max);
        return LP_SAMPLING_OK;
    }

    s->walk = k > 0;

    for (int32_t i = 0; i < plan->n_stages; ++i) {
        const lp_sampling_stage & stage = plan->stages[i];
        if (stage.type == LP_SAMPLING_TOP_P && stage.value.p < 1.0f) {
            stage_top_p(s, stage.value.p, stage.min_keep);
        }
        if (stage.type == LP_SAMPLING_MIN_P && stage.value.p > 0.0f) {
            stage_min_p(s, stage.value.p, stage.min_keep);
        }
    }

    if (s->walk && !s->is_list) {
        list_from_row(s);
    }
    if (s->walk && (want_candidates || s->n <= N_SORT)) {
        list_sort(s);
    }

    if (s->argmax) {
        if (s->sorted) {
            s->i_sel = 0;
        } else if (s->is_list) {
            s->i_sel = (int32_t) (std::find(s->l.begin(), s->l.begin() + s->n, max) - s->l.begin());
        } else {
            s->i_sel = row_argmax(s, max);
        }
        s->t_sel = s->is_list ? s->id[s->i_sel] : s->i_sel;
    } else if (s->is_list) {
        s->total = list_weigh(s, s->temp, s->y_max);
    } else {
        grow(s->blocks, ((size_t) n_vocab + LP_SAMPLING_BLOCK - 1)/LP_SAMPLING_BLOCK);
        s->total = s->rows->weigh(logits, n_vocab, s->temp, s->y_max, nullptr, s->blocks.data());
    }

    return LP_SAMPLING_OK;
}

int32_t lp_sampling_draw(struct lp_sampling * s, double u) {
    if (s->argmax) {
        return s->t_sel;
    }

    // u is a multiple of 2^-53 or finer: the product is exact
    const uint64_t u64 = u >= 1.0 ? UINT64_MAX : u > 0.0 ? (uint64_t) (u*18446744073709551616.0) : 0;

    // the first candidate whose running mass exceeds u*total; its own mass is not zero
    const uint64_t target = mul_high(u64, s->total) + 1;

    if (!s->is_list) {
        int32_t  block = 0;
        uint64_t sum   = 0;
        while (sum + s->blocks[block] < target) {
            sum += s->blocks[block++];
        }

        const int32_t i0 = block*LP_SAMPLING_BLOCK;
        const int32_t nb = std::min<int32_t>(LP_SAMPLING_BLOCK, s->n_vocab - i0);
        grow(s->piece_w, nb);
        s->rows->weigh(s->logits + i0, nb, s->temp, s->y_max, s->piece_w.data(), nullptr);

        s->i_sel = i0 + reach(s->piece_w.data(), nb, target - sum) - 1;
        s->t_sel = s->i_sel;
    } else if (s->walk && !s->sorted) {
        const place at = list_find(s, s->temp, s->y_max, s->w.data(), target);
        s->i_sel = at.rank;
        s->t_sel = id_of(at.key);
    } else {
        s->i_sel = reach(s->w.data(), s->n, target) - 1;
        s->t_sel = s->id[s->i_sel];
    }

    return s->t_sel;
}

int32_t lp_sampling_n_kept(const struct lp_sampling * s) {
    return s->n;
}

bool lp_sampling_descending(const struct lp_sampling * s) {
    return s->walk;
}

uint64_t lp_sampling_mass(const struct lp_sampling * s) {
    return s->total;
}

int32_t lp_sampling_candidates(struct lp_sampling * s, struct lp_sampling_candidate * dst) {
    const float * l = s->is_list ? s->l.data() : s->logits;

    if (s->argmax) {
        // temperature 0: upstream leaves the others in place with a logit of -inf. Greedy has no probabilities of
        // its own; one candidate gets all.
        const bool hide = s->temp <= 0.0f;
        for (int32_t i = 0; i < s->n; ++i) {
            const bool sel = i == s->i_sel;
            dst[i] = { s->is_list ? s->id[i] : i, sel || !hide ? l[i] : -INFINITY, sel ? 1.0f : 0.0f };
        }
        return s->i_sel;
    }

    const float * w = s->w.data();
    if (!s->is_list) {
        grow(s->w, s->n);
        s->rows->weigh(l, s->n, s->temp, s->y_max, s->w.data(), nullptr);
        w = s->w.data();
    }

    const double sum = (double) s->total/(double) (UINT64_C(1) << LP_SAMPLING_MASS_BITS);
    for (int32_t i = 0; i < s->n; ++i) {
        const float y = s->temp == 1.0f ? l[i] : l[i]/s->temp;
        dst[i] = { s->is_list ? s->id[i] : i, y, (float) (w[i]/sum) };
    }
    return s->i_sel;
}

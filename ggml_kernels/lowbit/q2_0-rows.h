#pragma once

// Rows for the tests and benchmarks of q2_0.h, and their dot product in f64.

#include "q2_0.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

// splitmix64: the same rows on every machine and library
struct lp_random {
    uint64_t state;

    explicit lp_random(uint64_t seed) : state(seed) {}

    uint64_t next() {
        uint64_t z = (state += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27))*0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int    below(int n) { return (int) ((next() >> 33) % (uint64_t) n); }
    double uniform()    { return (double) (next() >> 11)*0x1p-53; }
};

// The value of a half by its definition (IEEE 754 binary16): independent of the kernel's conversion.
static inline double lp_half_value(uint16_t h) {
    const int    expo = (h >> 10) & 31;
    const int    mant = h & 1023;
    const double sign = h & 0x8000 ? -1.0 : 1.0;
    if (expo == 31) {
        return mant ? (double) NAN : sign*(double) INFINITY;
    }
    return sign*(expo == 0 ? std::ldexp((double) mant, -24) : std::ldexp((double) (1024 + mant), expo - 25));
}

static inline int lp_weight_of(const lp_block_q2_0 * x, int64_t j) {
    const lp_block_q2_0 & b = x[j/LP_QK2_0];
    const int i = (int) (j % LP_QK2_0);
    return ((b.qs[i/4] >> 2*(i % 4)) & 3) - 1;
}

static inline void lp_set_code(lp_block_q2_0 * x, int64_t j, int code) {
    lp_block_q2_0 & b = x[j/LP_QK2_0];
    const int i = (int) (j % LP_QK2_0);
    b.qs[i/4] = (uint8_t) ((b.qs[i/4] & ~(3 << 2*(i % 4))) | (code << 2*(i % 4)));
}

// Products are exact in f64 (22 + 9 bits); rounding of the sum is 2^-53 of it, nothing beside float's.
static inline double lp_dot_f64(int64_t n, const lp_block_q2_0 * x, const lp_block_q8_0 * y) {
    double sum = 0.0;
    for (int64_t k = 0; k < n/LP_QK8_0; ++k) {
        int64_t of_block = 0;
        for (int j = 0; j < LP_QK8_0; ++j) {
            of_block += lp_weight_of(x, k*LP_QK8_0 + j)*y[k].qs[j];
        }
        sum += lp_half_value(x[k/2].d)*lp_half_value(y[k].d)*(double) of_block;
    }
    return sum;
}

// A half between 2^-10 and 2^-6, where the scales of real weights and activations lie.
static inline uint16_t lp_random_scale(lp_random & rnd) {
    return (uint16_t) ((5 + rnd.below(4)) << 10 | rnd.below(1024));
}

static inline void lp_fill_random(lp_random & rnd, int64_t n, lp_block_q2_0 * x, lp_block_q8_0 * y) {
    for (int64_t i = 0; x && i < n/LP_QK2_0; ++i) {
        x[i].d = lp_random_scale(rnd);
        for (uint8_t & q : x[i].qs) {
            q = (uint8_t) rnd.next();
        }
    }
    for (int64_t i = 0; y && i < n/LP_QK8_0; ++i) {
        y[i].d = lp_random_scale(rnd);
        for (int8_t & q : y[i].qs) {
            q = (int8_t) (rnd.below(255) - 127);
        }
    }
}

// Running root mean square of errors, each relative to the row's sum of |products| so that rows weigh alike.
struct lp_rms {
    double sum   = 0.0;
    int64_t rows = 0;

    void   add(double error) { sum += error*error; rows++; }
    double value() const     { return rows ? std::sqrt(sum/(double) rows) : 0.0; }
};

static inline double lp_magnitude_f64(int64_t n, const lp_block_q2_0 * x, const lp_block_q8_0 * y) {
    double sum = 0.0;
    for (int64_t j = 0; j < n; ++j) {
        sum += std::fabs(lp_half_value(x[j/LP_QK2_0].d)*lp_half_value(y[j/LP_QK8_0].d)*lp_weight_of(x, j)*y[j/LP_QK8_0].qs[j % LP_QK8_0]);
    }
    return sum;
}

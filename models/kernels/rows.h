// Rows times a weight, the core of few_rows.c and few_blocks.c: each number of the weight is read from memory once,
// whatever the rows.
//
//     out[r][o] = scale[o] * sum_k x[r][k] * w[o][k] + residual[r][o]
//
// What a row gets does not depend on how many others there are: every sum is added up in the same order, in fp32.
// A tile is up to ROWS rows by OUTS outputs, whose sums stay in registers while k passes. While it is computed the next
// tile's weights are fetched: hardware fetches ahead only what lies within a page, and rows of a weight are shorter.

#ifndef ROWS_H
#define ROWS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)  // 32 registers of 16 numbers
#define LANES 16
#define ROWS 6
#elif defined(__AVX__)  // 16 of 8
#define LANES 8
#define ROWS 2
#else  // NEON: 32 of 4
#define LANES 4
#define ROWS 6
#endif
#define OUTS 4
#define STEP (2 * LANES)  // numbers of k that are multiplied at once
#define NEXT_TILE 32768   // bytes: no farther ahead than half of the smallest second-level caches

enum Kind { F32 = 0, BF16 = 1, INT8 = 2 };  // number format of a weight

typedef float vec __attribute__((vector_size(LANES * 4), aligned(1), may_alias));
typedef uint32_t bits __attribute__((vector_size(LANES * 4), aligned(1), may_alias));
typedef float four __attribute__((vector_size(16), aligned(1), may_alias));
typedef int32_t four_ints __attribute__((vector_size(16)));
#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (four_ints){i, j, k, l})
#endif

struct Product {
    enum Kind kind;
    long rows, n_out, n_in;  // n_in is a multiple of STEP, n_out at least OUTS
    const float *x;          // [rows, n_in], in each STEP the even numbers first if kind is BF16
    const void *w;           // [n_out, n_in]
    const float *scale;      // [n_out] with INT8
    const void *residual;    // [rows, n_out] or NULL
    void *out;               // [rows, n_out]; it may be the residual where n_out is a multiple of OUTS
    int narrow;              // residual and output are bf16, else fp32
    int rounds;              // the output is fp32, of numbers that are in bf16
};

INLINE float from_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

INLINE uint16_t to_bf16(float f) {  // to the nearest, halfway to even
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;  // not a number
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

INLINE vec from_int8(const char *w) {  // GCC makes single numbers of what is one instruction
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)w)));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)w)));
#else
    vec v;
    for (int i = 0; i < LANES; i++) v[i] = (float)((const int8_t *)w)[i];
    return v;
#endif
}

INLINE long width(enum Kind kind) { return kind == F32 ? 4 : kind == BF16 ? 2 : 1; }

// The next STEP weights as two vectors. bf16 is the upper half of fp32: even ones are shifted up, odd ones masked.
INLINE void read_weights(enum Kind kind, const char *w, vec *a, vec *b) {
    if (kind == F32) {
        *a = *(const vec *)w;
        *b = *(const vec *)(w + LANES * 4);
    } else if (kind == BF16) {
        bits both = *(const bits *)w;
        *a = (vec)(both << 16);
        *b = (vec)(both & 0xffff0000u);
    } else {
        *a = from_int8(w);
        *b = from_int8(w + LANES);
    }
}

INLINE four quarter(vec v) {  // sums of every fourth number
    four parts[LANES / 4];
    memcpy(parts, &v, sizeof v);
#if LANES == 16
    return (parts[0] + parts[1]) + (parts[2] + parts[3]);
#elif LANES == 8
    return parts[0] + parts[1];
#else
    return parts[0];
#endif
}

INLINE four sums(const vec *v) {  // of each of four vectors
    four a = quarter(v[0]), b = quarter(v[1]), c = quarter(v[2]), d = quarter(v[3]);
    four ab = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
    four cd = SHUFFLE(c, d, 0, 4, 1, 5) + SHUFFLE(c, d, 2, 6, 3, 7);
    return SHUFFLE(ab, cd, 0, 1, 4, 5) + SHUFFLE(ab, cd, 2, 3, 6, 7);
}

INLINE void write_four(enum Kind kind, const struct Product *p, long row, long o, four y) {
    long at = row * p->n_out + o;
    if (kind == INT8) y *= *(const four *)(p->scale + o);
    if (!p->narrow) {
        if (p->residual) y += *(const four *)((const float *)p->residual + at);
        if (p->rounds)
            for (int i = 0; i < OUTS; i++) y[i] = from_bf16(to_bf16(y[i]));
        *(four *)((float *)p->out + at) = y;
    } else {
        for (int i = 0; i < OUTS; i++) {
            float residual = p->residual ? from_bf16(((const uint16_t *)p->residual)[at + i]) : 0.0f;
            ((uint16_t *)p->out)[at + i] = to_bf16(y[i] + residual);
        }
    }
}

// R rows from `row` on, by OUTS outputs from o on. R and kind are constants wherever it is inlined.
INLINE void tile(enum Kind kind, const int R, const struct Product *p, long row, long o) {
    long n_bytes = p->n_in * width(kind), ahead = OUTS * n_bytes < NEXT_TILE ? OUTS * n_bytes : NEXT_TILE;
    const char *w = (const char *)p->w + o * n_bytes;
    const float *x = p->x + row * p->n_in;
    vec acc[ROWS][OUTS];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int i = 0; i < OUTS; i++) acc[r][i] = (vec){0};
    for (long k = 0; k < p->n_in; k += STEP) {
        vec a[OUTS], b[OUTS];
#pragma GCC unroll 8
        for (int i = 0; i < OUTS; i++) {
            const char *at = w + i * n_bytes + k * width(kind);
            read_weights(kind, at, &a[i], &b[i]);
            __builtin_prefetch(at + ahead);
            if (kind == F32) __builtin_prefetch(at + ahead + LANES * 4);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            vec even = *(const vec *)(x + r * p->n_in + k), odd = *(const vec *)(x + r * p->n_in + k + LANES);
#pragma GCC unroll 8
            for (int i = 0; i < OUTS; i++) acc[r][i] += even * a[i];
#pragma GCC unroll 8
            for (int i = 0; i < OUTS; i++) acc[r][i] += odd * b[i];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) write_four(kind, p, row + r, o, sums(acc[r]));
}

INLINE void all_rows(enum Kind kind, const struct Product *p, long o) {
    for (long row = 0; row < p->rows;) {
        long left = p->rows - row, tiles = (left + ROWS - 1) / ROWS;
        int R = (int)((left + tiles - 1) / tiles);
        switch (R) {
            case 1: tile(kind, 1, p, row, o); break;
            case 2: tile(kind, 2, p, row, o); break;
#if ROWS > 2
            case 3: tile(kind, 3, p, row, o); break;
            case 4: tile(kind, 4, p, row, o); break;
            case 5: tile(kind, 5, p, row, o); break;
            case 6: tile(kind, 6, p, row, o); break;
#endif
        }
        row += R;
    }
}

static void f32_rows(const struct Product *p, long o) { all_rows(F32, p, o); }
static void bf16_rows(const struct Product *p, long o) { all_rows(BF16, p, o); }
static void int8_rows(const struct Product *p, long o) { all_rows(INT8, p, o); }

// The t-th of the product's tiles of outputs. The last one may repeat some of the one before.
INLINE void tile_of_outputs(const struct Product *p, long t) {
    long o = t * OUTS;
    if (o + OUTS > p->n_out) o = p->n_out - OUTS;
    (p->kind == F32 ? f32_rows : p->kind == BF16 ? bf16_rows : int8_rows)(p, o);
}

INLINE long n_tiles(const struct Product *p) { return (p->n_out + OUTS - 1) / OUTS; }

// By all threads of a parallel region, each for some of the outputs; they wait for each other at its end.
static void product(const struct Product *p) {
    long n = n_tiles(p);
#pragma omp for schedule(static)
    for (long t = 0; t < n; t++) tile_of_outputs(p, t);
}

// n numbers as rows of a product with a weight of that kind lie: n is a multiple of STEP. In place is not possible.
INLINE void lay(enum Kind kind, float *to, const float *from, long n) {
    if (kind != BF16) {
        memcpy(to, from, (size_t)n * sizeof *to);
        return;
    }
    for (long k = 0; k < n; k += STEP)
        for (int i = 0; i < LANES; i++) {
            to[k + i] = from[k + 2 * i];
            to[k + LANES + i] = from[k + 2 * i + 1];
        }
}

INLINE float sum_of(vec v) {
    four f = quarter(v);
    return (f[0] + f[2]) + (f[1] + f[3]);
}

// Rows of fp32, or of bf16 if they are narrow, as fp32.
static void widen(float *to, const void *from, int narrow, long n) {
    if (!narrow) memcpy(to, from, (size_t)n * 4);
    else for (long i = 0; i < n; i++) to[i] = from_bf16(((const uint16_t *)from)[i]);
}

// The other way round.
static void store(void *to, const float *from, int narrow, long n) {
    if (!narrow) memcpy(to, from, (size_t)n * 4);
    else for (long i = 0; i < n; i++) ((uint16_t *)to)[i] = to_bf16(from[i]);
}

// RMSNorm of a row of n numbers but for sqrt(n), which is in the weight or in the product's: it is divided by its
// length, to which the floor adds. Laid for a product.
static void norm(enum Kind kind, float *to, const float *x, long n, float floor, const float *weight) {
    vec squares = {0};
    for (long k = 0; k < n; k += LANES) squares += *(const vec *)(x + k) * *(const vec *)(x + k);
    float length = sqrtf(sum_of(squares) + floor * floor);
    for (long k = 0; k < n; k += STEP) {
        float part[STEP];
        for (int i = 0; i < STEP; i++) part[i] = x[k + i] / length;
        if (weight)
            for (int i = 0; i < STEP; i++) part[i] *= weight[k + i];
        lay(kind, to + k, part, STEP);
    }
}

#endif

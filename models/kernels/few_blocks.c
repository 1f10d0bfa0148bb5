// Blocks of a Llama on a few rows, for CPUs: norms, projections, rotary embedding, the cache, attention and feed-forward
// in one call, where as many calls as there are operations take longer than the operations of a small model.
//
// The states between operations are fp32. Between blocks they are what the model's number format can hold, so that a
// pass that leaves after a few blocks and goes on later gives the same bits as one that does not. What a row gets
// does not depend on the other rows: every sum is added up in an order that follows from its own position alone.
//
// models/kernels/few_blocks.py calls it.

#include "softmax.h"

struct Size {
    long dim, n_heads, kv_heads, head_dim, ffn_dim;  // dim, head_dim and ffn_dim are multiples of STEP
    float floor;                                     // squared, is added to the sum of squares in a norm
};

struct Block {  // each [out, in], with the weight of the norm before it folded in
    const void *wqkv, *wo, *w13, *w2;
    const float *wqkv_scale, *wo_scale, *w13_scale, *w2_scale;  // [out] with INT8
};

struct Pass {
    struct Size size;
    enum Kind kind, cached;  // of the weights; of states and cache, F32 or BF16
    long batch, tokens;      // the rows of the states are tokens of the first row of the batch, then of the next
    void *x;                 // [batch * tokens, dim], in and out
    char *kv;                // of the first block, [batch, 2 * kv_heads, OUTS places or more, head_dim]: keys, then values
    long of_layer, of_row, of_head;  // bytes from one to the next
    const int64_t *positions;  // [tokens], or [batch, tokens] with per_row
    int per_row;
    const float *rotations;  // [positions, head_dim / 2, 2]: cos, sin
    int threads;
};

struct Work {  // fp32, written and read by all threads
    float *x;        // [rows, dim]
    float *laid;     // [rows, widest], the next product's rows
    float *qkv;      // [rows, (n_heads + 2 * kv_heads) * head_dim]
    float *q;        // [batch, n_heads, tokens, head_dim]
    float *gate_up;  // [rows, 2 * ffn_dim]
    float *scores;   // [threads, queries, longest]
    long queries, longest;
};

#ifdef _OPENMP
int omp_get_thread_num(void);
#else
static int omp_get_thread_num(void) { return 0; }
#endif

INLINE long position(const struct Pass *p, long row) {
    return p->positions[p->per_row ? row : row % p->tokens];
}

// One head of one row: queries turn and are laid out, keys turn and go to the cache, values go to the cache.
static void turn(const struct Pass *p, const struct Work *w, char *kv, long row, long head) {
    const struct Size *s = &p->size;
    long n = s->head_dim, at = position(p, row), b = row / p->tokens;
    const float *from = w->qkv + (row * (s->n_heads + 2 * s->kv_heads) + head) * n;
    const float *rotation = p->rotations + at * n;
    float turned[n];
    if (head < s->n_heads + s->kv_heads)
        for (long i = 0; i < n; i += 2) {
            float c = rotation[i], d = rotation[i + 1];
            turned[i] = from[i] * c - from[i + 1] * d;
            turned[i + 1] = from[i] * d + from[i + 1] * c;
        }
    else
        memcpy(turned, from, sizeof turned);
    if (head < s->n_heads) {
        lay(p->cached, w->q + ((b * s->n_heads + head) * p->tokens + row % p->tokens) * n, turned, n);
        return;
    }
    char *to = kv + b * p->of_row + (head - s->n_heads) * p->of_head + at * n * width(p->cached);
    store(to, turned, p->cached == BF16, n);
}

// R queries' weights times STEP channels of the values. R and cached are constants wherever it is inlined.
INLINE void mix(const int R, enum Kind cached, const float *weights, long end, const char *values, long of_place,
                vec even[ROWS], vec odd[ROWS]) {
    vec x[ROWS], y[ROWS];  // of their own: in registers
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) x[r] = y[r] = (vec){0};
    for (long i = 0; i < end; i++) {
        vec a, b;
        read_weights(cached, values + i * of_place, &a, &b);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            vec weight = all(weights[r * end + i]);
            x[r] += weight * a;
            y[r] += weight * b;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) even[r] = x[r], odd[r] = y[r];
}

#define MIXES(cached, R) \
    case R: mix(R, cached, weights, end, values, of_place, even, odd); break;
#if ROWS > 2
#define ALL_MIXES(cached) MIXES(cached, 1) MIXES(cached, 2) MIXES(cached, 3) MIXES(cached, 4) MIXES(cached, 5) MIXES(cached, 6)
#else
#define ALL_MIXES(cached) MIXES(cached, 1) MIXES(cached, 2)
#endif

static void mix_rows(int R, enum Kind cached, const float *weights, long end, const char *values, long of_place,
                     vec even[ROWS], vec odd[ROWS]) {
    if (cached == F32) switch (R) { ALL_MIXES(F32) }
    else switch (R) { ALL_MIXES(BF16) }
}

// What some heads that share keys give all tokens of one row of the batch.
static void attend(const struct Pass *p, const struct Work *w, const char *kv, long b, long head, long heads) {
    const struct Size *s = &p->size;
    long n = s->head_dim, of_place = n * width(p->cached), shared = s->n_heads / s->kv_heads;
    const char *keys = kv + b * p->of_row + head / shared * p->of_head, *values = keys + s->kv_heads * p->of_head;
    long end = OUTS, queries = heads * p->tokens;
    for (long t = 0; t < p->tokens; t++) {
        long seen = position(p, b * p->tokens + t) + 1;
        if (seen > end) end = seen;
    }
    float *scores = w->scores + omp_get_thread_num() * w->queries * w->longest, norms[queries];
    const float *q = w->q + (b * s->n_heads + head) * p->tokens * n;
    struct Product product = {p->cached, queries, end, n, q, keys, NULL, NULL, scores, 0, 0};
    for (long t = 0; t < n_tiles(&product); t++) tile_of_outputs(&product, t);
    for (long i = 0; i < queries; i++)
        norms[i] = soften(scores + i * end, position(p, b * p->tokens + i % p->tokens) + 1, end);
    for (long first = 0, R; first < queries; first += R) {
        R = queries - first < ROWS ? queries - first : ROWS;
        for (long c = 0; c < n; c += STEP) {
            vec even[ROWS], odd[ROWS];
            mix_rows((int)R, p->cached, scores + first * end, end, values + c * width(p->cached), of_place, even, odd);
            for (long r = 0; r < R; r++) {
                long i = first + r, row = b * p->tokens + i % p->tokens;
                float plain[STEP], *to = w->laid + (row * s->n_heads + head + i / p->tokens) * n + c;
                vec x = even[r] * all(norms[i]), y = odd[r] * all(norms[i]);
                for (int k = 0; k < LANES; k++) {
                    plain[p->cached == BF16 ? 2 * k : k] = x[k];
                    plain[p->cached == BF16 ? 2 * k + 1 : LANES + k] = y[k];
                }
                lay(p->kind, to, plain, STEP);
            }
        }
    }
}

// silu(gate) * up of STEP channels of a row.
static void gated(const struct Pass *p, const struct Work *w, long row, long k) {
    long n = p->size.ffn_dim;
    const float *gate = w->gate_up + row * 2 * n + k, *up = gate + n;
    float part[STEP];
    for (int i = 0; i < STEP; i += LANES) {
        vec g = *(const vec *)(gate + i);
        *(vec *)(part + i) = g / (all(1.0f) + exp_of(-g)) * *(const vec *)(up + i);
    }
    lay(p->kind, w->laid + row * n + k, part, STEP);
}

// Of all rows, laid for the next product; by all threads.
static void norms(const struct Pass *p, const struct Work *w) {
    long rows = p->batch * p->tokens, n = p->size.dim;
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++) norm(p->kind, w->laid + r * n, w->x + r * n, n, p->size.floor, NULL);
}

// By all threads, which wait for each other at the end of every loop.
static void block(const struct Pass *p, const struct Block *m, const struct Work *w, char *kv) {
    const struct Size *s = &p->size;
    long rows = p->batch * p->tokens, all_heads = s->n_heads + 2 * s->kv_heads, inner = s->n_heads * s->head_dim;
    long heads = p->threads > 1 ? 1 : s->n_heads / s->kv_heads, groups = s->n_heads / heads;
    struct Product qkv = {p->kind, rows, all_heads * s->head_dim, s->dim, w->laid, m->wqkv, m->wqkv_scale, NULL, w->qkv, 0, 0};
    struct Product o = {p->kind, rows, s->dim, inner, w->laid, m->wo, m->wo_scale, w->x, w->x, 0, 0};
    struct Product gate_up = {p->kind, rows, 2 * s->ffn_dim, s->dim, w->laid, m->w13, m->w13_scale, NULL, w->gate_up, 0, 0};
    struct Product down = {p->kind, rows, s->dim, s->ffn_dim, w->laid, m->w2, m->w2_scale, w->x, w->x, 0, p->cached == BF16};
    norms(p, w);
    product(&qkv);
#pragma omp for schedule(static)
    for (long i = 0; i < rows * all_heads; i++) turn(p, w, kv, i / all_heads, i % all_heads);
#pragma omp for schedule(static)
    for (long i = 0; i < p->batch * groups; i++) attend(p, w, kv, i / groups, i % groups * heads, heads);
    product(&o);
    norms(p, w);
    product(&gate_up);
    long steps = s->ffn_dim / STEP;
#pragma omp for schedule(static)
    for (long i = 0; i < rows * steps; i++) gated(p, w, i / steps, i % steps * STEP);
    product(&down);
}

// Returns 0, or -1 where there is no memory.
int few_blocks(const struct Pass *p, const struct Block *blocks, long n_blocks) {
    const struct Size *s = &p->size;
    long rows = p->batch * p->tokens, inner = s->n_heads * s->head_dim;
    if (!rows || !n_blocks) return 0;
    struct Work w = {.queries = p->tokens * (s->n_heads / s->kv_heads), .longest = OUTS};
    long widest = s->dim;
    if (inner > widest) widest = inner;
    if (s->ffn_dim > widest) widest = s->ffn_dim;
    for (long r = 0; r < rows; r++)
        if (position(p, r) + 1 > w.longest) w.longest = position(p, r) + 1;
    long sizes[] = {rows * s->dim, rows * widest, rows * (inner + 2 * s->kv_heads * s->head_dim),
                    rows * inner,  rows * 2 * s->ffn_dim, p->threads * w.queries * w.longest};
    float **parts[] = {&w.x, &w.laid, &w.qkv, &w.q, &w.gate_up, &w.scores};
    long total = 0;
    for (int i = 0; i < 6; i++) total += sizes[i];
    float *memory = malloc((size_t)total * 4), *next = memory;
    if (!memory) return -1;
    for (int i = 0; i < 6; next += sizes[i++]) *parts[i] = next;
    widen(w.x, p->x, p->cached == BF16, rows * s->dim);
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    for (long i = 0; i < n_blocks; i++) block(p, blocks + i, &w, p->kv + i * p->of_layer);
    store(p->x, w.x, p->cached == BF16, rows * s->dim);
    free(memory);
    return 0;
}

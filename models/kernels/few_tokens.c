// Successive tokens in one call, for CPUs: each is embedded, passes through blocks and a head, and the next is chosen.
// A small model's draft is over sooner than the calls that it is made of otherwise. models/kernels/few_tokens.py calls
// it. What a token and its states are is what few_blocks, few_rows and draw_token give one by one.

#include "rows.h"

struct Head {
    enum Kind kind;
    const void *w, *scale;
    long n_out;
    const struct Norm *norm;
    const int64_t *ids;  // [n_out], the tokens of its outputs, ascending; NULL: each output is the token of its number
};

struct Choices {
    const float *temperature;  // [batch]
    const long *drawn;         // [batch]: a row's first so many tokens are drawn, the ones after are the likeliest
    const double *u;           // [batch, steps], uniform in [0, 1)
    float *q;                  // [batch, steps, vocabulary]: what tokens were drawn from
    long vocabulary;
};

struct Tokens {
    struct Pass pass;     // of the first step, a token of each row; x is [steps + read_last, batch, dim]
    const struct Block *blocks;
    long n_blocks, n_positions;  // positions from one step to the next
    const void *embedding;       // [vocabulary, dim], of the states' number format
    struct Head head;
    struct Choices choices;
    long steps;
    int read_last;  // the token that the last step chooses passes through the blocks, too
    int64_t *ids;   // [steps + 1, batch], of which the first are given
};

static long likeliest(const void *logits, int narrow, float *room, long n) {
    const float *x = logits;
    if (narrow) widen(room, logits, narrow, n), x = room;
    float most[LANES], largest = -INFINITY;
    for (int k = 0; k < LANES; k++) most[k] = -INFINITY;
    long whole = n - n % LANES;
    for (long i = 0; i < whole; i += LANES)
        for (int k = 0; k < LANES; k++) most[k] = x[i + k] > most[k] ? x[i + k] : most[k];
    for (int k = 0; k < LANES; k++) largest = most[k] > largest ? most[k] : largest;
    for (long i = whole; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (long i = 0; i < n; i++)
        if (x[i] == largest) return i;
    return 0;  // none is a number
}

// The token of a row after a step, from its logits; room is [n_out].
static long chosen(const struct Tokens *t, long step, long row, const void *logits, float *room) {
    const struct Choices *c = &t->choices;
    long n = t->head.n_out;
    int narrow = t->head.kind != F32;
    if (step >= c->drawn[row]) {
        long found = likeliest(logits, narrow, room, n);
        return t->head.ids ? t->head.ids[found] : found;
    }
    long at = row * t->steps + step;
    float *q = c->q + at * c->vocabulary;
    if (!t->head.ids) return draw_token(logits, narrow, n, c->temperature[row], c->u[at], q);
    long found = draw_token(logits, narrow, n, c->temperature[row], c->u[at], room);
    memset(q, 0, (size_t)c->vocabulary * sizeof *q);
    for (long i = 0; i < n; i++) q[t->head.ids[i]] = room[i];
    return t->head.ids[found];
}

// Returns 0, or -1 where there is no memory.
int few_tokens(const struct Tokens *t) {
    struct Pass p = t->pass;
    const struct Head *h = &t->head;
    long of_state = p.size.dim * width(p.cached), of_logits = h->n_out * (h->kind == F32 ? 4 : 2);
    float *room = malloc((size_t)(h->n_out * 4 + p.batch * of_logits));
    char *logits = (char *)(room + h->n_out);
    if (!room) return -1;
    int failed = 0;
    for (long step = 0; step < t->steps + t->read_last && !failed; step++) {
        const int64_t *ids = t->ids + step * p.batch;
        for (long r = 0; r < p.batch; r++)
            memcpy((char *)p.x + r * of_state, (const char *)t->embedding + ids[r] * of_state, (size_t)of_state);
        failed = few_blocks(&p, t->blocks, t->n_blocks);
        if (step < t->steps && !failed) {
            failed = few_rows(h->kind, p.x, p.batch, h->w, h->scale, h->n_out, p.size.dim, NULL, logits, h->norm, p.threads);
            for (long r = 0; r < p.batch && !failed; r++)
                t->ids[(step + 1) * p.batch + r] = chosen(t, step, r, logits + r * of_logits, room);
        }
        p.x = (char *)p.x + p.batch * of_state;
        p.positions += t->n_positions;
    }
    free(room);
    return failed;
}
